/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_HIST_H
#define BASE_HIST_H

/*
 * hist.h - a latency histogram: log-linear buckets, 16 an octave, so that a quantile is right to 1/16
 *
 * Fixed size, no allocation, one increment to add. Part of the state file's format.
 */

#include "base/base.h"

#define HIST_SUB_BITS 4u
#define HIST_OCTAVES  40u /* values below 2^43 ns, 2.4 hours; larger ones count as that */
#define HIST_BUCKETS  (HIST_OCTAVES << HIST_SUB_BITS)

struct hist {
    uint64_t n;
    uint64_t sum;
    uint64_t max;
    uint64_t buckets[HIST_BUCKETS];
};

/** hist_add() - count @value */
void hist_add(struct hist *h, uint64_t value);

/** hist_quantile() - the value below which @q (0..1) of all values lie, at a bucket's middle; 0 if there are none */
uint64_t hist_quantile(const struct hist *h, double q);

#endif
