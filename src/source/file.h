/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOURCE_FILE_H
#define SOURCE_FILE_H

/* file.h - a raw memory file as a page source */

#include "source/source.h"

/** struct file_id - which file it is, whatever its name */
struct file_id {
    uint64_t device; /* st_dev and st_ino */
    uint64_t inode;
};

/**
 * source_open_file() - serve a raw memory file
 * @out:  (give)
 * @path: (borrow for the call) a regular file, not empty, not changed while it is served
 * @id:   set on success
 *
 * Return: 0 or a negative errno with a text that names @path.
 */
int source_open_file(struct source **out, const char *path, struct file_id *id);

#endif
