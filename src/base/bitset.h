/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_BITSET_H
#define BASE_BITSET_H

/*
 * bitset.h - a set of small integers in flat memory, quick to search when nearly empty
 *
 * Two levels: one bit a member, and above it one summary bit a word, set whenever the word is not 0. Finding the next
 * member of an empty set of 16 Mi (64 GiB of 4 KiB pages) reads 4 Ki words instead of 256 Ki. All-zero memory is the
 * empty set. No pointers in the memory, no allocation. A writer may be killed between any two of its stores: members
 * whose addition or removal was done stay as they were. Whatever the memory holds, a search ends and stays inside the set.
 */

#include "base/base.h"

#define BITSET_NONE UINT64_MAX

/** struct bitset - a view on memory that holds members 0..n-1 */
struct bitset {
    uint64_t *words;   /* (borrow) */
    uint64_t *summary; /* (borrow) */
    uint64_t n;
};

/** bitset_bytes() - memory for members 0..@n-1; a multiple of 8 */
size_t bitset_bytes(uint64_t n);

/** bitset_init() - a view over @mem (borrow), bitset_bytes(@n) of zeroes or of an earlier set */
void bitset_init(struct bitset *s, void *mem, uint64_t n);

bool bitset_has(const struct bitset *s, uint64_t i);
void bitset_add(struct bitset *s, uint64_t i);
void bitset_drop(struct bitset *s, uint64_t i);

/** bitset_drop_range() - take [@first, @end) out */
void bitset_drop_range(struct bitset *s, uint64_t first, uint64_t end);

/** bitset_next() - the smallest member >= @from, or BITSET_NONE */
uint64_t bitset_next(const struct bitset *s, uint64_t from);

/** bitset_next_in() - the smallest member of [@first, @end), or BITSET_NONE; does not look beyond @end */
uint64_t bitset_next_in(const struct bitset *s, uint64_t first, uint64_t end);

#endif
