/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_VERIFY_H
#define IMAGE_VERIFY_H

/* verify.h - are all bytes of some images what they were? */

#include "image/image_job.h"
#include "image/store.h"

/** struct verify_subject - what to look at; all (borrow for the call) */
struct verify_subject {
    struct manifest *const *manifests;     /* at least 1; their shared locks are held */
    const uint8_t (*told)[IMAGE_ID_BYTES]; /* other images whose manifests are known to be broken */
    size_t n;
    size_t n_told;
};

/** struct verify_result - what was looked at */
struct verify_result {
    uint64_t n_parents; /* whose manifests were looked at because an image names them */
    uint64_t n_packs;
    uint64_t n_frames;
    uint64_t pack_bytes; /* of all packs */
    uint64_t n_defects;
};

/**
 * verify_images() - the length and the SHA-256 of every pack that the images need, the checksum of every frame, and the
 * manifests of their parents
 * @defect: called for each thing that is wrong, with one line that names file and offset, on this thread, when all has been
 *          looked at or the work is broken off: manifests first, then in the order of the packs and of their bytes
 *
 * What several images need is looked at once. What is wrong is no error: it goes on to find all.
 * Return: 0 or a negative errno with a text: not everything could be looked at
 */
int verify_images(struct store *s, const struct verify_subject *what, const struct image_job *job,
                  void (*defect)(void *ctx, const char *text), void *ctx,
                  struct verify_result *out);

#endif
