/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_DIFF_FILE_H
#define IMAGE_DIFF_FILE_H

/*
 * diff_file.h - a file of what changed: data where the guest wrote, holes where it did not
 *
 * Such a file says nothing of a page that the guest gave back: it has a hole there, as for a page that nobody touched. Taken
 * for the parent's page it would bring back bytes that are gone. So whoever opens one says what else is known of each page, and
 * the rule is: data wins over zero, zero wins over the parent's page.
 *
 * Where data begins and ends is asked of the file system (SEEK_DATA). One that cannot tell would make zeroes of all that did
 * not change; so a file that has fewer blocks than its length but no hole is refused.
 */

#include "image/memory_file.h"

/** enum diff_hint - what a page is that the file has no data of */
enum diff_hint {
    DIFF_PARENT = 0, /* the parent's */
    DIFF_ZERO,       /* zero */
    DIFF_UNSURE,     /* not known: an error, unless the parent's page is zero as well */
};

/** struct diff_file - one that is open */
struct diff_file {
    struct memory_file file;
    const struct manifest *parent; /* (borrow) */
    const uint8_t *hints;          /* (borrow) */
};

/**
 * diff_file_open() - @d: (give) diff_file_close() it
 * @parent: (borrow) of the image that the file is a difference to; of the same size
 * @hints:  (borrow) enum diff_hint of each page; NULL: all are DIFF_PARENT
 *
 * Return: 0 or a negative errno with a text
 */
int diff_file_open(struct diff_file *d, const char *path, const struct manifest *parent,
                   const uint8_t *hints);

void diff_file_close(struct diff_file *d);

/** diff_file_source() - its pages and the parent's. @d: (borrow) as long as the source is used */
struct page_source diff_file_source(struct diff_file *d);

#endif
