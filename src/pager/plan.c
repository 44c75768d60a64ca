/* SPDX-License-Identifier: Apache-2.0 */

/*
 * plan.c - how a working set becomes runs of pages
 *
 * The entries are taken PLAN_WINDOW at a time and each such window is sorted by offset; then each entry's pages are added
 * in that order. One bit a page, only while the plan is made, keeps a page from being in it twice: windows may name parts
 * of one page, and units may be larger than pages. A page that comes right behind the last one, in the same region,
 * makes the last run longer, across windows too: the order stays what it is.
 */

#include "pager/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/err.h"

/* struct making - a plan that is being made */
struct making {
    struct plan plan;
    const struct geom *g;
    uint64_t *planned; /* owned: one bit a page that is in a run */
};

static int add_run(struct plan *p, pgno_t first, pgno_t end)
{
    if (p->n == p->room) {
        size_t room = p->room ? p->room * 2 : 256;
        void *more = realloc(p->runs, room * sizeof(*p->runs));

        if (!more)
            return err_origin_errno(-ENOMEM, "no memory for a plan of %zu runs", room);
        p->runs = more;
        p->room = room;
    }
    p->runs[p->n++] = (struct prefetch_run){.first = first, .end = end};
    p->n_pages += end - first;
    return 0;
}

/* add_page() - to the last run, if it continues that one within its region, else as a run of its own */
static int add_page(struct making *m, const struct geom_region *region, pgno_t p)
{
    struct prefetch_run *last = m->plan.n > 0 ? &m->plan.runs[m->plan.n - 1] : NULL;
    uint64_t bit = 1ull << (p % 64);

    if (m->planned[p / 64] & bit)
        return 0;
    m->planned[p / 64] |= bit;
    if (last && last->end == p && p > region->first) {
        last->end++;
        m->plan.n_pages++;
        return 0;
    }
    return add_run(&m->plan, p, p + 1);
}

/* add_unit() - all pages that have a part of the unit at @off */
static int add_unit(struct making *m, imgoff_t off, uint64_t unit_bytes)
{
    uint64_t page_bytes = geom_page_bytes(m->g);
    imgoff_t end = off + unit_bytes;
    bool outside = true;
    int r = 0;

    for (off = align_down(off, page_bytes); off < end && r == 0; off += page_bytes) {
        const struct geom_region *region = geom_find_imgoff(m->g, off);

        if (!region)
            continue;
        outside = false;
        r = add_page(m, region, region->first + ((off - region->imgoff) >> m->g->page_shift));
    }
    m->plan.n_outside += outside;
    return r;
}

/* sort_window() - the units of the entries from @first on, at most PLAN_WINDOW, in the order of the file. Return: how many */
static size_t sort_window(const struct workingset *ws, size_t first, uint64_t units[PLAN_WINDOW])
{
    size_t n = min_u64(ws->n - first, PLAN_WINDOW);

    for (size_t i = 0; i < n; i++)
        units[i] = ws->entries[first + i].unit;
    qsort(units, n, sizeof(units[0]), compare_u64);
    return n;
}

static int add_window(struct making *m, const struct workingset *ws, size_t first)
{
    uint64_t units[PLAN_WINDOW] = {0};
    size_t n = sort_window(ws, first, units);
    int r = 0;

    for (size_t i = 0; i < n && r == 0; i++)
        r = add_unit(m, units[i] << ws->unit_shift, 1ull << ws->unit_shift);
    return r;
}

int plan_check(const struct workingset *ws, uint64_t image_bytes)
{
    if (ws->image_bytes == image_bytes)
        return 0;
    return err_origin(
        -EINVAL, "the working set is of a memory file of %" PRIu64 " bytes, this one has %" PRIu64,
        ws->image_bytes, image_bytes);
}

int plan_make(struct plan *out, const struct workingset *ws, const struct geom *g,
              uint64_t image_bytes)
{
    struct making m = {.g = g};
    int r = plan_check(ws, image_bytes);

    if (r < 0)
        return r;
    m.planned = calloc(g->n_pages / 64 + 1, sizeof(*m.planned));
    if (!m.planned)
        return err_origin_errno(-ENOMEM, "no memory for a plan");
    for (size_t i = 0; i < ws->n && r == 0; i += PLAN_WINDOW)
        r = add_window(&m, ws, i);
    free(m.planned);
    if (r < 0)
        plan_deinit(&m.plan);
    else
        *out = m.plan;
    return r;
}

void plan_expect(const struct workingset *ws, struct source *source)
{
    uint64_t units[PLAN_WINDOW] = {0};

    for (size_t first = 0; first < ws->n; first += PLAN_WINDOW) {
        size_t n = sort_window(ws, first, units);
        size_t begin = 0;

        for (size_t i = 1; i <= n; i++) {
            if (i < n && units[i] == units[i - 1] + 1)
                continue;
            source_expect(source, units[begin] << ws->unit_shift,
                          (units[i - 1] + 1) << ws->unit_shift);
            begin = i;
        }
    }
}

int plan_rest(struct plan *out, const struct geom *g)
{
    struct plan p = {0};
    int r = 0;

    for (unsigned i = 0; i < g->n_regions && r == 0; i++)
        r = add_run(&p, g->regions[i].first, geom_region_end(g, &g->regions[i]));
    if (r < 0)
        plan_deinit(&p);
    else
        *out = p;
    return r;
}

void plan_deinit(struct plan *p)
{
    free(p->runs);
    *p = (struct plan){0};
}
