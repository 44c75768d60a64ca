/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_FRAME_RUNS_H
#define IMAGE_FRAME_RUNS_H

/*
 * frame_runs.h - a manifest's runs by the frame that they are in
 *
 * A manifest answers "where is this page?". Who goes through an image frame by frame, so that each is decompressed once,
 * asks the other way round.
 */

#include "image/manifest.h"

/** struct frame_runs - the runs of frame f are @m->runs[numbers[first[f]]] to [first[f + 1] - 1], in the order of memory */
struct frame_runs {
    uint64_t *first;   /* owned: one more than there are frames */
    uint64_t *numbers; /* owned: as many as there are runs */
};

/** frame_runs_init() - @x: (give) frame_runs_deinit() it. Return: 0 or -ENOMEM with a text */
int frame_runs_init(struct frame_runs *x, const struct manifest *m);

void frame_runs_deinit(struct frame_runs *x);

#endif
