/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_RESTARTS_H
#define PAGER_RESTARTS_H

/*
 * restarts.h - when a pager that died is followed by another one, and when it is given up
 *
 * A VM without a pager stops at its next missing page. So the first successor starts at once. One that dies before it
 * was ready is followed after a pause that doubles from 1 ms to 100 ms. The VM is given up, and stopped,
 *
 *   - when no pager has been ready for the time of grace; or
 *   - when RESTARTS_MAX_CRASHES pagers crashed within that time (at least 10 s): each may have been ready, and died of
 *     the same fault again. Only signals that a program raises by its own mistake count as crashes: whoever kills pagers
 *     from outside, 1,000 times if need be, takes nothing from the VM.
 *
 * Times come from outside: nothing here reads a clock.
 */

#include "base/base.h"

#define RESTARTS_MAX_CRASHES 5u
#define RESTARTS_CRASH_SPAN_NS \
    (10 * NS_PER_S) /* the shortest time within which crashes count together */
#define RESTARTS_PAUSE_MIN_NS (1 * NS_PER_MS)
#define RESTARTS_PAUSE_MAX_NS (100 * NS_PER_MS)

/** struct restarts - the history that matters */
struct restarts {
    uint64_t grace_ns;
    uint64_t missing_since_ns; /* since when a pager has been missing; RESTARTS_NEVER: it is not */
    uint64_t pause_ns;         /* before the next start */
    uint64_t crashes_ns[RESTARTS_MAX_CRASHES]; /* the last ones, 0: none; a ring */
    unsigned next_crash;
};

#define RESTARTS_NEVER UINT64_MAX

/** restarts_init() - the first pager is about to start; nobody has missed one yet */
void restarts_init(struct restarts *r, uint64_t grace_ns);

/** restarts_ready() - the pager is serving */
void restarts_ready(struct restarts *r);

/**
 * restarts_died() - the pager is dead, or could not be started
 * @crashed: by a signal that says that it made a mistake
 *
 * Return: when the next one is to start, or RESTARTS_NEVER: give up.
 */
uint64_t restarts_died(struct restarts *r, uint64_t now_ns, bool crashed);

/** restarts_deadline_ns() - when to give up if no pager gets ready before; RESTARTS_NEVER: one is */
uint64_t restarts_deadline_ns(const struct restarts *r);

#endif
