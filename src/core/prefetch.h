/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_PREFETCH_H
#define CORE_PREFETCH_H

/*
 * prefetch.h - what to install before somebody asks for it, and in which order
 *
 * A plan is a list of runs of pages. It is walked once, a slice at a time; a slice is a part of one run whose pages are all
 * ABSENT when it is taken. So a page that was removed, or that a fault has brought, is never touched, and the page table
 * alone decides (invariant I2). The plan itself never changes: a pager that takes over walks it from the beginning again,
 * and what is there already costs it a look at the states.
 */

#include "core/geom.h"
#include "core/pagetab.h"

/** struct prefetch_run - pages [first, end), within one region */
struct prefetch_run {
    pgno_t first;
    pgno_t end;
};

/** struct prefetch - a walk through a plan */
struct prefetch {
    const struct prefetch_run *runs; /* (borrow) */
    size_t n_runs;
    size_t at;         /* the run where the walk stands; n_runs: it is over */
    pgno_t next;       /* the page of it that comes next */
    uint64_t n_pages;  /* in all runs */
    uint64_t n_passed; /* pages that the walk has left behind, installed or not */
};

/** prefetch_init() - a walk that is at its beginning; runs may be empty */
void prefetch_init(struct prefetch *pf, const struct prefetch_run *runs, size_t n_runs);

/**
 * prefetch_peek() - the next slice
 * @max_pages: at least 1
 *
 * Passes over what is not ABSENT. The walk stays before the slice until prefetch_pass(); pages may change their state
 * meanwhile, and the next peek takes them as they are then. Never more than one run's pages are in a slice.
 * Return: false when the walk is over.
 */
bool prefetch_peek(struct prefetch *pf, const struct pagetab *pages, pgno_t max_pages,
                   struct prefetch_run *slice);

/** prefetch_pass() - the walk goes on behind page @end - 1, not before where it stands, of the run where it stands */
void prefetch_pass(struct prefetch *pf, pgno_t end);

/** prefetch_is_over() - is nothing left to peek at? */
bool prefetch_is_over(const struct prefetch *pf);

#endif
