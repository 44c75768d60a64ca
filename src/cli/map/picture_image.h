/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_MAP_PICTURE_IMAGE_H
#define CLI_MAP_PICTURE_IMAGE_H

/* picture_image.h - a picture as a PNG or SVG file */

#include "cli/map/picture_caption.h"

/** enum image_kind - the file's format */
enum image_kind {
    IMAGE_PNG,
    IMAGE_SVG,
};

/** image_kind_of() - the format that a file's name ends in. Return: false: it is none of them */
bool image_kind_of(const char *path, enum image_kind *kind);

/** image_limits() - how large a picture in a file may be */
struct picture_limits image_limits(void);

/**
 * image_write() - draw into a file
 * @path: created, or replaced as a whole; left as it was on errors
 * @c:    (borrow until return)
 *
 * Return: 0 or a negative errno with a text.
 */
int image_write(const char *path, enum image_kind kind, const struct picture *p,
                const struct caption *c);

#endif
