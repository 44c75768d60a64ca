/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_MAP_PICTURE_TERM_H
#define CLI_MAP_PICTURE_TERM_H

/*
 * picture_term.h - a picture in characters
 *
 * In colour a character is two cells, one above the other (the half block, 24-bit colours); in
 * plain text it is one cell and says its most frequent kind.
 */

#include <stdio.h>

#include "cli/map/picture_caption.h"

/** enum term_style - what the reader can show */
enum term_style {
    TERM_PLAIN,
    TERM_COLOUR,
};

/**
 * term_limits() - how large a picture a window can take
 * @style:   see enum term_style
 * @columns: of the window, characters; 0 if unknown
 * @lines:   of the window; 0 if there is no end to them
 */
struct picture_limits term_limits(enum term_style style, unsigned columns, unsigned lines);

/**
 * term_draw() - caption, picture, legend
 * @out:   (borrow until return) where to; errors stay with the stream
 * @c:     NULL: without one
 */
void term_draw(FILE *out, const struct picture *p, const struct caption *c, enum term_style style);

#endif
