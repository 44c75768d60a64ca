/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_SERVED_H
#define PAGER_SERVED_H

/*
 * served.h - what a pager serves, and that its successor serves the same
 *
 * A memory file is known by its inode: the state file has that, and the file's name. An image is known by its id. Its place in
 * the state file is where a file's name would be:
 *
 *     image:ID:STORE      64 digits, and the full name of the store's folder; the inode is 0
 *
 * Names of images are for people and may come to mean another one; an id never does. A successor that is told another file
 * or image than the one that was served ends with an error: any other would show the VM wrong bytes.
 */

#include <thaw/thaw.h>

#include "core/block.h"
#include "image/workingset.h"
#include "source/file.h"
#include "source/source.h"

/** struct served - all zeroes: not known yet */
struct served {
    struct source *source; /* owned */
    struct file_id memory; /* of the memory file; zeroes: something else */
    char *name;            /* owned: for messages and the state file; NULL: not known yet */
    bool is_image;
    struct workingset *hot; /* owned: the image's own; NULL: none */
    char *
        not_shared; /* owned: why its pages are not shared with other pagers; NULL: they are, or need not be */
};

/**
 * served_open() - the memory file or the image of the options; nothing, if they name none
 * @out: (give) served_deinit() it. The caller's own source is not opened here
 *
 * Return: 0 or a negative errno with a text
 */
int served_open(struct served *out, const struct thaw_pager_options *o);

/** served_open_again() - what the VM of this state file was served from. Return: 0 or a negative errno with a text */
int served_open_again(struct served *out, const struct block_header *h,
                      const struct thaw_pager_options *o);

/** served_check() - is it what the VM of this block was served from? Return: 0 or -EINVAL with a text */
int served_check(const struct served *s, const struct block *block);

/** served_deinit() - close it */
void served_deinit(struct served *s);

#endif
