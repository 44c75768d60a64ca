/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_AIMS_H
#define CLI_BENCH_AIMS_H

/*
 * aims.h - what the pager is meant to reach, beside what it reached
 */

#include "cli/bench/fault.h"

enum {
    BENCH_AIMS_MAX = 12
};

/** struct bench_aim - one figure and its limit */
struct bench_aim {
    char what[80];
    const char *unit;
    double figure;
    double limit;
    bool at_least; /* the figure is to be >= limit; else <= */
};

/** bench_aim_is_met() - does the figure keep to its limit? */
bool bench_aim_is_met(const struct bench_aim *aim);

/** bench_aims() - those for which everything was measured. Return: how many of @aims were set */
unsigned bench_aims(const struct bench_results *res, struct bench_aim aims[BENCH_AIMS_MAX]);

#endif
