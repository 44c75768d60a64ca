/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_TESTING_H
#define UNIT_TESTING_H

/*
 * testing.h - what the unit tests share: cmocka and what it needs, a watchdog, random numbers from a printed seed
 *
 * A random test takes its seed from $THAW_SEED or from the clock and prints it, so that a failure can be had again.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

/* A failed assert() of the program under test ends the process: the watchdog and the harness report it. */
#include <cmocka.h>

#include "base/base.h"
#include "base/clock.h"

#define TEST_WATCHDOG_S 120u

/** struct rng - pseudo-random numbers (splitmix64): any state is a good one */
struct rng {
    uint64_t state;
};

static inline uint64_t rng_next(struct rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/** rng_below() - 0..@n-1 */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
    return rng_next(r) % n;
}

/** rng_init() - seeded from $THAW_SEED or the clock; prints the seed, which repeats the test @what */
static inline struct rng rng_init(const char *what)
{
    const char *given = getenv("THAW_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : clock_wall_ns() & UINT32_MAX;

    print_message("# %s: THAW_SEED=%llu\n", what, (unsigned long long)seed);
    return (struct rng){.state = seed};
}

/** test_watchdog() - end the process when it has not ended by itself in time */
static inline void test_watchdog(void)
{
    (void)alarm(TEST_WATCHDOG_S);
}

#endif
