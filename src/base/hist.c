/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hist.h"

#define HIST_SUB (1u << HIST_SUB_BITS)

/*
 * Values below 16 have a bucket each. Above, the leading bit gives the octave and the next four bits the bucket in it.
 */
static unsigned bucket_of(uint64_t value)
{
    unsigned octave;

    if (value < HIST_SUB)
        return (unsigned)value;
    octave = 63u - (unsigned)__builtin_clzll(value) - HIST_SUB_BITS;
    if (octave >= HIST_OCTAVES - 1)
        return HIST_BUCKETS - 1;
    return ((octave + 1) << HIST_SUB_BITS) + (unsigned)((value >> octave) & (HIST_SUB - 1));
}

static uint64_t bucket_middle(unsigned bucket)
{
    unsigned octave = bucket >> HIST_SUB_BITS;
    uint64_t low;

    if (octave == 0)
        return bucket;
    low = (uint64_t)(HIST_SUB + (bucket & (HIST_SUB - 1))) << (octave - 1);
    return low + ((1ull << (octave - 1)) >> 1);
}

void hist_add(struct hist *h, uint64_t value)
{
    h->n++;
    h->sum += value;
    if (value > h->max)
        h->max = value;
    h->buckets[bucket_of(value)]++;
}

uint64_t hist_quantile(const struct hist *h, double q)
{
    uint64_t rank;
    uint64_t seen = 0;

    assert(q >= 0 && q <= 1);
    if (h->n == 0)
        return 0;
    rank = (uint64_t)(q * (double)(h->n - 1));
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > rank)
            return min_u64(bucket_middle(i), h->max);
    }
    return h->max;
}
