/* SPDX-License-Identifier: Apache-2.0 */
#include "image/hot_next.h"

#include "image/hot.h"

#define UNIT_SHIFT 12u
#define INSTALL_NS 8000u /* for a page of a working set, about: docs/benchmarks.md, "Served" */
#define SCATTER \
    0x9e3779b97f4a7c15ull /* neighbours get turns that have nothing to do with each other */

static_assert(IMAGE_PAGE == 1ull << UNIT_SHIFT, "a unit of the next set is a page of the image");

/* in_pages() - the same set in units of an image's page */
static int in_pages(struct workingset **out, const struct workingset *ws)
{
    _cleanup_(workingset_freep) struct workingset *pages = NULL;
    uint64_t n = 1ull << (ws->unit_shift - UNIT_SHIFT);
    int r = workingset_new(&pages, UNIT_SHIFT, ws->image_bytes);

    if (r == 0)
        r = workingset_reserve(pages, ws->n * n);
    for (size_t i = 0; i < ws->n && r == 0; i++) {
        struct workingset_entry e = ws->entries[i];

        e.unit *= n;
        for (uint64_t j = 0; j < n && r == 0; j++, e.unit++)
            r = workingset_add(pages, &e);
    }
    if (r == 0)
        *out = TAKE(pages);
    return r;
}

/* forget() - the windows whose turn it is */
static void forget(struct workingset *ws, unsigned window_shift, unsigned generation)
{
    size_t n = 0;

    for (size_t i = 0; i < ws->n; i++) {
        uint64_t window = ws->entries[i].unit >> (window_shift - UNIT_SHIFT);

        if ((window * SCATTER >> 32) % HOT_TURNS != generation % HOT_TURNS)
            ws->entries[n++] = ws->entries[i];
    }
    ws->n = n;
}

/* keep_times() - of @from: what was touched while @n_last pages were still being installed, or what came later. It may be empty */
static int keep_times(struct workingset **out, const struct workingset *from, uint64_t n_last,
                      bool early)
{
    _cleanup_(workingset_freep) struct workingset *kept = NULL;
    uint8_t until = workingset_time_class(n_last * INSTALL_NS);
    int r = workingset_new(&kept, UNIT_SHIFT, from->image_bytes);

    if (r == 0)
        r = workingset_reserve(kept, from->n);
    for (size_t i = 0; i < from->n && r == 0; i++) {
        if ((from->entries[i].time_class <= until) == early)
            r = workingset_add(kept, &from->entries[i]);
    }
    if (r == 0)
        *out = TAKE(kept);
    return r;
}

/* join() - what was missed early, the last set, what was missed late; at most @most pages, and rather missed ones */
static int join(struct workingset **out, const struct workingset *missed, struct workingset *last,
                uint64_t most)
{
    _cleanup_(workingset_freep) struct workingset *early = NULL;
    _cleanup_(workingset_freep) struct workingset *late = NULL;
    int r = keep_times(&early, missed, last->n, true);

    if (r == 0)
        r = keep_times(&late, missed, last->n, false);
    if (r < 0)
        return r;
    last->n = min_u64(last->n, most - min_u64(most, missed->n));
    return workingset_merge(out, (const struct workingset *[]){early, last, late}, 3,
                            WORKINGSET_UNION);
}

int hot_next(struct workingset **out, const struct manifest *served,
             const struct workingset *missed, unsigned generation)
{
    _cleanup_(workingset_freep) struct workingset *last = NULL;
    _cleanup_(workingset_freep) struct workingset *pages = NULL;
    uint64_t most = max_u64(HOT_MIN_BYTES, served->image_bytes / 4) / IMAGE_PAGE;
    int r = hot_workingset(&last, served);

    *out = NULL;
    if (r == 0 && missed)
        r = in_pages(&pages, missed);
    if (r < 0)
        return r;
    if (last && missed && missed->window_ns >= HOT_FORGETS_NS)
        forget(last, (unsigned)max_u64(HOT_WINDOW_SHIFT, missed->unit_shift), generation);
    if (last && pages)
        r = join(out, pages, last, most);
    else
        *out = pages ? TAKE(pages) : TAKE(last);
    if (r == 0 && *out)
        (*out)->n = min_u64((*out)->n, most);
    return r;
}
