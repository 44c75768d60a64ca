/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_SAMPLE_H
#define CLI_BENCH_SAMPLE_H

/*
 * sample.h - timing single touches: a clock of some 20 ns, and quantiles of what it read
 */

#include "base/base.h"
#include "base/clock.h"

/**
 * struct bench_clock - how ticks are read and what one is worth; filled once, before any
 * measurement
 */
struct bench_clock {
    bool is_tsc; /* rdtscp; else clock_gettime(CLOCK_MONOTONIC), whose tick is a nanosecond */
    double ns_per_tick;
    double overhead_ns; /* a pair of readings with nothing between; not taken off any figure */
};

/** struct bench_summary - quantiles in nanoseconds */
struct bench_summary {
    double p50_ns;
    double p90_ns;
    double p99_ns;
};

/** bench_clock_init() - choose the clock and calibrate it; takes 20 ms */
void bench_clock_init(struct bench_clock *c);

const char *bench_clock_name(const struct bench_clock *c);

/** bench_clock_ticks() - read the clock; neither loads before nor loads after move across it */
static inline uint64_t bench_clock_ticks(const struct bench_clock *c)
{
#if defined(__x86_64__)
    if (c->is_tsc) {
        uint32_t low, high, core;

        __asm__ volatile("rdtscp\n\tlfence" : "=a"(low), "=d"(high), "=c"(core) : : "memory");
        return (uint64_t)high << 32 | low;
    }
#endif
    (void)c;
    return clock_now_ns();
}

/** bench_summarise() - sort @ticks and take its quantiles. @n: not 0 */
void bench_summarise(struct bench_summary *out, uint64_t *ticks, size_t n,
                     const struct bench_clock *c);

/** bench_median() - of @n values, which are sorted by it. @n: not 0 */
double bench_median(double *values, size_t n);

#endif
