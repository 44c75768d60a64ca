/* SPDX-License-Identifier: Apache-2.0 */
#include "core/pagetab.h"

#include <string.h>

/*
 * A group is 64 pages in three words: bit i of plane k is bit k of the state of page i. A set of pages of a group is one
 * word, a mask; the pages in a given state are found with three ANDs, whatever their number.
 */

static uint64_t group_count(pgno_t n_pages)
{
    return (n_pages + 63) / 64;
}

/* range_mask() - which pages of group @g lie in [@first, @end) */
static uint64_t range_mask(uint64_t g, pgno_t first, pgno_t end)
{
    pgno_t base = g * 64;
    uint64_t mask = UINT64_MAX;

    if (first > base)
        mask &= UINT64_MAX << (first - base);
    if (end < base + 64)
        mask &= (1ull << (end - base)) - 1;
    return mask;
}

/* match() - which pages of a group with these planes are in @state */
static uint64_t match(const uint64_t planes[PAGETAB_PLANES], enum page_state state)
{
    uint64_t mask = UINT64_MAX;

    for (unsigned plane = 0; plane < PAGETAB_PLANES; plane++)
        mask &= (state >> plane) & 1 ? planes[plane] : ~planes[plane];
    return mask;
}

/*
 * split() - which pages of @in_range, a mask over the group @w, are in each state
 *
 * A state is several stores. Another process may be looking while they are made, or the writer may have been killed
 * between two of them: three bits that are no state count as DIRTY, which promises nothing about the page's bytes.
 */
static void split(const uint64_t *w, uint64_t in_range, uint64_t in_state[N_PAGE_STATES])
{
    uint64_t planes[PAGETAB_PLANES];
    uint64_t known = 0;

    memcpy(planes, w, sizeof(planes));
    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        in_state[s] = match(planes, (enum page_state)s) & in_range;
        known |= in_state[s];
    }
    in_state[PAGE_DIRTY] |= in_range & ~known;
}

/*
 * assign() - put the pages @mask of the group @w into @state
 *
 * Bits are set before others are cleared, in program order, whatever the compiler would like: page_states.def says why.
 */
static void assign(uint64_t *w, uint64_t mask, enum page_state state)
{
    for (unsigned plane = PAGETAB_PLANES; plane-- > 0;) {
        if ((state >> plane) & 1)
            w[plane] |= mask;
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
    }
    for (unsigned plane = 0; plane < PAGETAB_PLANES; plane++) {
        if (!((state >> plane) & 1))
            w[plane] &= ~mask;
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
    }
}

size_t pagetab_bytes(pgno_t n_pages)
{
    return (size_t)group_count(n_pages) * PAGETAB_PLANES * sizeof(uint64_t);
}

void pagetab_init(struct pagetab *pt, uint64_t *words, pgno_t n_pages)
{
    assert(n_pages > 0);
    *pt = (struct pagetab){.words = words, .n_pages = n_pages};
}

enum page_state pagetab_get(const struct pagetab *pt, pgno_t p)
{
    const uint64_t *w = &pt->words[p / 64 * PAGETAB_PLANES];
    unsigned bit = p % 64;
    unsigned code;

    assert(p < pt->n_pages);
    code =
        (unsigned)(((w[0] >> bit) & 1) | (((w[1] >> bit) & 1) << 1) | (((w[2] >> bit) & 1) << 2));
    return code < N_PAGE_STATES ? (enum page_state)code : PAGE_DIRTY; /* see split() */
}

static void step_group(uint64_t *w, uint64_t in_range, enum page_event ev)
{
    uint64_t in_state[N_PAGE_STATES];

    split(w, in_range, in_state);
    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        if (in_state[s] == 0)
            continue;
        assert(page_edges[ev][s] != PAGE_NO_EDGE);
        assign(w, in_state[s], (enum page_state)page_edges[ev][s]);
    }
}

void pagetab_step(struct pagetab *pt, enum page_event ev, pgno_t first, pgno_t end)
{
    assert(first < end && end <= pt->n_pages);
    for (uint64_t g = first / 64; g * 64 < end; g++)
        step_group(&pt->words[g * PAGETAB_PLANES], range_mask(g, first, end), ev);
}

void pagetab_run(const struct pagetab *pt, enum page_state state, pgno_t p, pgno_t lo, pgno_t hi,
                 pgno_t *first, pgno_t *end)
{
    pgno_t f = p;
    pgno_t e = p + 1;

    assert(lo <= p && p < hi && hi <= pt->n_pages);
    /* Windows are small (fault-around): a page at a time, down to the first page that differs. */
    while (f > lo && pagetab_get(pt, f - 1) == state)
        f--;
    while (e < hi && pagetab_get(pt, e) == state)
        e++;
    *first = f;
    *end = e;
}

/* find() - the first page of [@first, @end) that is in @state, or that is not, if @other; @end if there is none */
static pgno_t find(const struct pagetab *pt, enum page_state state, bool other, pgno_t first,
                   pgno_t end)
{
    assert(first <= end && end <= pt->n_pages);
    for (uint64_t g = first / 64; g * 64 < end; g++) {
        uint64_t in_range = range_mask(g, first, end);
        uint64_t in_state[N_PAGE_STATES];
        uint64_t found;

        split(&pt->words[g * PAGETAB_PLANES], in_range, in_state);
        found = other ? in_range & ~in_state[state] : in_state[state];
        if (found != 0)
            return g * 64 + (unsigned)__builtin_ctzll(found);
    }
    return end;
}

pgno_t pagetab_find(const struct pagetab *pt, enum page_state state, pgno_t first, pgno_t end)
{
    return find(pt, state, false, first, end);
}

pgno_t pagetab_find_other(const struct pagetab *pt, enum page_state state, pgno_t first, pgno_t end)
{
    return find(pt, state, true, first, end);
}

void pagetab_count(const struct pagetab *pt, pgno_t first, pgno_t end,
                   uint64_t counts[N_PAGE_STATES])
{
    assert(first <= end && end <= pt->n_pages);
    for (unsigned s = 0; s < N_PAGE_STATES; s++)
        counts[s] = 0;
    for (uint64_t g = first / 64; g * 64 < end; g++) {
        uint64_t in_state[N_PAGE_STATES];

        split(&pt->words[g * PAGETAB_PLANES], range_mask(g, first, end), in_state);
        for (unsigned s = 0; s < N_PAGE_STATES; s++)
            counts[s] += (uint64_t)__builtin_popcountll(in_state[s]);
    }
}
