/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_UNPACK_H
#define IMAGE_UNPACK_H

/* unpack.h - from an image back to a raw memory file */

#include "image/image_job.h"
#include "image/store.h"

/**
 * unpack_image() - write all that is not zero into a file that was just made
 * @fd:   gets the image's length; what is zero stays a hole
 * @path: for messages
 *
 * Return: 0 or a negative errno with a text
 */
int unpack_image(const struct image *img, int fd, const char *path, const struct image_job *job);

#endif
