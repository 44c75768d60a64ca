/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_STATE_DIR_H
#define PAGER_STATE_DIR_H

/*
 * state_dir.h - the run directory: where state files are, and which there are
 *
 * A state file is DIR/PID.state, PID being the process that made it. Another pager may have taken it over since: the
 * name stays, the block's header says who serves.
 */

#include "base/base.h"

/** state_dir_default() - /run/thaw for root, else $XDG_RUNTIME_DIR/thaw, else /tmp/thaw-UID. Return: 0 or -ENAMETOOLONG */
int state_dir_default(char *buf, size_t len);

/** state_dir_make() - create @dir with mode 0700 if it is not there. Return: 0 or a negative errno with a text */
int state_dir_make(const char *dir);

/** struct state_list - the state files in a directory, in the order of the pids in their names */
struct state_list {
    unsigned n;
    int *pids; /* as the files' names say */
};

/**
 * state_list_read() - find the state files of @dir
 * @out: (give) state_list_free() it; empty if @dir does not exist
 *
 * Return: 0 or a negative errno with a text.
 */
int state_list_read(const char *dir, struct state_list **out);

/** state_list_free() - Return: NULL */
struct state_list *state_list_free(struct state_list *l);

/** state_path() - the name of the state file that process @pid made in @dir. Return: 0 or -ENAMETOOLONG with a text */
int state_path(const char *dir, int pid, char *buf, size_t len);

DEFINE_CLEANUP(struct state_list *, state_list_free);

#endif
