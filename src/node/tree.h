/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_TREE_H
#define NODE_TREE_H

/* tree.h - files and what is in folders: copied, linked, synced, removed. Symbolic links are not followed */

#include "base/base.h"

/** tree_path() - @folder and @name, with a slash between. Return: 0 or -ENAMETOOLONG with a text */
int tree_path(char *buf, size_t len, const char *folder, const char *name);

/** tree_exists() - is there anything of that name? */
bool tree_exists(const char *path);

/**
 * tree_copy_file() - a new file with the same bytes: shared blocks where the file system has them, and holes as holes
 * @to: must not be there
 *
 * Not synced. Return: 0 or a negative errno with a text; then @to is not there
 */
int tree_copy_file(const char *from, const char *to);

/** tree_link_file() - another name of a file that nobody writes to; copied where that is not possible. Return: as above */
int tree_link_file(const char *from, const char *to);

/** tree_link_durable() - the same, and the file's bytes are on disk; not yet its name. Return: 0 or a negative errno with a text */
int tree_link_durable(const char *from, const char *to);

/**
 * tree_put_file() - a file of the folder @from is in the folder @to under the same name
 * @put: tree_copy_file(), tree_link_file() or tree_link_durable()
 */
int tree_put_file(int (*put)(const char *from, const char *to), const char *from, const char *to,
                  const char *name);

/**
 * tree_sync() - a file or folder is on disk, but not what is in a folder
 *
 * Return: 0, or a negative errno with a text: -EINVAL or -ELOOP if it is something else, such as a FIFO or a symbolic link
 */
int tree_sync(const char *path);

/** tree_remove() - a file or a folder with all that is in it. What is not there is no error. Return: 0 or -errno with a text */
int tree_remove(const char *path);

/** tree_bytes() - what a folder and all in it occupy on disk; 0 if it cannot be told */
uint64_t tree_bytes(const char *path);

#endif
