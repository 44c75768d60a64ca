/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_PACK_PRIVATE_H
#define IMAGE_PACK_PRIVATE_H

/*
 * pack_private.h - the parts of packing and what they know of each other
 *
 *     pack_classify.c    what each page is: zero, the parent's, or to be stored
 *     pack_frames.c      what is to be stored, into frames and a pack
 *     pack_manifest.c    where everything is
 *     pack.c             the whole
 */

#include "image/digest.h"
#include "image/pack.h"

/** struct page_kinds - of all pages. Threads write to different ones at the same time: a byte each */
struct page_kinds {
    uint8_t *of; /* enum page_kind; owned */
    uint64_t n;
};

/** pack_classify() - what becomes of each page; no KIND_DATA is left. Return: 0 or a negative errno with a text */
int pack_classify(struct page_kinds *kinds, const struct page_source *src,
                  const struct pack_options *o);

/** struct packed - a pack that was written */
struct packed {
    struct manifest_frame *frames; /* owned, as is runs; their pack is 0 */
    size_t n_frames;
    size_t frames_room;
    struct manifest_run *runs; /* in the order of the frames */
    size_t n_runs;
    size_t runs_room;
    uint64_t bytes;
    uint64_t n_hot;
    struct digest digest; /* of all bytes until here */
};

/** pack_frames() - write the pack into @fd. @out: (give) packed_deinit() it. Return: 0 or a negative errno with a text */
int pack_frames(struct packed *out, int fd, const struct page_source *src, struct page_kinds *kinds,
                const struct pack_options *o);

void packed_deinit(struct packed *p);

/**
 * pack_manifest() - the image's manifest, flattened
 * @packed: takes what it needs out of it
 * @sha256: of the pack
 * @out:    (give)
 *
 * Return: 0 or a negative errno with a text
 */
int pack_manifest(struct manifest **out, struct packed *packed,
                  const uint8_t sha256[IMAGE_ID_BYTES], const struct page_kinds *kinds,
                  const struct pack_options *o);

#endif
