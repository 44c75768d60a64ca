/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_MAP_STATE_LIST_H
#define CLI_MAP_STATE_LIST_H

/*
 * state_list.h - the state files of a directory, and reading one
 *
 * A state file is read into memory, not mapped: on tmpfs a mapping would turn its holes into
 * memory, and a file that becomes shorter would raise SIGBUS. What is read is a moment of a running
 * VM; the parts of it may be some microseconds apart.
 */

#include "core/block.h"

/** struct state_copy - a state file as it was when it was read */
struct state_copy {
    struct block block; /* a view on mem */
    void *mem;
    size_t mem_bytes;
    bool stale; /* no pager holds the file any more */
};

/**
 * state_read() - read a state file
 * @path: of the file
 * @out:  (give) state_free() it
 *
 * Return: 0 or a negative errno with a text.
 */
int state_read(const char *path, struct state_copy **out);

/** state_free() - Return: NULL */
struct state_copy *state_free(struct state_copy *s);

/** struct state_list - the state files in a directory, in the order of their pagers' pids */
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

/**
 * state_path() - the name of the state file of pager @pid in @dir. Return: 0 or -ENAMETOOLONG with
 * a text
 */
int state_path(const char *dir, int pid, char *buf, size_t len);

DEFINE_CLEANUP(struct state_copy *, state_free);
DEFINE_CLEANUP(struct state_list *, state_list_free);

#endif
