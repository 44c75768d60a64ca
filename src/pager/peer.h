/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_PEER_H
#define PAGER_PEER_H

/*
 * peer.h - the VMM's process: who it is, whether it lives, and how it is stopped
 *
 * It is held by a pidfd, taken while it is connected, so that its number being used again by another process does not
 * matter. Stopping it is invariant I6: a VM whose bytes cannot be had is killed before the userfaultfd can be closed,
 * because closing the last one lets its threads go on with zeroes.
 */

#include <sys/types.h>

#include "base/base.h"

/** struct peer - the process at the other end of the socket */
struct peer {
    pid_t pid; /* in our PID namespace */
    uid_t uid;
    uint64_t start_ticks; /* when it began, see procfs_start_ticks(); 0: not known */
    int pidfd;            /* owned, -1: none */
    int pagemap;          /* owned, /proc/PID/pagemap; -1: we may not look at it */
};

#define PEER_NONE                  \
    {                              \
        .pidfd = -1, .pagemap = -1 \
    }

/**
 * peer_identify() - who connected (SO_PEERCRED), and a pidfd of it
 * @out: (give) peer_deinit() it
 *
 * Return: 0 or a negative errno with a text. A process that we could not stop is refused: not visible from our PID
 * namespace, or somebody else's whom we may not signal.
 */
int peer_identify(struct peer *out, int socket);

/**
 * peer_of_process() - the same for a process that is known by its number
 *
 * Return: 0 or a negative errno with a text. Errors: -ESRCH there is no such process.
 */
int peer_of_process(struct peer *out, pid_t pid);

/**
 * peer_take_uffd() - a copy of a userfaultfd that the process has open (pidfd_getfd(2), Linux 5.6)
 * @device, @inode: which: fstat(2) of it; both 0: the only one that it has
 * @uffd:           (give)
 *
 * Needs the right to trace the process. Return: 0 or a negative errno with a text.
 */
int peer_take_uffd(const struct peer *p, uint64_t device, uint64_t inode, int *uffd);

/** peer_can_stop() - may this process kill the peer, or is the peer dead? Return: 0 or a negative errno (no text) */
int peer_can_stop(const struct peer *p);

/** peer_is_gone() - has the process ended? Its memory has been given up then */
bool peer_is_gone(const struct peer *p);

/** enum peer_page - is a page of the peer's memory there? */
enum peer_page {
    PEER_PAGE_ABSENT,
    PEER_PAGE_PRESENT,
    PEER_PAGE_UNKNOWN,
};

/** peer_look_at_page() - ask /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst) about the page at @addr */
enum peer_page peer_look_at_page(const struct peer *p, hva_t addr);

/**
 * peer_stop() - SIGKILL, and wait until it is gone
 *
 * Waits as long as it takes, but says through @waiting after each second: the caller must not close the userfaultfd before.
 * Return: 0, or a negative errno with a text when it cannot be signalled (it is not waited for then).
 */
int peer_stop(const struct peer *p, void (*waiting)(void *ctx, unsigned seconds), void *ctx);

/** peer_deinit() - close the pidfd */
void peer_deinit(struct peer *p);

#endif
