/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_PAGETAB_H
#define CORE_PAGETAB_H

/*
 * pagetab.h - the state of every page, three bits each
 *
 * 64 pages share a group of three words, one a bit plane, so that a range operation works on 64 pages at a time and
 * a page's three bits share a cache line. All-zero memory is a table of ABSENT pages: a table of 64 GiB of guest
 * costs address space when it is made, and memory only where something happened. The memory belongs to the caller
 * (it lies in the state file) and has no pointers in it.
 *
 * pagetab_step() is the only writer.
 */

#include "core/page_state.h"

#define PAGETAB_PLANES 3

/** struct pagetab - a view on table memory */
struct pagetab {
    uint64_t *words; /* (borrow) PAGETAB_PLANES words for each 64 pages */
    pgno_t n_pages;
};

/** pagetab_bytes() - how much memory a table of @n_pages needs; a multiple of 8 */
size_t pagetab_bytes(pgno_t n_pages);

/** pagetab_init() - a table over @words (borrow), pagetab_bytes() of memory, zeroed or from an earlier table */
void pagetab_init(struct pagetab *pt, uint64_t *words, pgno_t n_pages);

/** pagetab_get() - the state of page @p; @p < n_pages */
enum page_state pagetab_get(const struct pagetab *pt, pgno_t p);

/** pagetab_step() - @ev happened to the pages [@first, @end): the one function that writes states */
void pagetab_step(struct pagetab *pt, enum page_event ev, pgno_t first, pgno_t end);

/**
 * pagetab_run() - how far @state reaches around page @p, which is in it
 * @lo, @hi: limits: *first >= @lo, *end <= @hi
 */
void pagetab_run(const struct pagetab *pt, enum page_state state, pgno_t p, pgno_t lo, pgno_t hi,
                 pgno_t *first, pgno_t *end);

/** pagetab_find() - the first page of [@first, @end) that is in @state, or @end */
pgno_t pagetab_find(const struct pagetab *pt, enum page_state state, pgno_t first, pgno_t end);

/** pagetab_find_other() - the first page of [@first, @end) that is in any other state, or @end */
pgno_t pagetab_find_other(const struct pagetab *pt, enum page_state state, pgno_t first,
                          pgno_t end);

/** pagetab_count() - how many pages of [@first, @end) are in each state; counts are set, not added */
void pagetab_count(const struct pagetab *pt, pgno_t first, pgno_t end,
                   uint64_t counts[N_PAGE_STATES]);

#endif
