/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_STATE_FILE_H
#define PAGER_STATE_FILE_H

/*
 * state_file.h - the block of core/block.h, mapped from a file in the run directory
 *
 * DIR/PID.state, readable by its owner alone. It is there while the VM is served, so that others can look at the pages'
 * states as they change, and it is gone after a good end. Its space is allocated when it is made: a run directory that
 * fills up later cannot take the pager down with a SIGBUS.
 *
 * A pager that is killed leaves its file behind, and with it all that another one must know (invariant I7). Who serves
 * holds a lock on the file (flock(2)), which the kernel takes back when the last thread of its last holder is gone. So
 * whoever gets the lock knows that nobody is in the middle of a system call for this VM any more.
 */

#include "core/block.h"

/** struct state_file - a mapped block and its name */
struct state_file {
    struct block block;
    void *map; /* owned */
    size_t map_bytes;
    char *path; /* owned */
    int fd;     /* owned: holds the lock; -1: none */
};

#define STATE_FILE_NONE \
    {                   \
        .fd = -1        \
    }

/** struct state_facts - what the header says from the beginning, see struct block_header */
struct state_facts {
    int vmm_pid;
    uint32_t vmm_uid;
    uint64_t vmm_start_ticks;
    uint64_t uffd_device;
    uint64_t uffd_inode;
    uint32_t track;
    const char *memory_path;
    uint64_t memory_device;
    uint64_t memory_inode;
};

/**
 * state_file_new() - create the state file of this process
 * @out:   (give) state_file_deinit() it
 * @dir:   (borrow for the call) created with mode 0700 if it is not there; NULL: state_dir_default()
 * @geom:  (borrow for the call) copied into the block
 * @facts: (borrow for the call) written before the file has its name
 *
 * Return: 0 or a negative errno with a text.
 */
int state_file_new(struct state_file *out, const char *dir, const struct geom *geom,
                   const struct state_facts *facts);

/**
 * state_file_adopt() - take over the state file that a dead pager left
 * @out: (give) state_file_deinit() it
 * @dir: (borrow for the call) NULL: state_dir_default()
 * @which: (borrow for the call) the VMM's process id, or the state file's path
 *
 * A file of the version before is replaced by one of this version, under the same name. On failure nothing has changed.
 *
 * Return: 0 or a negative errno with a text.
 * Errors: -ENOENT no such file; -EBUSY somebody serves; -EPROTONOSUPPORT another version; -EINVAL damaged, or there are
 * several files of that VMM.
 */
int state_file_adopt(struct state_file *out, const char *dir, const char *which);

/** state_file_leave() - unmap and unlock, and leave the file where it is */
void state_file_leave(struct state_file *s);

/** state_file_deinit() - unmap and remove the file; STATE_FILE_NONE is fine */
void state_file_deinit(struct state_file *s);

#endif
