/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bitset.h"

static uint64_t words_for(uint64_t n)
{
    return (n + 63) / 64;
}

size_t bitset_bytes(uint64_t n)
{
    uint64_t n_words = words_for(n);

    return (size_t)(n_words + words_for(n_words)) * sizeof(uint64_t);
}

void bitset_init(struct bitset *s, void *mem, uint64_t n)
{
    s->words = mem;
    s->summary = s->words + words_for(n);
    s->n = n;
}

bool bitset_has(const struct bitset *s, uint64_t i)
{
    assert(i < s->n);
    return (s->words[i / 64] >> (i % 64)) & 1;
}

void bitset_add(struct bitset *s, uint64_t i)
{
    uint64_t w = i / 64;

    assert(i < s->n);
    /* The summary first: killed between the two stores, we leave a word that is searched in vain, never a lost member. */
    s->summary[w / 64] |= 1ull << (w % 64);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    s->words[w] |= 1ull << (i % 64);
}

static void clear_bits(struct bitset *s, uint64_t w, uint64_t mask)
{
    s->words[w] &= ~mask;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (s->words[w] == 0)
        s->summary[w / 64] &= ~(1ull << (w % 64));
}

void bitset_drop(struct bitset *s, uint64_t i)
{
    assert(i < s->n);
    clear_bits(s, i / 64, 1ull << (i % 64));
}

void bitset_drop_range(struct bitset *s, uint64_t first, uint64_t end)
{
    uint64_t i = first;

    assert(first <= end && end <= s->n);
    /* The summary leads from member to member: a long range of an almost empty set costs next to nothing. */
    while ((i = bitset_next_in(s, i, end)) != BITSET_NONE) {
        uint64_t w = i / 64;
        uint64_t mask = UINT64_MAX << (i % 64);

        if (end < (w + 1) * 64)
            mask &= (1ull << (end % 64)) - 1;
        clear_bits(s, w, mask);
        i = (w + 1) * 64;
    }
}

/* next_word() - the first word of [@w, @end) that is not empty according to the summary, or @end */
static uint64_t next_word(const struct bitset *s, uint64_t w, uint64_t end)
{
    while (w < end) {
        uint64_t bits = s->summary[w / 64] >> (w % 64);

        if (bits != 0)
            return min_u64(w + (uint64_t)__builtin_ctzll(bits), end);
        w = (w / 64 + 1) * 64;
    }
    return end;
}

uint64_t bitset_next_in(const struct bitset *s, uint64_t first, uint64_t end)
{
    uint64_t last_word;
    uint64_t bits;
    uint64_t w = first / 64;
    uint64_t i;

    end = min_u64(end, s->n);
    if (first >= end)
        return BITSET_NONE;
    last_word = words_for(end);
    bits = s->words[w] & (UINT64_MAX << (first % 64));
    while (bits == 0) { /* more than once only where bitset_add() was cut short */
        w = next_word(s, w + 1, last_word);
        if (w == last_word)
            return BITSET_NONE;
        bits = s->words[w];
    }
    i = w * 64 + (uint64_t)__builtin_ctzll(bits);
    return i < end ? i : BITSET_NONE;
}

uint64_t bitset_next(const struct bitset *s, uint64_t from)
{
    return bitset_next_in(s, from, s->n);
}
