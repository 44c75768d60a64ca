/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_PLAN_H
#define PAGER_PLAN_H

/*
 * plan.h - a working set becomes runs of this guest's pages
 *
 * A working set says offsets of the memory file in the order of the first touches. Of each PLAN_WINDOW touches the order is
 * that of the file, and neighbours are joined: runs get longer, reads and installs fewer, and a page comes less than
 * PLAN_WINDOW touches earlier or later than it was touched.
 *
 * The unit of the working set and the guest's pages may differ: a page of 2 MiB is planned when any of its parts was
 * touched; a unit of 2 MiB is 512 pages of 4 KiB.
 */

#include "core/geom.h"
#include "core/prefetch.h"
#include "image/workingset.h"
#include "source/source.h"

#define PLAN_WINDOW 256u /* entries */

/** struct plan - runs of pages; no page is in two of them */
struct plan {
    struct prefetch_run *runs; /* owned */
    size_t n;
    size_t room;
    uint64_t n_pages;   /* in all runs */
    uint64_t n_outside; /* entries of which no byte is in a region */
};

/** plan_check() - is it about a memory file of this size? Return: 0 or -EINVAL with a text */
int plan_check(const struct workingset *ws, uint64_t image_bytes);

/**
 * plan_make() - the plan of a working set for a guest
 * @out:          (give) plan_deinit() it
 * @image_bytes:  of the memory file that the guest is served from
 *
 * Return: 0 or a negative errno with a text: the working set is of another memory file's size, or there is no memory.
 */
int plan_make(struct plan *out, const struct workingset *ws, const struct geom *g,
              uint64_t image_bytes);

/** plan_expect() - tell a source of the bytes of a working set, neighbours together, in the order of the touches */
void plan_expect(const struct workingset *ws, struct source *source);

/** plan_rest() - a plan of all pages in their order, for a fill. @out: (give). Return: 0 or -ENOMEM with a text */
int plan_rest(struct plan *out, const struct geom *g);

/** plan_deinit() - free what it owns; it is empty then */
void plan_deinit(struct plan *p);

#endif
