/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_IMAGE_IMAGE_SUBJECT_H
#define CLI_IMAGE_IMAGE_SUBJECT_H

/* image_subject.h - an image, to be drawn: which pages are zero, its own, a parent's, in the working set */

#include "cli/map/picture.h"
#include "image/image_stat.h"

/**
 * image_subject() - in one band, the whole memory
 * @pages: (borrow for as long as the subject is used)
 */
struct picture_subject image_subject(const struct image_pages *pages);

#endif
