/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_PARALLEL_H
#define BASE_PARALLEL_H

/*
 * parallel.h - several threads do numbered units of work, each once
 *
 * Units are begun in the order of their numbers. The first error ends it: units that are at work are finished, no other is
 * begun, and the caller gets the error with its text.
 */

#include "base/base.h"

#define PARALLEL_TICK_NS     (100 * NS_PER_MS)
#define PARALLEL_THREADS_MAX 512u

/** struct parallel - what is to be done */
struct parallel {
    unsigned n_threads; /* 1 to PARALLEL_THREADS_MAX; no more are started than there are units */
    uint64_t n_units;
    /* 0 or a negative errno with a text. @thread: 0 to n_threads - 1, for memory of its own */
    int (*work)(void *ctx, unsigned thread, uint64_t unit);
    /* every PARALLEL_TICK_NS on the calling thread; a negative errno with a text ends it. NULL: nothing */
    int (*tick)(void *ctx);
    void *ctx;
};

/** parallel_run() - do it. Return: 0, or the first error with its text */
int parallel_run(const struct parallel *p);

/** parallel_default_threads() - as many as there are processors that this process may use */
unsigned parallel_default_threads(void);

#endif
