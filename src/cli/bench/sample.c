/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sample.c - the clock's calibration, and quantiles
 *
 * On x86 a touch is timed with rdtscp, if the kernel says that the counter runs at one rate and
 * never stops. It is calibrated against CLOCK_MONOTONIC over 20 ms, which is right to some parts in
 * a million. A pair of readings costs about 20 ns; that is part of every sample and printed beside
 * the table.
 */

#include "cli/bench/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALIBRATION_NS   (20 * NS_PER_MS)
#define OVERHEAD_SAMPLES 1001u

/* Whether the "flags" line of /proc/cpuinfo promises a counter that can be used as a clock. */
static bool tsc_is_steady(void)
{
    static char line[16384];
    FILE *f = fopen("/proc/cpuinfo", "re");
    bool steady = false;

    if (!f)
        return false;
    while (fgets(line, sizeof(line), f)) {
        if (strncmp(line, "flags", 5) != 0)
            continue;
        steady = strstr(line, " constant_tsc") && strstr(line, " rdtscp");
        break;
    }
    fclose(f);
    return steady;
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

void bench_clock_init(struct bench_clock *c)
{
    static uint64_t samples[OVERHEAD_SAMPLES];
    const size_t middle = OVERHEAD_SAMPLES / 2;

    c->is_tsc = false;
    c->ns_per_tick = 1;
#if defined(__x86_64__)
    c->is_tsc = tsc_is_steady();
#endif
    if (c->is_tsc) {
        uint64_t begin_ns = clock_now_ns();
        uint64_t begin = bench_clock_ticks(c);
        uint64_t end_ns = begin_ns;

        while (end_ns - begin_ns < CALIBRATION_NS)
            end_ns = clock_now_ns();
        c->ns_per_tick = (double)(end_ns - begin_ns) / (double)(bench_clock_ticks(c) - begin);
    }
    for (size_t i = 0; i < OVERHEAD_SAMPLES; i++) {
        uint64_t begin = bench_clock_ticks(c);

        samples[i] = bench_clock_ticks(c) - begin;
    }
    qsort(samples, OVERHEAD_SAMPLES, sizeof(samples[0]), compare_u64);
    c->overhead_ns = (double)samples[middle] * c->ns_per_tick;
}

const char *bench_clock_name(const struct bench_clock *c)
{
    return c->is_tsc ? "rdtscp" : "clock_gettime";
}

static double quantile_ns(const uint64_t *sorted, size_t n, unsigned percent,
                          const struct bench_clock *c)
{
    size_t rank = (n * percent + 99) / 100;

    return (double)sorted[rank ? rank - 1 : 0] * c->ns_per_tick;
}

void bench_summarise(struct bench_summary *out, uint64_t *ticks, size_t n,
                     const struct bench_clock *c)
{
    assert(n > 0);
    qsort(ticks, n, sizeof(*ticks), compare_u64);
    out->p50_ns = quantile_ns(ticks, n, 50, c);
    out->p90_ns = quantile_ns(ticks, n, 90, c);
    out->p99_ns = quantile_ns(ticks, n, 99, c);
}

double bench_median(double *values, size_t n)
{
    assert(n > 0);
    qsort(values, n, sizeof(*values), compare_double);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}
