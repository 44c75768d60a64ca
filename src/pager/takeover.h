/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_TAKEOVER_H
#define PAGER_TAKEOVER_H

/*
 * takeover.h - a VM whose pager was killed, found again by another process (invariant I7)
 *
 * What is needed is where a kill cannot reach it: the page states and all that was in hand in the state file, the
 * userfaultfd in the VMM, which keeps it open for as long as its memory lives. So a new process
 *
 *     locks the state file             nobody is in the middle of anything any more
 *     holds the VMM by a pidfd         and it is the process that the state file is about, not one with its number
 *     takes the userfaultfd out of it  pidfd_getfd(2); the one whose inode the state file names
 *
 * and has what a handshake would have given it. What the dead pager had in hand is session.c's to finish.
 *
 * Until the session begins nothing is changed: whoever fails leaves a VM that waits, and that another one may take over.
 */

#include "pager/handshake.h"
#include "pager/state_file.h"

/**
 * takeover_find() - find a VM again
 * @hs:    (give) peer and uffd are set, handshake_deinit() it
 * @state: (give) state_file_deinit() or state_file_leave() it
 * @dir:   where the state file is; NULL: the default
 * @which: the VMM's process id, or the state file's path
 *
 * Return: 0 or a negative errno with a text.
 */
int takeover_find(struct handshake *hs, struct state_file *state, const char *dir,
                  const char *which);

#endif
