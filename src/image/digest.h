/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_DIGEST_H
#define IMAGE_DIGEST_H

/* digest.h - SHA-256, piece by piece: the names of images and packs */

#include <nettle/sha2.h>

#include "image/manifest.h"

/** struct digest - of what has been added so far */
struct digest {
    struct sha256_ctx sha256;
};

/** digest_init() - of nothing. There is nothing to undo. */
void digest_init(struct digest *d);

/** digest_add() - the next @len bytes */
void digest_add(struct digest *d, const void *bytes, size_t len);

/** digest_end() - of all that was added; @d is then as after digest_init() */
void digest_end(struct digest *d, uint8_t out[IMAGE_ID_BYTES]);

/** digest_of() - of @len bytes */
void digest_of(const void *bytes, size_t len, uint8_t out[IMAGE_ID_BYTES]);

#endif
