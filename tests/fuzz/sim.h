/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_SIM_H
#define FUZZ_SIM_H

/*
 * sim.h - an engine, a pager's loop around it, a kernel, a guest, and an oracle that knows what every page must hold
 *
 * One string of bytes is one schedule: each byte makes a choice (which thread runs, what it touches, when the pager reads
 * its messages, how far a copy comes, what the source answers). The same bytes always give the same run. When they are
 * used up, everybody does what is left to do, and at the end nobody may be asleep.
 *
 * The kernel here is what is known of the real one: installs are refused from the moment a discard begins until the
 * discarding thread has run again after its REMOVE was read; faults are handed out before REMOVEs; between the end of the
 * refusals and the zap an install succeeds and is thrown away; EEXIST wakes nobody; a run that meets a page that is there
 * ends early; a thread may fall asleep on a page that has just been installed; without a free huge page the answer is
 * EEXIST, as if the page were there.
 *
 * What is checked (see sim_truth.c): no image bytes in a page whose REMOVE was read (I2), no zeroes where the image's
 * bytes belong (I6), every thread answered (I1), every waiting page in one of the places where engine.h says it is, no
 * install tried while the engine knows that it will be refused, no write unnoticed where writes are tracked (I8), no
 * cold bytes copied on the pager's thread (I5), no stop without a reason, no work without end.
 *
 * In half of the schedules there is a plan, too. Its slices are taken at any time, one by one or several at once, which is
 * harder than what a pager does; at the end it must be walked, and what was not left behind must be there.
 */

#include "base/base.h"

/** struct sim_stats - what happened in schedules so far; sums, to see that the interesting things do happen */
struct sim_stats {
    uint64_t schedules;
    uint64_t faults;
    uint64_t wp_faults;
    uint64_t removes;
    uint64_t copies;
    uint64_t zeroes;
    uint64_t unprotects;
    uint64_t wakes;
    uint64_t fetches;
    uint64_t slices;       /* installed ahead, or tried */
    uint64_t bursts;       /* several of them at once */
    uint64_t outcomes[16]; /* by enum outcome */
    uint64_t stops[8];     /* by enum stop_reason */
    uint64_t restarts;
    uint64_t zapped_again; /* pages installed between the end of the refusals and the zap */
    uint64_t stale_faults; /* threads that fell asleep on a page that was there */
};

/**
 * sim_run() - run one schedule
 * @bytes: (borrow) @n_bytes choices
 * @stats: added to; may be NULL
 *
 * An assertion of the engine ends the process. Return: NULL, or a sentence (static memory) that says what went wrong.
 */
const char *sim_run(const uint8_t *bytes, size_t n_bytes, struct sim_stats *stats);

#endif
