/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_HOT_H
#define IMAGE_HOT_H

/* hot.h - the working set that an image has in its manifest, as one that can be replayed */

#include "image/manifest.h"
#include "image/workingset.h"

/**
 * hot_workingset() - what the manifest says, in its order; when each page was touched it does not say
 * @out: (give) NULL if the image has none
 *
 * Return: 0 or a negative errno with a text
 */
int hot_workingset(struct workingset **out, const struct manifest *m);

#endif
