/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.c - touching orders
 *
 * Sequential is what a guest's read-ahead or a memory scrub looks like and where fault-around pays.
 * Random is a fault a touch: it measures the round trip. Scattered is what restored guests were
 * seen to do: about a tenth of the memory in short runs of neighbouring pages, the runs in no
 * order. The guest is cut into equal slots, each holds one run of 1 to 5 pages somewhere in it, so
 * the runs never overlap and are spread over all of the memory. Ascending is the same set from the
 * lowest page to the highest: neighbours are as far apart, but each step goes the same
 * way. Jumbled is scattered with the pages of each run in no order: not every program reads forward.
 *
 * Plans are made once, before the runs, so that every handler gets exactly the same touches in
 * every round.
 */

#include "cli/bench/plan.h"

#include <errno.h>
#include <stdlib.h>

#include "base/err.h"

enum {
    RUN_PAGES_MAX = 5,
    RUN_PAGES_MEAN = 3,
    WORKING_SET_PAGES = 24, /* of each ... */
    WORKING_SET_OF = 256,
};

const char *bench_pattern_name(enum bench_pattern pattern)
{
    static const char *const names[] = {
        [BENCH_SEQUENTIAL] = "sequential", [BENCH_RANDOM] = "random",
        [BENCH_SCATTERED] = "scattered",   [BENCH_ASCENDING] = "ascending",
        [BENCH_JUMBLED] = "jumbled",
    };

    assert(pattern < BENCH_N_PATTERNS);
    return names[pattern];
}

uint64_t bench_random(uint64_t *state)
{
    /* xorshift: enough for shuffling, and no state beyond one word */
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

void bench_shuffle(uint32_t *list, uint32_t n, uint64_t *state)
{
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = (uint32_t)(bench_random(state) % i);
        uint32_t swap = list[i - 1];

        list[i - 1] = list[j];
        list[j] = swap;
    }
}

static void list_ascending(struct bench_plan *p, uint32_t n_pages)
{
    for (uint32_t i = 0; i < n_pages; i++)
        p->pages[i] = i;
    p->n = n_pages;
}

static int list_scattered(struct bench_plan *p, enum bench_pattern pattern, uint32_t n_pages,
                          uint64_t *random)
{
    uint64_t target = (uint64_t)n_pages * WORKING_SET_PAGES / WORKING_SET_OF;
    uint32_t n_runs = (uint32_t)max_u64(target / RUN_PAGES_MEAN, 1);
    uint32_t slot = n_pages / n_runs;
    uint32_t *slots = calloc(n_runs, sizeof(*slots));

    if (!slots)
        return err_origin(-ENOMEM, "no memory for %u runs of pages", n_runs);
    for (uint32_t i = 0; i < n_runs; i++)
        slots[i] = i;
    if (pattern != BENCH_ASCENDING)
        bench_shuffle(slots, n_runs, random);
    p->n = 0;
    for (uint32_t i = 0; i < n_runs; i++) {
        uint32_t len = 1 + (uint32_t)(bench_random(random) % RUN_PAGES_MAX);
        uint32_t first;

        len = len < slot ? len : slot;
        first = slots[i] * slot + (uint32_t)(bench_random(random) % (slot - len + 1));
        for (uint32_t k = 0; k < len; k++)
            p->pages[p->n++] = first + k;
        if (pattern == BENCH_JUMBLED)
            bench_shuffle(p->pages + p->n - len, len, random);
    }
    free(slots);
    return 0;
}

int bench_plan_init(struct bench_plan *p, enum bench_pattern pattern, uint32_t n_pages,
                    uint32_t n_touches, uint64_t seed)
{
    uint64_t random = seed | 1;
    int r = 0;

    assert(n_pages > 0);
    p->n = 0;
    p->pages = calloc(n_pages, sizeof(*p->pages));
    if (!p->pages)
        return err_origin(-ENOMEM, "no memory for a list of %u pages", n_pages);
    if (pattern != BENCH_SEQUENTIAL && pattern != BENCH_RANDOM) {
        r = list_scattered(p, pattern, n_pages, &random);
    } else {
        list_ascending(p, n_pages);
        if (pattern == BENCH_RANDOM)
            bench_shuffle(p->pages, n_pages, &random);
    }
    if (r < 0) {
        bench_plan_deinit(p);
        return r;
    }
    if (p->n > n_touches)
        p->n = n_touches;
    return 0;
}

void bench_plan_deinit(struct bench_plan *p)
{
    free(p->pages);
    p->pages = NULL;
    p->n = 0;
}
