/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_SHARING_H
#define PAGER_SHARING_H

/* sharing.h - a pager finds the filler of its image, or starts one */

#include "source/share.h"

/** struct sharing - what a filler is told: PROGRAM image fill STORE ID BYTES, and the socket as descriptor 3 */
struct sharing {
    const char *program;
    const char *store; /* full name of the folder */
    const struct manifest *manifest;
    uint64_t bytes; /* about as much may be shared; only the one who starts the filler decides */
};

/**
 * sharing_join() - share pages with the other pagers of the image
 * @out: (give)
 *
 * Context: one thread, before the process is confined: it forks.
 * Return: 0 or a negative errno with a text; nothing depends on it.
 */
int sharing_join(struct share **out, const struct sharing *what);

#endif
