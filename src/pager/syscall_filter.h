/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_SYSCALL_FILTER_H
#define PAGER_SYSCALL_FILTER_H

/* syscall_filter.h - a pager, and a filler, make the system calls that their source lists, and no others */

#include "base/base.h"

enum {
    _SYSCALL_FILTER_E_SUCCESS,
    SYSCALL_FILTER_E_ABSENT, /* not syscall_filter_available() */
    SYSCALL_FILTER_E_BUILD, /* this program was built for a sanitizer, which makes calls of its own */
};

/** syscall_filter_available() - can this process have a seccomp filter? */
bool syscall_filter_available(void);

/**
 * syscall_filter_load() - from now on, in all threads of this process, and for good
 * @on_refused: called in the thread that made the first refused call, in a signal handler; NULL: nobody
 * @ctx:        for @on_refused (borrow for the process's life)
 * @tasks_fd:   openat(2) may be called with this folder; Landlock must keep what it can reach small. -1: none
 *
 * A call that is not listed fails with EPERM and is counted: SIGSYS is taken for that.
 * Needs no_new_privs. Return: 0, SYSCALL_FILTER_E_*, or a negative errno with a text.
 */
int syscall_filter_load(void (*on_refused)(void *ctx), void *ctx, int tasks_fd);

/**
 * syscall_filter_load_for_filler() - the same for `thaw image fill`, whose calls are others; it may start threads
 *
 * A call that is not listed ends the process: SIGSYS. Needs no_new_privs. Return: as above.
 */
int syscall_filter_load_for_filler(void);

/** syscall_filter_refused() - how many calls were refused. @last_nr: the number of the last one, -1: none */
unsigned syscall_filter_refused(int *last_nr);

#endif
