/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_STATE_COPY_H
#define NODE_STATE_COPY_H

/*
 * state_copy.h - reading a state file
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

/** state_tell_ready() - tell the pager of the file @path that its guest is ready: a record ends. Return: 0 or -errno with a text */
int state_tell_ready(const struct state_copy *s, const char *path);

/** state_free() - Return: NULL */
struct state_copy *state_free(struct state_copy *s);

DEFINE_CLEANUP(struct state_copy *, state_free);

#endif
