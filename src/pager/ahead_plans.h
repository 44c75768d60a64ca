/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_AHEAD_PLANS_H
#define PAGER_AHEAD_PLANS_H

/*
 * ahead_plans.h - from the options of a pager to the runs of pages that its session installs ahead
 *
 * The working set is read before the pager listens, because what is wrong with it is to be known while no VM depends on it.
 * Which pages it means is known with the VMM's regions.
 */

#include "pager/plan.h"
#include "source/source.h"

/** struct ahead_plans - all zeroes: nothing is installed ahead */
struct ahead_plans {
    struct workingset *ws; /* owned; NULL: none, or it has become a plan */
    struct plan first;     /* what the working set says */
    struct plan rest;      /* for a fill */
};

/** ahead_plans_read() - read the working set @path; NULL: there is none. Return: 0 or a negative errno with a text */
int ahead_plans_read(struct ahead_plans *a, const char *path);

/** ahead_plans_check() - is it about a memory file of this size? Return: 0 or -EINVAL with a text */
int ahead_plans_check(const struct ahead_plans *a, uint64_t image_bytes);

/** ahead_plans_expect() - tell the source what will be asked for, before there is a VM */
void ahead_plans_expect(const struct ahead_plans *a, struct source *source);

/** ahead_plans_make() - the runs of pages; with all others after them if @fill. Return: 0 or a negative errno with a text */
int ahead_plans_make(struct ahead_plans *a, const struct geom *g, uint64_t image_bytes, bool fill);

void ahead_plans_deinit(struct ahead_plans *a);

#endif
