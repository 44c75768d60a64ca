/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_PLAN_H
#define CLI_BENCH_PLAN_H

/*
 * plan.h - which pages are touched, in which order
 */

#include "base/base.h"

enum bench_pattern {
    BENCH_SEQUENTIAL,
    BENCH_RANDOM,
    BENCH_SCATTERED, /* a working set: 24 of 256 pages, in runs of 1 to 5 */
    BENCH_ASCENDING, /* the same, the runs in the order of their addresses */
    BENCH_JUMBLED,   /* scattered, and the pages of a run in no order either */
    BENCH_N_PATTERNS,
};

/** struct bench_plan - page numbers in touching order, each at most once */
struct bench_plan {
    uint32_t *pages;
    uint32_t n;
};

const char *bench_pattern_name(enum bench_pattern pattern);

/** bench_random() - the next number of a repeatable sequence; @state: any value but 0 at first */
uint64_t bench_random(uint64_t *state);

/** bench_shuffle() - @n numbers, in any order afterwards; @state: as above */
void bench_shuffle(uint32_t *list, uint32_t n, uint64_t *state);

/**
 * bench_plan_init() - choose pages out of 0..@n_pages-1
 * @p:         becomes valid on success
 * @n_pages:   1..2^32-1
 * @n_touches: how many at most
 * @seed:      the same seed gives the same plan
 *
 * Return: 0 or -ENOMEM.
 */
int bench_plan_init(struct bench_plan *p, enum bench_pattern pattern, uint32_t n_pages,
                    uint32_t n_touches, uint64_t seed);

void bench_plan_deinit(struct bench_plan *p);

#endif
