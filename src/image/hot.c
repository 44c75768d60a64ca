/* SPDX-License-Identifier: Apache-2.0 */
#include "image/hot.h"

#include <errno.h>
#include <inttypes.h>

#include "base/err.h"

#define UNIT_SHIFT 12u

static_assert(IMAGE_PAGE == 1ull << UNIT_SHIFT, "a unit of the working set is a page");

/* count_pages() - of all runs, none of which overlap */
static uint64_t count_pages(const struct manifest *m)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < m->n_hot; i++)
        n += m->hot[i].n;
    return n;
}

int hot_workingset(struct workingset **out, const struct manifest *m)
{
    _cleanup_(workingset_freep) struct workingset *ws = NULL;
    uint64_t n = count_pages(m);
    int r;

    *out = NULL;
    if (n == 0)
        return 0;
    if (n > WORKINGSET_ENTRIES_MAX)
        return err_origin(-EFBIG,
                          "the image's working set has %" PRIu64 " pages, expected %llu at most", n,
                          WORKINGSET_ENTRIES_MAX);
    r = workingset_new(&ws, UNIT_SHIFT, m->image_bytes);
    if (r == 0)
        r = workingset_reserve(ws, n);
    for (uint64_t i = 0; i < m->n_hot && r == 0; i++) {
        for (uint64_t page = m->hot[i].first; page < m->hot[i].first + m->hot[i].n && r == 0;
             page++)
            r = workingset_add(ws, &(struct workingset_entry){.unit = page});
    }
    if (r < 0)
        return r;
    ws->complete = true;
    *out = TAKE(ws);
    return 0;
}
