/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_IMAGE_CHECK_H
#define UNIT_IMAGE_CHECK_H

/* image_check.h - what must hold of a manifest that was read: said again, slowly, by tests and fuzzers */

#include <string.h>

#include "image/manifest.h"

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
