/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_LAYER_HOT_H
#define NODE_LAYER_HOT_H

/*
 * layer_hot.h - the working set of a layer, from what the pager of its VM has recorded (image/hot_next.h)
 *
 * The pager writes its record down when its time is over, or when it is told to. There is none if the pager was killed, as its
 * successor has not seen the beginning; then the layer has its parent's set. Nothing about a record makes a layer fail.
 */

#include "image/store.h"
#include "image/workingset.h"

/** layer_hot_end_record() - the record ends here, if it has not. @state_path: of the pager. Return: whether there will be one */
bool layer_hot_end_record(const char *state_path);

/**
 * layer_hot() - what the layer after @served gets
 * @out:      (give) NULL: none
 * @record:   the file of what was missed
 * @expected: it may come in a moment
 *
 * Return: 0 or a negative errno with a text
 */
int layer_hot(struct workingset **out, const struct image *served, const char *record,
              bool expected, unsigned generation);

#endif
