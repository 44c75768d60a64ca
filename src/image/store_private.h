/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_STORE_PRIVATE_H
#define IMAGE_STORE_PRIVATE_H

/* store_private.h - what the files of the store know of each other; store.h has the layout */

#include "image/store.h"

/** enum store_folder - the folders of a store */
enum store_folder {
    STORE_NAMES,
    STORE_MANIFESTS,
    STORE_PACKS,
    STORE_TMP,
    N_STORE_FOLDERS,
};

struct store {
    char *path;
    int folders[N_STORE_FOLDERS];
    int lock_fd;
};

/** store_folder_name() - "names", ... */
const char *store_folder_name(enum store_folder folder);

/** store_id_parse() - 64 hexadecimal digits in lower case. Return: is that what @text begins with? */
bool store_id_parse(const char *text, uint8_t id[IMAGE_ID_BYTES]);

/** store_sync() - a folder's entries survive a crash of the host. Return: 0 or a negative errno with a text */
int store_sync(struct store *s, enum store_folder folder);

/**
 * store_flock() - flock(2), which does not wait when @how has LOCK_NB
 * Return: 0; -EWOULDBLOCK; -EINTR: a signal came while it waited; others (no text)
 */
int store_flock(int fd, int how);

/** store_lock_names() - only who holds this changes a name; for a moment. Return: 0 or a negative errno with a text */
int store_lock_names(struct store *s);
void store_unlock_names(struct store *s);

/** store_is_there() - does @name in a folder lead to the file that @fd has open? */
bool store_is_there(struct store *s, enum store_folder folder, const char *name, int fd);

/**
 * store_each() - call @fn for each entry of a folder, in no order
 * @fn: 0: go on; others end it
 *
 * Return: 0, what @fn returned, or a negative errno with a text
 */
int store_each(struct store *s, enum store_folder folder, int (*fn)(void *ctx, const char *entry),
               void *ctx);

#endif
