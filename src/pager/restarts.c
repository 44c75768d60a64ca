/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/restarts.h"

void restarts_init(struct restarts *r, uint64_t grace_ns)
{
    *r = (struct restarts){.grace_ns = grace_ns, .missing_since_ns = RESTARTS_NEVER};
}

void restarts_ready(struct restarts *r)
{
    r->missing_since_ns = RESTARTS_NEVER;
    r->pause_ns = 0;
}

/* too_many() - note a crash. Return: true if it is the last of RESTARTS_MAX_CRASHES close to each other */
static bool too_many(struct restarts *r, uint64_t now_ns)
{
    uint64_t span_ns = max_u64(r->grace_ns, RESTARTS_CRASH_SPAN_NS);
    uint64_t oldest_ns;

    r->crashes_ns[r->next_crash] = max_u64(now_ns, 1);
    r->next_crash = (r->next_crash + 1) % RESTARTS_MAX_CRASHES;
    oldest_ns = r->crashes_ns[r->next_crash];
    return oldest_ns != 0 && now_ns - oldest_ns <= span_ns;
}

uint64_t restarts_died(struct restarts *r, uint64_t now_ns, bool crashed)
{
    uint64_t start_ns = now_ns + r->pause_ns;

    if (r->missing_since_ns == RESTARTS_NEVER)
        r->missing_since_ns = now_ns;
    r->pause_ns =
        r->pause_ns == 0 ? RESTARTS_PAUSE_MIN_NS : min_u64(r->pause_ns * 2, RESTARTS_PAUSE_MAX_NS);
    if (crashed && too_many(r, now_ns))
        return RESTARTS_NEVER;
    return start_ns < restarts_deadline_ns(r) ? start_ns : RESTARTS_NEVER;
}

uint64_t restarts_deadline_ns(const struct restarts *r)
{
    uint64_t deadline_ns;

    if (r->missing_since_ns == RESTARTS_NEVER)
        return RESTARTS_NEVER;
    if (__builtin_add_overflow(r->missing_since_ns, r->grace_ns, &deadline_ns))
        return RESTARTS_NEVER - 1;
    return deadline_ns;
}
