/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_CONFINE_H
#define PAGER_CONFINE_H

/*
 * confine.h - a pager gives away what it will not need
 *
 * A pager reads what a hostile guest and a hostile VMM make the kernel say. Whoever takes it over through that must find a
 * process that can do next to nothing else. So it takes its descriptors first (pidfd, pagemap, userfaultfd, the mapped
 * memory file), and then lets go of the rest, in three steps at three moments:
 *
 *     confine_check()        before it listens      can all of this be done, and will what it needs still work afterwards?
 *     confine_identity()     after the handshake    another user, if one was asked for
 *     confine_privileges()   before threads start   no new privileges, no capabilities, Landlock, limits
 *     confine_syscalls()     before the first fault seccomp: the calls of the `#syscalls` comments and no others
 *
 * A supervisor (pager/supervise.h) takes part in all but the last: it starts processes. What is given away is inherited by
 * threads and children made later, and cannot be had back.
 *
 * One right stays by all means: to kill the VMM (invariant I6). It is tried, with signal 0, at each step that could take it
 * away, and CAP_KILL is kept where it is needed for that.
 */

#include <sys/types.h>

#include "base/log.h"
#include "pager/control.h"
#include "pager/peer.h"

/** struct confine_plan - what to give away; all (borrow) for the pager's life */
struct confine_plan {
    bool on;   /* false: only the change of user is done */
    uid_t uid; /* become this user; 0: stay who we are */
    gid_t gid; /* with this group and no other */
    const char
        *state_dir; /* where the state file is: it must be removed at the end; NULL: not known */
    const char
        *write_dirs[2]; /* where files are written until the end; each may be NULL: nowhere */
    int tasks_fd;       /* a folder beneath which files are read until the end; -1: none */
    struct control *control;
    const struct log_sink *log;
};

/**
 * confine_check() - try in a child what will be needed once all is given away
 *
 * Makes the state directory for the other user, if there is one. Return: 0 or a negative errno with a text.
 */
int confine_check(const struct confine_plan *c);

/**
 * confine_identity() - become the other user, without supplementary groups; nothing without one
 *
 * Return: 0 or a negative errno with a text; the process can stop the VMM in both cases.
 */
int confine_identity(const struct confine_plan *c, const struct peer *vmm);

/**
 * confine_privileges() - everything but system calls, for this thread and for those that it starts later
 *
 * Return: 0 or a negative errno with a text; the process can stop the VMM in both cases.
 */
int confine_privileges(const struct confine_plan *c, const struct peer *vmm);

/**
 * confine_syscalls() - allow the listed system calls only, in all threads of this process
 *
 * Return: 0 or a negative errno with a text. A kernel without seccomp filters is no error: it is logged.
 */
int confine_syscalls(const struct confine_plan *c);

/** confine_report() - log the calls that were refused since the last report, if any */
void confine_report(const struct log_sink *log);

#endif
