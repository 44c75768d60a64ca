/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_MAP_MAP_SUBJECT_H
#define CLI_MAP_MAP_SUBJECT_H

/* map_subject.h - a guest that is served, to be drawn: its pages by state, a band a region */

#include "cli/map/picture_caption.h"
#include "core/block.h"

/** struct map_subject - and what it points to */
struct map_subject {
    struct picture_subject picture;
    struct picture_kind kinds[N_PAGE_STATES]; /* by state */
};

/**
 * map_subject_init() - there is nothing to undo
 * @m:     not to be moved while it is in use
 * @block: (borrow for as long as @m is used)
 *
 * More regions than PICTURE_MAX_BANDS share one band, laid end to end.
 */
void map_subject_init(struct map_subject *m, const struct block *block);

/**
 * map_caption() - the title and four lines: what is served, what was done so far, how fast, and
 * the picture's scale
 * @c:     set
 * @block: (borrow until return)
 * @p:     (borrow until return)
 * @stale: the pager has ended; the title says so
 */
void map_caption(struct caption *c, const struct block *block, const struct picture *p, bool stale);

#endif
