/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOURCE_FILLER_H
#define SOURCE_FILLER_H

/* filler.h - the process that fills in what the pagers of an image share (source/share.h) */

#include "image/store.h"

/** filler_listen() - become the one filler of an image. Return: a socket (give); -EADDRINUSE: there is one (no text); others with a text */
int filler_listen(const struct manifest *m);

struct filler;

/**
 * filler_new() - its files, empty
 * @out:       (give) for the rest of the process: its threads are not ended in order
 * @image:     (borrow)
 * @bytes_max: about as much is filled in
 *
 * Return: 0 or a negative errno with a text
 */
int filler_new(struct filler **out, const struct image *image, uint64_t bytes_max);

/**
 * filler_run() - serve until the last pager has gone away
 * @listener: (borrow) of filler_listen()
 *
 * Context: a process of its own, which ignores SIGPIPE.
 */
void filler_run(struct filler *f, int listener);

#endif
