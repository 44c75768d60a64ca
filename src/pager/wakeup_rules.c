/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/wakeup_rules.h"

#include <string.h>

/* ---- an allowance --------------------------------------------------------------------------------------------- */

void allowance_init(struct allowance *a, unsigned percent, uint64_t full_ns, uint64_t now_ns)
{
    *a = (struct allowance){
        .percent = percent, .full_ns = full_ns, .left_ns = full_ns, .at_ns = now_ns};
}

uint64_t allowance_left(struct allowance *a, uint64_t now_ns)
{
    uint64_t passed_ns = now_ns > a->at_ns ? now_ns - a->at_ns : 0;

    if (a->percent >= 100)
        return WAKEUP_NEVER;
    if (a->percent == 0)
        return 0;
    /* Enough to fill it, before it is multiplied: a pager may sleep for a year. */
    passed_ns = min_u64(passed_ns, a->full_ns / a->percent * 100 + 100);
    a->left_ns = min_u64(a->full_ns, a->left_ns + passed_ns * a->percent / 100);
    a->at_ns = max_u64(a->at_ns, now_ns);
    return a->left_ns;
}

void allowance_spend(struct allowance *a, uint64_t spent_ns, uint64_t now_ns)
{
    (void)allowance_left(a, now_ns);
    a->left_ns -= min_u64(a->left_ns, spent_ns);
}

/* ---- holding the processors awake ----------------------------------------------------------------------------- */

void qos_rule_init(struct qos_rule *q, unsigned percent, uint64_t now_ns)
{
    *q = (struct qos_rule){.window_ns = now_ns};
    allowance_init(&q->allowance, percent, QOS_AT_ONCE_NS, now_ns);
}

bool qos_rule_step(struct qos_rule *q, unsigned n, uint64_t now_ns)
{
    bool over = now_ns >= q->window_ns + QOS_WINDOW_NS;

    if (q->held && over) {
        allowance_spend(&q->allowance, now_ns - q->since_ns, now_ns);
        q->since_ns = now_ns;
        /* A window that was looked at late says nothing of what came after its end. */
        q->held = q->n + n >= QOS_MESSAGES && now_ns < q->window_ns + 2 * QOS_WINDOW_NS &&
                  allowance_left(&q->allowance, now_ns) >= QOS_WINDOW_NS;
    }
    if (over) {
        q->window_ns = now_ns;
        q->n = 0;
    }
    q->n += n;
    if (!q->held && q->n >= QOS_MESSAGES &&
        allowance_left(&q->allowance, now_ns) >= 2 * QOS_WINDOW_NS) {
        q->held = true;
        q->since_ns = now_ns;
        q->window_ns = now_ns;
        q->n = 0;
    }
    return q->held;
}

uint64_t qos_rule_deadline_ns(const struct qos_rule *q)
{
    return q->held ? q->window_ns + QOS_WINDOW_NS : WAKEUP_NEVER;
}

/* ---- looking without sleeping --------------------------------------------------------------------------------- */

void spin_rule_init(struct spin_rule *s, uint64_t fixed_ns, unsigned percent, uint64_t now_ns)
{
    *s = (struct spin_rule){.fixed_ns = fixed_ns, .next_pause = SPIN_PAUSE_MIN};
    for (unsigned i = 0; i < SPIN_GAPS; i++)
        s->gaps_ns[i] = WAKEUP_NEVER;
    allowance_init(&s->allowance, percent, SPIN_AT_ONCE_NS, now_ns);
}

/* median_gap() - the upper one of an even number */
static uint64_t median_gap(const struct spin_rule *s)
{
    for (unsigned i = 0; i < SPIN_GAPS; i++) {
        unsigned below = 0;
        unsigned same = 0;

        for (unsigned j = 0; j < SPIN_GAPS; j++) {
            below += s->gaps_ns[j] < s->gaps_ns[i];
            same += s->gaps_ns[j] == s->gaps_ns[i];
        }
        if (below <= SPIN_GAPS / 2 && below + same > SPIN_GAPS / 2)
            return s->gaps_ns[i];
    }
    return WAKEUP_NEVER;
}

uint64_t spin_rule_ns(struct spin_rule *s, uint64_t now_ns)
{
    uint64_t gap_ns = s->fixed_ns > 0 ? 0 : median_gap(s);
    uint64_t look_ns = s->fixed_ns > 0 ? s->fixed_ns : min_u64(2 * gap_ns, SPIN_MAX_NS);

    if (s->allowance.percent == 0 || gap_ns > SPIN_MAX_NS)
        return 0;
    if (s->pause > 0) {
        s->pause--;
        return 0;
    }
    return allowance_left(&s->allowance, now_ns) < look_ns ? 0 : look_ns;
}

void spin_rule_waited(struct spin_rule *s, uint64_t gap_ns)
{
    s->gaps_ns[s->next] = gap_ns;
    s->next = (s->next + 1) % SPIN_GAPS;
}

void spin_rule_spent(struct spin_rule *s, uint64_t spent_ns, bool found, uint64_t now_ns)
{
    allowance_spend(&s->allowance, spent_ns, now_ns);
    if (s->fixed_ns > 0)
        return;
    if (found) {
        s->misses = 0;
        s->next_pause = (unsigned)max_u64(SPIN_PAUSE_MIN, s->next_pause / 2);
    } else if (++s->misses >= SPIN_MISSES) {
        s->misses = 0;
        s->pause = s->next_pause;
        s->next_pause = (unsigned)min_u64(SPIN_PAUSE_MAX, s->next_pause * 2ull);
    }
}

/* ---- being where the guest is --------------------------------------------------------------------------------- */

#define FOLLOW_OLD_NS  (8 * FOLLOW_SELDOM_NS) /* a look longer ago than this says nothing of now */
#define FOLLOW_IDLE_NS (100 * NS_PER_US)      /* who ran less than this was not busy */
#define FOLLOW_SHARE   4u /* the others together ran at most one part in so many */

void follow_rule_init(struct follow_rule *f)
{
    f->n_last = 0;
    f->tid = 0;
    f->at_ns = 0;
    f->every_ns = FOLLOW_OFTEN_NS;
}

bool follow_rule_is_due(const struct follow_rule *f, uint64_t now_ns)
{
    return f->at_ns == 0 || now_ns >= f->at_ns + f->every_ns;
}

/* ran_since() - a thread that was not there the last time has run all of its time since then */
static uint64_t ran_since(const struct follow_rule *f, const struct thread_time *t)
{
    for (unsigned i = 0; i < f->n_last; i++) {
        if (f->last[i].tid == t->tid)
            return t->run_ns > f->last[i].run_ns ? t->run_ns - f->last[i].run_ns : 0;
    }
    return t->run_ns;
}

int follow_rule_step(struct follow_rule *f, const struct thread_time *now, unsigned n,
                     uint64_t now_ns)
{
    bool known = f->at_ns != 0 && now_ns - f->at_ns <= FOLLOW_OLD_NS;
    uint64_t all_ns = 0;
    uint64_t most_ns = 0;
    int busiest = 0;

    assert(n <= FOLLOW_THREADS);
    for (unsigned i = 0; i < n; i++) {
        uint64_t ran_ns = ran_since(f, &now[i]);

        all_ns += ran_ns;
        if (ran_ns > most_ns) {
            most_ns = ran_ns;
            busiest = now[i].tid;
        }
    }
    if (n > 0)
        memcpy(f->last, now, n * sizeof(*now));
    f->n_last = n;
    f->at_ns = now_ns;
    if (!known || most_ns < FOLLOW_IDLE_NS || (all_ns - most_ns) * FOLLOW_SHARE > all_ns)
        busiest = 0;
    f->every_ns =
        known && busiest == f->tid ? min_u64(FOLLOW_SELDOM_NS, 2 * f->every_ns) : FOLLOW_OFTEN_NS;
    f->tid = busiest;
    return busiest;
}
