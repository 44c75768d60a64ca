/* SPDX-License-Identifier: Apache-2.0 */

/*
 * pack_manifest.c - where everything is: the image's own frames, and those of its parent that it still needs
 *
 * A parent's manifest has its own parents' packs and frames already. So the child takes from this one what it refers to, in
 * the order in which it is there, behind its own; nothing else is looked at, however long the chain is.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "image/pack_private.h"

#define NOT_TAKEN UINT32_MAX

/* struct flatten - a child's manifest on its way */
struct flatten {
    struct manifest *m;
    const struct manifest *parent;
    const struct page_kinds *kinds;
    uint32_t *frames; /* of each frame of the parent: its number in the child, NOT_TAKEN: none */
    uint32_t *packs;
    uint64_t runs_room;
};

static int no_memory(void)
{
    return err_origin_errno(-ENOMEM, "no memory for the manifest of an image");
}

/* ---- runs ----------------------------------------------------------------------------------------------------- */

static int add_run(struct flatten *f, const struct manifest_run *run)
{
    struct manifest *m = f->m;

    if (m->n_runs == f->runs_room) {
        uint64_t room = f->runs_room ? f->runs_room * 2 : 1024;
        void *more = reallocarray(m->runs, room, sizeof(*m->runs));

        if (!more)
            return no_memory();
        m->runs = more;
        f->runs_room = room;
    }
    m->runs[m->n_runs++] = *run;
    return 0;
}

/* keep_run() - the pages of a run of the parent that are the parent's still */
static int keep_run(struct flatten *f, const struct manifest_run *run)
{
    const uint8_t *kinds = f->kinds->of + run->first;
    uint32_t i = 0;
    int r = 0;

    while (i < run->n && r == 0) {
        uint32_t n = 0;

        while (i + n < run->n && kinds[i + n] == KIND_PARENT)
            n++;
        if (n > 0) {
            r = add_run(f, &(struct manifest_run){.first = run->first + i,
                                                  .n = n,
                                                  .frame = f->frames[run->frame],
                                                  .index = run->index + i});
        }
        i += n > 0 ? n : 1;
    }
    return r;
}

static int compare_runs(const void *a, const void *b)
{
    uint64_t x = ((const struct manifest_run *)a)->first;
    uint64_t y = ((const struct manifest_run *)b)->first;

    return (x > y) - (x < y);
}

/* ---- what the parent's runs refer to ----------------------------------------------------------------------------- */

/* mark_taken() - the frames and packs that the child needs: 0 in the tables */
static void mark_taken(struct flatten *f)
{
    const struct manifest *p = f->parent;

    memset(f->frames, 0xff, p->n_frames * sizeof(*f->frames));
    memset(f->packs, 0xff, p->n_packs * sizeof(*f->packs));
    for (uint64_t i = 0; i < p->n_runs; i++) {
        const struct manifest_run *run = &p->runs[i];

        if (!memchr(f->kinds->of + run->first, KIND_PARENT, run->n))
            continue;
        f->frames[run->frame] = 0;
        f->packs[p->frames[run->frame].pack] = 0;
    }
}

/* take_packs() - behind the child's own; their numbers in the child become known */
static int take_packs(struct flatten *f)
{
    struct manifest *m = f->m;
    const struct manifest *p = f->parent;
    void *more = reallocarray(m->packs, (size_t)m->n_packs + p->n_packs + 1, sizeof(*m->packs));

    if (!more)
        return no_memory();
    m->packs = more;
    for (uint32_t i = 0; i < p->n_packs; i++) {
        if (f->packs[i] == NOT_TAKEN)
            continue;
        /* The same bytes may have been packed again: one pack. 0 is its number already. */
        if (m->has_own_pack && memcmp(p->packs[i].sha256, m->packs[0].sha256, IMAGE_ID_BYTES) == 0)
            continue;
        if (m->n_packs == MANIFEST_PACKS_MAX)
            return err_origin(-EFBIG, "an image of more than %u packs: pack it without a parent",
                              MANIFEST_PACKS_MAX);
        f->packs[i] = m->n_packs;
        m->packs[m->n_packs++] = p->packs[i];
    }
    return 0;
}

static int compare_offsets(const void *a, const void *b)
{
    return compare_u64(&((const struct manifest_frame *)a)->off,
                       &((const struct manifest_frame *)b)->off);
}

/* find_own() - the number of a parent's frame in a pack that is the image's own as well */
static int find_own(uint32_t *number, const struct manifest *m, uint32_t n_own,
                    const struct manifest_frame *frame)
{
    const struct manifest_frame *own =
        bsearch(frame, m->frames, n_own, sizeof(*frame), compare_offsets);

    if (!own || own->n_pages != frame->n_pages || own->stored_bytes != frame->stored_bytes ||
        own->codec != frame->codec || own->checksum != frame->checksum)
        return err_origin(-EEXIST, "the parent has the same bytes in frames of another size: pack "
                                   "with that size, or with another codec");
    *number = (uint32_t)(own - m->frames);
    return 0;
}

static int take_frames(struct flatten *f)
{
    struct manifest *m = f->m;
    const struct manifest *p = f->parent;
    uint32_t n_own = m->n_frames;
    void *more = reallocarray(m->frames, (size_t)m->n_frames + p->n_frames + 1, sizeof(*m->frames));

    if (!more)
        return no_memory();
    m->frames = more;
    for (uint32_t i = 0; i < p->n_frames; i++) {
        if (f->frames[i] == NOT_TAKEN)
            continue;
        if (m->has_own_pack && f->packs[p->frames[i].pack] == 0) {
            int r = find_own(&f->frames[i], m, n_own, &p->frames[i]);
            if (r < 0)
                return r;
            continue;
        }
        if (m->n_frames == UINT32_MAX)
            return err_origin(-EFBIG, "an image of more than %u frames", UINT32_MAX);
        f->frames[i] = m->n_frames;
        m->frames[m->n_frames] = p->frames[i];
        m->frames[m->n_frames++].pack = f->packs[p->frames[i].pack];
    }
    return 0;
}

static int take_parents(struct manifest *m, const struct manifest *p)
{
    if (p->n_parents >= MANIFEST_PARENTS_MAX)
        return err_origin(-EFBIG, "an image with more than %u parents: pack it without one",
                          MANIFEST_PARENTS_MAX);
    m->parents = calloc((size_t)p->n_parents + 1, sizeof(*m->parents));
    if (!m->parents)
        return no_memory();
    memcpy(m->parents[0], p->id, IMAGE_ID_BYTES);
    if (p->n_parents > 0)
        memcpy(m->parents + 1, p->parents, p->n_parents * sizeof(*m->parents));
    m->n_parents = p->n_parents + 1;
    return 0;
}

static int take_from_parent(struct flatten *f)
{
    const struct manifest *p = f->parent;
    int r;

    f->frames = calloc((size_t)p->n_frames + 1, sizeof(*f->frames));
    f->packs = calloc((size_t)p->n_packs + 1, sizeof(*f->packs));
    if (!f->frames || !f->packs)
        return no_memory();
    mark_taken(f);
    r = take_packs(f);
    if (r == 0)
        r = take_frames(f);
    if (r == 0)
        r = take_parents(f->m, p);
    for (uint64_t i = 0; i < p->n_runs && r == 0; i++) {
        if (f->frames[p->runs[i].frame] != NOT_TAKEN)
            r = keep_run(f, &p->runs[i]);
    }
    return r;
}

/* ---- the image's own ------------------------------------------------------------------------------------------ */

static void add_hot_page(struct manifest *m, uint64_t page)
{
    struct manifest_hot *last = m->n_hot > 0 ? &m->hot[m->n_hot - 1] : NULL;

    if (last && last->first + last->n == page)
        last->n++;
    else
        m->hot[m->n_hot++] = (struct manifest_hot){.first = page, .n = 1};
}

/* add_hot() - the working set, neighbours in memory and time together */
static int add_hot(struct manifest *m, const struct pack_options *o, const struct page_kinds *kinds)
{
    const struct workingset *ws = o->hot;
    uint64_t unit_pages = (1ull << ws->unit_shift) / IMAGE_PAGE;
    uint64_t runs_max = o->hot_needs_bytes ? ws->n * unit_pages : ws->n;

    m->hot = calloc(runs_max + 1, sizeof(*m->hot));
    if (!m->hot)
        return no_memory();
    for (size_t i = 0; i < ws->n; i++) {
        uint64_t first = ws->entries[i].unit * unit_pages;

        for (uint64_t page = first; page < first + unit_pages; page++) {
            uint8_t kind = kinds->of[page];

            if (!o->hot_needs_bytes || (kind != KIND_HOLE && kind != KIND_ZERO))
                add_hot_page(m, page);
        }
    }
    return 0;
}

/* take_own() - the pack that was written, its frames and runs */
static int take_own(struct flatten *f, struct packed *packed, const uint8_t sha256[IMAGE_ID_BYTES])
{
    struct manifest *m = f->m;

    m->packs = calloc(1, sizeof(*m->packs));
    if (!m->packs)
        return no_memory();
    memcpy(m->packs[0].sha256, sha256, IMAGE_ID_BYTES);
    m->packs[0].bytes = packed->bytes;
    m->n_packs = 1;
    m->has_own_pack = true;
    m->frames = TAKE(packed->frames);
    m->n_frames = (uint32_t)packed->n_frames;
    m->runs = TAKE(packed->runs);
    m->n_runs = packed->n_runs;
    f->runs_room = packed->runs_room;
    return 0;
}

int pack_manifest(struct manifest **out, struct packed *packed,
                  const uint8_t sha256[IMAGE_ID_BYTES], const struct page_kinds *kinds,
                  const struct pack_options *o)
{
    _cleanup_(manifest_freep) struct manifest *m = NULL;
    struct flatten f = {.kinds = kinds};
    int r = manifest_new(&m, kinds->n * IMAGE_PAGE);

    f.m = m;
    if (r == 0 && packed->n_frames > 0)
        r = take_own(&f, packed, sha256);
    if (r == 0 && o->hot)
        r = add_hot(m, o, kinds);
    if (r == 0 && o->parent) {
        f.parent = o->parent->manifest;
        r = take_from_parent(&f);
    }
    free(f.frames);
    free(f.packs);
    if (r < 0)
        return r;
    if (m->n_runs > 1)
        qsort(m->runs, m->n_runs, sizeof(*m->runs), compare_runs);
    *out = TAKE(m);
    return 0;
}
