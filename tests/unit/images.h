/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_IMAGES_H
#define UNIT_IMAGES_H

/* images.h - manifests for tests: made by hand, made at random */

#include <string.h>

#include "testing.h"

#include "image_check.h"

#include "image/digest.h"
#include "image/manifest.h"

/* Where the tables of images_small() are in its file. */
#define SMALL_PARENTS 128u
#define SMALL_PACKS   (SMALL_PARENTS + 2 * 32)
#define SMALL_FRAMES  (SMALL_PACKS + 2 * 40)
#define SMALL_RUNS    (SMALL_FRAMES + 3 * 32)
#define SMALL_HOT     (SMALL_RUNS + 4 * 24)
#define SMALL_ID      (SMALL_HOT + 3 * 16)
#define SMALL_BYTES   (SMALL_ID + 32)

/** images_new() - an empty manifest with room in its tables */
static inline struct manifest *images_new(uint64_t n_pages, uint32_t n_parents, uint32_t n_packs,
                                          uint32_t n_frames, uint64_t n_runs, uint64_t n_hot)
{
    struct manifest *m = NULL;

    assert_int_equal(manifest_new(&m, n_pages * IMAGE_PAGE), 0);
    m->parents = calloc(n_parents + 1, sizeof(*m->parents));
    m->packs = calloc(n_packs + 1, sizeof(*m->packs));
    m->frames = calloc(n_frames + 1, sizeof(*m->frames));
    m->runs = calloc(n_runs + 1, sizeof(*m->runs));
    m->hot = calloc(n_hot + 1, sizeof(*m->hot));
    assert_true(m->parents && m->packs && m->frames && m->runs && m->hot);
    return m;
}

/** images_small() - of 100 pages; a child of a child: two parents, two packs, and something in each other table */
static inline struct manifest *images_small(void)
{
    static const struct manifest_frame frames[] = {
        {.pack = 0, .stored_bytes = 100, .off = 64, .n_pages = 8, .codec = 2, .checksum = 0x1111},
        {.pack = 0, .stored_bytes = 8192, .off = 164, .n_pages = 2, .codec = 0, .checksum = 0x2222},
        {.pack = 1, .stored_bytes = 50, .off = 70, .n_pages = 4, .codec = 1, .checksum = 0x3333},
    };
    static const struct manifest_run runs[] = {
        {.first = 3, .n = 2, .frame = 1, .index = 0},
        {.first = 10, .n = 5, .frame = 0, .index = 1},
        {.first = 15, .n = 1, .frame = 2, .index = 3},
        {.first = 98, .n = 2, .frame = 0, .index = 6},
    };
    static const struct manifest_hot hot[] = {{50, 10}, {10, 3}, {13, 1}};
    struct manifest *m = images_new(100, 2, 2, 3, 4, 3);

    memset(m->parents[0], 0xa0, IMAGE_ID_BYTES);
    memset(m->parents[1], 0xa1, IMAGE_ID_BYTES);
    memset(m->packs[0].sha256, 0xb0, IMAGE_ID_BYTES);
    memset(m->packs[1].sha256, 0xb1, IMAGE_ID_BYTES);
    m->packs[0].bytes = 164 + 8192;
    m->packs[1].bytes = 4096;
    memcpy(m->frames, frames, sizeof(frames));
    memcpy(m->runs, runs, sizeof(runs));
    memcpy(m->hot, hot, sizeof(hot));
    m->n_parents = 2;
    m->n_packs = 2;
    m->n_frames = 3;
    m->n_runs = 4;
    m->n_hot = 3;
    m->has_own_pack = true;
    m->created_s = 1700000000;
    return m;
}

/** images_add_frame() - one more at the end of pack @pack, which is the last one that has frames */
static inline void images_add_frame(struct manifest *m, struct rng *r, uint32_t pack)
{
    struct manifest_frame *f = &m->frames[m->n_frames++];

    f->pack = pack;
    f->n_pages = (uint16_t)(1 + rng_below(r, rng_below(r, 2) ? 8 : FRAME_PAGES_MAX));
    f->codec = (uint8_t)rng_below(r, 3);
    f->stored_bytes = (uint32_t)(f->n_pages * IMAGE_PAGE);
    if (f->codec != FRAME_STORED)
        f->stored_bytes = (uint32_t)(1 + rng_below(r, f->stored_bytes));
    f->off = m->packs[pack].bytes + (rng_below(r, 4) ? 0 : rng_below(r, 10000));
    f->checksum = rng_next(r);
    m->packs[pack].bytes = f->off + f->stored_bytes;
}

static inline void images_random_id(uint8_t id[IMAGE_ID_BYTES], struct rng *r)
{
    for (unsigned i = 0; i < IMAGE_ID_BYTES; i++)
        id[i] = (uint8_t)rng_next(r);
}

/** images_random() - of some pages, with up to about @n of everything */
static inline struct manifest *images_random(struct rng *r, uint32_t n)
{
    struct manifest *m = images_new(1 + rng_below(r, 20ull * n), n, n, n, n, n);
    uint64_t n_pages = m->image_bytes / IMAGE_PAGE;
    uint64_t page = 0;

    m->created_s = rng_next(r);
    for (uint64_t k = rng_below(r, n); k > 0; k--)
        images_random_id(m->parents[m->n_parents++], r);
    for (uint64_t k = rng_below(r, n); k > 0; k--) {
        images_random_id(m->packs[m->n_packs].sha256, r);
        m->packs[m->n_packs++].bytes = sizeof(struct pack_header);
    }
    m->has_own_pack = m->n_packs > 0 && rng_below(r, 2);
    for (uint64_t pack = 0; pack < m->n_packs; pack += rng_below(r, 2)) {
        if (m->n_frames == n)
            break;
        images_add_frame(m, r, (uint32_t)pack);
    }
    while (m->n_frames > 0 && m->n_runs < n) {
        struct manifest_run *run = &m->runs[m->n_runs];

        run->first = page + rng_below(r, 3);
        run->frame = (uint32_t)rng_below(r, m->n_frames);
        run->index = (uint32_t)rng_below(r, m->frames[run->frame].n_pages);
        run->n = (uint32_t)(1 + rng_below(r, m->frames[run->frame].n_pages - run->index));
        page = run->first + run->n;
        if (page > n_pages)
            break;
        m->n_runs++;
    }
    for (page = n_pages; m->n_hot < n && page >= 10;) { /* backwards: it is no order of addresses */
        uint64_t pages = 1 + rng_below(r, 5);

        page -= pages + rng_below(r, 5);
        m->hot[m->n_hot++] = (struct manifest_hot){.first = page, .n = pages};
    }
    memset(&m->runs[m->n_runs], 0, sizeof(*m->runs));
    return m;
}

/** images_sign() - make the id at the end of a file the right one */
static inline void images_sign(uint8_t *bytes, size_t len)
{
    digest_of(bytes, len - IMAGE_ID_BYTES, bytes + len - IMAGE_ID_BYTES);
}

#endif
