/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_PAGE_WATCH_H
#define IMAGE_PAGE_WATCH_H

/*
 * page_watch.h - a source of pages that notices when the one below it does not stand still
 *
 * A file has a time; the memory of a VM has none. So a checksum of each page is kept when it is read first, and compared when
 * it is read again. In the end everything is looked at and read once more. When nothing differs there was a moment, after the
 * first reading and before the last, at which all pages were what was read: an image of one moment. What has to happen at that
 * very moment, such as writing down the state of devices, is done there (@then).
 *
 * Checksums are XXH3, 64 bits, and take a five-hundredth of the memory.
 */

#include "image/image_job.h"
#include "image/page_source.h"

/** struct page_watch - one that watches; @then may be set until the source is used */
struct page_watch {
    const struct page_source *below;
    const struct image_job *job;
    int (*then)(
        void *
            ctx); /* called between the first reading and the last; 0 or a negative errno with a text; NULL: nothing */
    void *then_ctx;
    uint64_t n_pages;
    uint8_t *kinds; /* as they were looked at */
    uint64_t *sums; /* 0: not read; threads write to those of different pages */
};

/**
 * page_watch_init() - @w: (give) page_watch_deinit() it
 * @below: (borrow)
 * @job:   (borrow) is told how the last reading goes
 *
 * Return: 0 or -ENOMEM with a text
 */
int page_watch_init(struct page_watch *w, const struct page_source *below,
                    const struct image_job *job);

void page_watch_deinit(struct page_watch *w);

/** page_watch_source() - the pages below, or -ESTALE with a text if they change. @w: (borrow) as long as the source is used */
struct page_source page_watch_source(struct page_watch *w);

#endif
