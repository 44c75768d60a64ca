/* SPDX-License-Identifier: Apache-2.0 */
#include "node/layer_state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <thaw/thaw.h>

#include "base/err.h"

#define SERVED_IMAGE \
    "image:" /* how the name of what is served begins, if it is an image; its id follows */
#define SERVED_IMAGE_LEN (sizeof(SERVED_IMAGE) - 1)

static bool has_parent(const struct manifest *m, const char *id)
{
    char text[IMAGE_ID_TEXT];

    for (uint32_t i = 0; i < m->n_parents; i++) {
        if (strncmp(id, image_id_text(m->parents[i], text), IMAGE_ID_TEXT - 1) == 0)
            return true;
    }
    return false;
}

/* find_fresh() - is the parent what is served? */
static int find_fresh(struct layer_state *s, const char *name, const struct image *parent)
{
    const struct block_header *h = s->block->header;
    const struct manifest *m = parent->manifest;
    const char *id = h->memory_path + SERVED_IMAGE_LEN;
    char text[IMAGE_ID_TEXT];

    if (h->memory_inode != 0 || strncmp(h->memory_path, SERVED_IMAGE, SERVED_IMAGE_LEN) != 0) {
        s->fresh = m->created_s != 0 && m->created_s < h->start_time_ns / NS_PER_S;
        return 0;
    }
    s->fresh = strncmp(id, image_id_text(m->id, text), IMAGE_ID_TEXT - 1) == 0;
    if (!s->fresh && !has_parent(m, id))
        return err_origin(-EINVAL, "%s is of a VM of image %.12s, which is not the parent %s", name,
                          id, parent->name);
    return 0;
}

int layer_state_init(struct layer_state *out, const struct block *block, const char *name,
                     const struct image *parent)
{
    const struct block_header *h = block->header;
    const struct geom_region *last = &block->geom.regions[block->geom.n_regions - 1];
    struct layer_state s = {.block = block, .tracked = h->track == THAW_TRACK_WP};
    int r;

    if (last->imgoff + last->len_bytes != parent->manifest->image_bytes)
        return err_origin(-EINVAL, "%s is of a VM of %" PRIu64 " bytes, the parent %s has %" PRIu64,
                          name, last->imgoff + last->len_bytes, parent->name,
                          parent->manifest->image_bytes);
    r = find_fresh(&s, name, parent);
    if (r < 0)
        return r;
    if (h->let_go)
        return err_origin(-EINVAL,
                          "%s is of a pager that was not needed any more: it says nothing of what "
                          "was removed since",
                          name);
    if (!s.fresh && !s.tracked && h->counters.ranges_let_go > 0)
        return err_origin(-EINVAL,
                          "%s says nothing of what was removed since the parent %s was made: "
                          "expected a pager with --track wp or --let-go off",
                          name, parent->name);
    *out = s;
    return 0;
}

static enum diff_hint hint_of(const struct layer_state *s, enum page_state state)
{
    const struct block_header *h = s->block->header;
    bool huge = s->block->geom.page_shift > 12;

    switch (state) {
    case PAGE_REMOVED:
        return DIFF_ZERO;
    case PAGE_ZERO:
        return s->fresh || s->tracked ? DIFF_ZERO : DIFF_UNSURE;
    case PAGE_DIRTY:
        return (huge ? h->counters.removes > 0 : s->fresh) ? DIFF_UNSURE : DIFF_PARENT;
    default:
        return DIFF_PARENT;
    }
}

int layer_state_hints(uint8_t **out, const struct layer_state *s, uint64_t image_bytes)
{
    const struct geom *g = &s->block->geom;
    uint64_t in_page = geom_page_bytes(g) / IMAGE_PAGE;
    uint8_t *hints = calloc(image_bytes / IMAGE_PAGE, 1);

    if (!hints)
        return err_origin_errno(-ENOMEM, "no memory for a table of %" PRIu64 " pages",
                                (uint64_t)(image_bytes / IMAGE_PAGE));
    for (unsigned i = 0; i < g->n_regions; i++) {
        const struct geom_region *r = &g->regions[i];

        for (pgno_t p = r->first; p < geom_region_end(g, r); p++)
            memset(hints + geom_imgoff_of(g, r, p) / IMAGE_PAGE,
                   hint_of(s, pagetab_get(&s->block->pages, p)), in_page);
    }
    *out = hints;
    return 0;
}

enum page_kind layer_state_vm(const struct layer_state *s, enum page_state state, uint64_t mapped,
                              bool shared)
{
    if ((mapped & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0)
        return s->tracked && state == PAGE_CLEAN && (mapped & PAGEMAP_ARMED) != 0 ? KIND_PARENT
                                                                                  : KIND_DATA;
    if (state == PAGE_ABSENT)
        return KIND_PARENT;
    return shared ? KIND_DATA : KIND_HOLE;
}
