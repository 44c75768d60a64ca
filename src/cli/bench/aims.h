/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_AIMS_H
#define CLI_BENCH_AIMS_H

/*
 * aims.h - what the pager is meant to reach, beside what it reached
 */

#include "cli/bench/job.h"

enum {
    BENCH_AIMS_MAX = 12
};

/** struct bench_aim - one figure and its limit */
struct bench_aim {
    char what[80];
    const char *unit;
    double figure; /* from the medians over the rounds */
    double low;    /* the same from each round by itself: the smallest */
    double high;   /* and the largest */
    double limit;
    bool at_least; /* the figure is to be >= limit; else <= */
};

/** enum bench_verdict - whether a figure keeps to its limit */
enum bench_verdict {
    BENCH_MET,
    BENCH_MISSED,
    BENCH_UNSETTLED, /* some rounds say so, others not: the limit lies within the scatter */
};

enum bench_verdict bench_aim_verdict(const struct bench_aim *aim);

/** bench_verdict_name() - "met", "missed", "unsettled" */
const char *bench_verdict_name(enum bench_verdict verdict);

/** bench_aims() - those for which everything was measured. Return: how many of @aims were set */
unsigned bench_aims(const struct bench_results *res, struct bench_aim aims[BENCH_AIMS_MAX]);

#endif
