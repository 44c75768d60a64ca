/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOURCE_IMAGE_H
#define SOURCE_IMAGE_H

/* image.h - an image of a store as a page source */

#include "image/store.h"
#include "source/source.h"

/* What the last so many fetches brought is never dropped, whatever the bound: as many as can be under way or be done and
 * not looked at yet. */
#define IMAGE_SOURCE_KEEPS       96u

#define IMAGE_SOURCE_CACHE_BYTES (64 * MIB) /* the default bound */

/**
 * source_open_image() - serve an image
 * @out:         (give)
 * @image:       (take on success)
 * @cache_bytes: so many bytes of pages are kept decompressed, unless the last IMAGE_SOURCE_KEEPS fetches brought more
 *
 * Return: 0 or a negative errno with a text.
 */
int source_open_image(struct source **out, struct image *image, uint64_t cache_bytes);

#endif
