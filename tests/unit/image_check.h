/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_IMAGE_CHECK_H
#define UNIT_IMAGE_CHECK_H

/* image_check.h - a small manifest, and what must hold of one that was read: for tests and fuzzers */

#include <stdlib.h>
#include <string.h>

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
    int r = manifest_new(&m, n_pages * IMAGE_PAGE);

    assert(r == 0);
    m->parents = calloc(n_parents + 1, sizeof(*m->parents));
    m->packs = calloc(n_packs + 1, sizeof(*m->packs));
    m->frames = calloc(n_frames + 1, sizeof(*m->frames));
    m->runs = calloc(n_runs + 1, sizeof(*m->runs));
    m->hot = calloc(n_hot + 1, sizeof(*m->hot));
    assert(m->parents && m->packs && m->frames && m->runs && m->hot);
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

/** images_sign() - make the id at the end of a file the right one */
static inline void images_sign(uint8_t *bytes, size_t len)
{
    digest_of(bytes, len - IMAGE_ID_BYTES, bytes + len - IMAGE_ID_BYTES);
}

#define HOLDS(truth)       \
    do {                   \
        if (!(truth))      \
            return #truth; \
    } while (0)

/* image_wrong_frames() - of the frames; Return: as image_wrong() */
static inline const char *image_wrong_frames(const struct manifest *m)
{
    for (uint32_t i = 0; i < m->n_frames; i++) {
        const struct manifest_frame *f = &m->frames[i];

        HOLDS(f->pack < m->n_packs && f->codec <= FRAME_ZSTD);
        HOLDS(f->n_pages >= 1 && f->n_pages <= FRAME_PAGES_MAX);
        HOLDS(f->stored_bytes >= 1 && f->stored_bytes <= f->n_pages * IMAGE_PAGE);
        HOLDS(f->codec != FRAME_STORED || f->stored_bytes == f->n_pages * IMAGE_PAGE);
        HOLDS(f->off >= sizeof(struct pack_header));
        HOLDS(f->off + f->stored_bytes > f->off);
        HOLDS(f->off + f->stored_bytes <= m->packs[f->pack].bytes);
        HOLDS(i == 0 || f[-1].pack < f->pack ||
              (f[-1].pack == f->pack && f[-1].off + f[-1].stored_bytes <= f->off));
    }
    return NULL;
}

/** image_wrong() - what manifest.h promises of a manifest that was read and does not hold of @m. Return: NULL: all holds */
static inline const char *image_wrong(const struct manifest *m)
{
    uint64_t n_pages = m->image_bytes / IMAGE_PAGE;

    HOLDS(m->image_bytes > 0 && m->image_bytes <= IMAGE_BYTES_MAX);
    HOLDS(m->image_bytes % IMAGE_PAGE == 0);
    HOLDS(!m->has_own_pack || m->n_packs > 0);
    for (uint32_t i = 0; i < m->n_parents; i++) {
        for (uint32_t k = 0; k < i; k++)
            HOLDS(memcmp(m->parents[i], m->parents[k], IMAGE_ID_BYTES) != 0);
    }
    for (uint32_t i = 0; i < m->n_packs; i++) {
        for (uint32_t k = 0; k < i; k++)
            HOLDS(memcmp(m->packs[i].sha256, m->packs[k].sha256, IMAGE_ID_BYTES) != 0);
    }
    for (uint64_t i = 0; i < m->n_runs; i++) {
        const struct manifest_run *run = &m->runs[i];

        HOLDS(run->n > 0 && run->first < n_pages && run->n <= n_pages - run->first);
        HOLDS(run->frame < m->n_frames);
        HOLDS((uint64_t)run->index + run->n <= m->frames[run->frame].n_pages);
        HOLDS(i == 0 || run[-1].first + run[-1].n <= run->first);
    }
    for (uint64_t i = 0; i < m->n_hot; i++) {
        const struct manifest_hot *hot = &m->hot[i];

        HOLDS(hot->n > 0 && hot->first < n_pages && hot->n <= n_pages - hot->first);
        for (uint64_t k = 0; k < i; k++)
            HOLDS(m->hot[k].first + m->hot[k].n <= hot->first ||
                  hot->first + hot->n <= m->hot[k].first);
    }
    return image_wrong_frames(m);
}

#endif
