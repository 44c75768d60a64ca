/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_HOT_NEXT_H
#define IMAGE_HOT_NEXT_H

/*
 * hot_next.h - the working set of the next layer of an image
 *
 * A guest was served from an image, and its working set was installed ahead of it. Of that it cannot be seen what was touched.
 * What can be seen is what was missed: faults. So the next set is the last one and what was missed.
 *
 * The order is that in which the guest will want the pages, as far as it is known. What was missed while the last set was still being
 * installed comes first: the guest was quicker. What was missed later comes last: it is wanted when all of the last set is there.
 *
 * A set that only grows would become all of memory. So a part of it is forgotten each time: of HOT_TURNS generations each window of
 * the guest's memory is left out once. Who touches it again misses it, and then it is in the set for another HOT_TURNS generations;
 * what nobody touches stays out. A window is what a pager installs around a fault: one fault brings all of it back.
 *
 * Nothing is forgotten after a record that is shorter than HOT_FORGETS_NS: too little was seen. And no set is larger than a quarter
 * of memory or HOT_MIN_BYTES, whichever is more; what was missed is what is kept.
 */

#include "image/manifest.h"
#include "image/workingset.h"

#define HOT_TURNS        16u
#define HOT_WINDOW_SHIFT 16u /* 64 KiB */
#define HOT_FORGETS_NS   (100 * NS_PER_MS)
#define HOT_MIN_BYTES    (64 * MIB)

/**
 * hot_next() - of the image that comes after @served
 * @out:        (give) in units of a page of the image; NULL: there is none
 * @missed:     (borrow) of a guest that was served from it, of the same size; NULL: nothing is known of it
 * @generation: a number that goes up by one from layer to layer
 *
 * Return: 0 or a negative errno with a text
 */
int hot_next(struct workingset **out, const struct manifest *served,
             const struct workingset *missed, unsigned generation);

#endif
