/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOURCE_IMAGE_H
#define SOURCE_IMAGE_H

/* image.h - an image of a store as a page source */

#include "image/store.h"
#include "source/share.h"
#include "source/source.h"

#define IMAGE_SOURCE_CACHE_BYTES (64 * MIB) /* the default bound */

/**
 * source_open_image() - serve an image
 * @out:         (give)
 * @image:       (take on success)
 * @cache_bytes: so many bytes of pages are kept decompressed, unless the last ARENA_KEEPS fetches brought more
 * @share:       (take, in any case) what others have decompressed; NULL: nothing is shared
 *
 * Return: 0 or a negative errno with a text.
 */
int source_open_image(struct source **out, struct image *image, uint64_t cache_bytes,
                      struct share *share);

#endif
