/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_SUPERVISE_H
#define PAGER_SUPERVISE_H

/*
 * supervise.h - a process that does nothing but start another pager when one dies
 *
 *     supervisor   holds the userfaultfd, a pidfd of the VMM and the state file, and waits
 *       |  fork
 *     pager        serves; when it is killed, the next fork takes over from the state file
 *
 * The supervisor has taken the handshake, and so everything is there when it forks: a successor has nothing to open, to
 * ask for or to be permitted, and it is serving again within about a millisecond. The supervisor reads no message, makes
 * no ioctl on the userfaultfd and parses nothing: there is little to crash it. While it lives the userfaultfd is open,
 * so a pager's death never lets the VM go on with zeroes, even if the VMM has closed its own copy.
 *
 * When pager/restarts.h gives up, the supervisor stops the VMM and says why (invariant I6).
 *
 * Killed itself, it leaves a pager that goes on, and that another process can follow (pager/takeover.h).
 */

#include "base/log.h"
#include "pager/control.h"
#include "pager/peer.h"
#include "pager/state_file.h"
#include "pager/wakeup.h"

/** struct supervised - whom it is about; all (borrow) for the call */
struct supervised {
    struct block *block;
    struct control *control;
    const struct peer *peer;
    struct wakeup *wakeup;
    const struct log_sink *log;
    uint64_t grace_ns;
    int ready_fd;            /* an eventfd that a pager writes to when it is serving */
    int (*serve)(void *ctx); /* in the child process: serve, return the exit status */
    void *ctx;
};

/**
 * supervise() - have the VM served by child processes until it is gone
 *
 * Context: the process has one thread. SIGCHLD must not be ignored.
 * Return: 0 the VMM is gone, or a stop was asked for; the exit status (> 0) of a pager that ended so and left no VMM; or a
 * negative errno with a text when the VMM had to be stopped here. The VMM is gone in all cases.
 */
int supervise(const struct supervised *s);

#endif
