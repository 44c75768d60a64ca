/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_STATE_FILE_H
#define PAGER_STATE_FILE_H

/*
 * state_file.h - the block of core/block.h, mapped from a file in the run directory
 *
 * DIR/PID.state, readable by its owner alone. It is there while the pager runs, so that others can look at the pages'
 * states as they change, and it is gone after a good end. Its space is allocated when it is made: a run directory that
 * fills up later cannot take the pager down with a SIGBUS.
 */

#include "core/block.h"

/** struct state_file - a mapped block and its name */
struct state_file {
    struct block block;
    void *map; /* owned */
    size_t map_bytes;
    char *path; /* owned */
};

/** state_dir_default() - /run/thaw for root, else $XDG_RUNTIME_DIR/thaw, else /tmp/thaw-UID. Return: 0 or -ENAMETOOLONG */
int state_dir_default(char *buf, size_t len);

/**
 * state_file_new() - create the state file of this process
 * @out:  (give) state_file_deinit() it
 * @dir:  (borrow for the call) created with mode 0700 if it is not there; NULL: state_dir_default()
 * @geom: (borrow for the call) copied into the block
 *
 * Return: 0 or a negative errno with a text.
 */
int state_file_new(struct state_file *out, const char *dir, const struct geom *geom);

/** state_file_deinit() - unmap and remove the file; a zeroed struct is fine */
void state_file_deinit(struct state_file *s);

#endif
