/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_PACK_H
#define IMAGE_PACK_H

/*
 * pack.h - from a memory file, or another source of pages, to an image
 *
 * The same memory, parent, working set and options give the same image with the same id, whatever the number of
 * threads, as long as the codec's library is the same.
 */

#include "image/frame.h"
#include "image/image_job.h"
#include "image/page_source.h"
#include "image/store.h"
#include "image/workingset.h"

struct pack_result;

/** struct pack_options - how it is packed */
struct pack_options {
    const struct image *parent;   /* (borrow) NULL: none */
    const struct workingset *hot; /* (borrow) NULL: none */
    bool hot_needs_bytes;         /* pages of it that are zero are left out */
    enum frame_codec codec;
    int level;            /* of the codec; 0: its default */
    unsigned frame_pages; /* 1 to FRAME_PAGES_MAX */
    const char *name;
    bool replace; /* the name, if it is there */
    /* NULL, or: called when the image is there, and no name leads to it yet. Return: 0, or a negative errno with a text: it gets none */
    int (*before_name)(void *ctx, const struct pack_result *done);
    void *before_name_ctx;
    struct image_job job;
};

/** pack_options_default() - how it is packed if nobody says otherwise; without a name and a job */
struct pack_options pack_options_default(void);

/** struct pack_result - what became of it */
struct pack_result {
    uint8_t id[IMAGE_ID_BYTES];
    uint64_t n_pages;
    uint64_t n_own;    /* stored in the image's own pack */
    uint64_t n_parent; /* equal to the parent's; all others are zero */
    uint64_t n_hole;   /* not even read */
    uint64_t n_hot; /* of those stored, at the pack's beginning, in the order of the working set */
    uint64_t pack_bytes;
    uint32_t n_frames;
};

/**
 * pack_pages() - pack what a source has, and give it its name; what was begun goes away when it fails
 * @s: held (store_hold())
 *
 * Return: 0 or a negative errno with a text; -EEXIST: the name is there
 */
int pack_pages(struct store *s, const struct page_source *src, const struct pack_options *o,
               struct pack_result *out);

/** pack_memory() - the same with a memory file */
int pack_memory(struct store *s, const char *path, const struct pack_options *o,
                struct pack_result *out);

#endif
