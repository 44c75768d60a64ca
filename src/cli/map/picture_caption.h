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

/**
 * caption_make() - the title and four lines: what is served, what was done so far, how fast, and
 * the picture's scale
 * @c:     set
 * @block: (borrow until return)
 * @p:     (borrow until return)
 * @stale: the pager has ended; the title says so
 */
void caption_make(struct caption *c, const struct block *block, const struct picture *p,
                  bool stale);

/** caption_state_count() - "16,777,216  100.0 %  64 GiB" of pages in @state, in columns */
void caption_state_count(const struct picture *p, unsigned page_shift, enum page_state state,
                         char *buf, size_t len);

#endif
