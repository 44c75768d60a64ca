/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_IMAGES_H
#define UNIT_IMAGES_H

/* images.h - manifests for tests: made at random; image_check.h has one that is made by hand */

#include "testing.h"

#include "image_check.h"

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

    m->created_s = rng_next(r) >> 1;
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

#endif
