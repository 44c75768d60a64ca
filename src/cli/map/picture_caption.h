/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_MAP_PICTURE_CAPTION_H
#define CLI_MAP_PICTURE_CAPTION_H

/*
 * picture_caption.h - the words around a picture, the same on a terminal and in an image
 *
 * Lines of printable ASCII without newlines, cut where they do not fit.
 */

#include "cli/map/picture.h"

#define CAPTION_LINES 4u
#define CAPTION_BYTES 240u

/** struct caption - what stands above the picture */
struct caption {
    char title[CAPTION_BYTES];
    char lines[CAPTION_LINES][CAPTION_BYTES];
};

/** caption_scale() - "a cell is a page of 4 KiB, a row 256 KiB", into a line */
void caption_scale(const struct picture *p, char line[CAPTION_BYTES]);

/** caption_count() - "16,777,216  100.0 %  64 GiB" of pages of @kind, in columns */
void caption_count(const struct picture *p, unsigned kind, char *buf, size_t len);

#endif
