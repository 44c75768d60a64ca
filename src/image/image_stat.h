/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_IMAGE_STAT_H
#define IMAGE_IMAGE_STAT_H

/*
 * image_stat.h - an image in numbers, and page by page: what its manifest says without a look at the packs
 */

#include "image/frame.h"
#include "image/manifest.h"

#define N_FRAME_CODECS (FRAME_ZSTD + 1u)

/** enum image_page - what a page of an image is. The HOT ones are in the working set */
enum image_page {
    IMAGE_PAGE_ZERO,
    IMAGE_PAGE_PARENT, /* in a pack of a parent */
    IMAGE_PAGE_OWN,
    IMAGE_PAGE_HOT_ZERO,
    IMAGE_PAGE_HOT_PARENT,
    IMAGE_PAGE_HOT_OWN,
    N_IMAGE_PAGES,
};

/** struct image_frames - some frames of an image */
struct image_frames {
    uint64_t n;
    uint64_t n_pages;      /* that come out of them */
    uint64_t stored_bytes; /* in the packs */
};

/** struct image_pack_stat - what an image has in a pack */
struct image_pack_stat {
    struct image_frames frames; /* that it needs */
    uint64_t n_pages;           /* of the guest's memory that are in them */
    uint64_t n_hot;             /* of those */
};

/** struct image_stat - an image in numbers */
struct image_stat {
    uint64_t n_pages;
    uint64_t by_page[N_IMAGE_PAGES];
    struct image_frames by_codec[N_FRAME_CODECS];
    struct image_frames frames;    /* all */
    struct image_pack_stat *packs; /* owned; as many as the manifest has */
};

/** struct image_pages - for looking at an image page by page */
struct image_pages {
    const struct manifest *m; /* (borrow) */
    struct manifest_hot *hot; /* owned; in the order of memory */
};

/** image_stat_init() - @out: (give) image_stat_deinit() it. Return: 0 or -ENOMEM with a text */
int image_stat_init(struct image_stat *out, const struct manifest *m);

void image_stat_deinit(struct image_stat *s);

/** image_pages_init() - @m: (borrow until image_pages_deinit()). Return: 0 or -ENOMEM with a text */
int image_pages_init(struct image_pages *p, const struct manifest *m);

void image_pages_deinit(struct image_pages *p);

/**
 * image_pages_count() - adds up what the pages from @first to @end, which is not among them, are
 * @counts: added to
 *
 * Takes as long as there are runs among them, and the logarithm of how many there are in all.
 */
void image_pages_count(const struct image_pages *p, uint64_t first, uint64_t end,
                       uint64_t counts[N_IMAGE_PAGES]);

#endif
