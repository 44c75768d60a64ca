/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_IMAGE_RIG_H
#define UNIT_IMAGE_RIG_H

/*
 * image_rig.h - an image without a store, as a page source: its manifest is made frame by frame, its pack is in memory
 *
 * What is in page p of the guest follows from p.
 */

#include "image/frame.h"
#include "image/store.h"
#include "source/source.h"

#define PAGE 4096ull

/** struct rig - an image that is being made */
struct rig {
    struct image *image;
    struct frame_coder *coder;
    uint64_t off; /* where the next frame begins in the pack */
};

/** rig_pack - of the image that was made last, open for writing too */
extern int rig_pack;

/** rig_begin() - an image of @n_pages, all zero */
struct rig rig_begin(uint64_t n_pages);

/** rig_add_frame() - of these pages of the guest in this order, without runs. Return: its number */
uint32_t rig_add_frame(struct rig *m, const uint64_t *pages, unsigned n, enum frame_codec codec);

/** rig_add_run() - in any order */
void rig_add_run(struct rig *m, uint64_t first, uint32_t n, uint32_t frame, uint32_t index);

/** rig_add_pages() - a frame of pages that follow each other, and its run */
void rig_add_pages(struct rig *m, uint64_t first, unsigned n, enum frame_codec codec);

/** rig_image() - the image, for image_close(); its id is all zeroes */
struct image *rig_image(struct rig *m);

/** rig_open() - what source_open_image() says of it; the image is closed if it failed */
int rig_open(struct rig *m, struct source **out, uint64_t cache_bytes);

/** rig_end() - the same, which works */
struct source *rig_end(struct rig *m, uint64_t cache_bytes);

/** rig_close() - the source and its pack */
void rig_close(struct source *s);

/** rig_fill_page() - with what page @p of the guest has */
void rig_fill_page(void *page, uint64_t p);

/** rig_is_page() - is that what page @p of the guest has? */
bool rig_is_page(const void *page, uint64_t p);

/** rig_look() - locate page @p within pages [@lo, @hi) */
struct thaw_extent rig_look(struct source *s, uint64_t p, uint64_t lo, uint64_t hi);

/** rig_check() - the same, which is to say this; what is in memory is right */
void rig_check(struct source *s, uint64_t p, uint64_t lo, uint64_t hi, enum thaw_where where,
               uint64_t first, uint64_t last);

/** rig_fetch() - pages [@first, @last), which works */
void rig_fetch(struct source *s, uint64_t first, uint64_t last);

#endif
