/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"

#define PAGEMAP_UNIT \
    4096ull /* bytes of memory that one entry is about, whatever the mapping's page size */

/* #syscalls pidfd_send_signal */
static int signal_peer(const struct peer *p, int signal)
{
    return (int)syscall(SYS_pidfd_send_signal, p->pidfd, signal, NULL, 0) < 0 ? -errno : 0;
}

/* open_pidfd() - from the socket where the kernel can (6.5), else by number while the connection stands */
/* #syscalls getsockopt pidfd_open */
static int open_pidfd(int socket, pid_t pid)
{
    int fd = -1;
    socklen_t len = sizeof(fd);

    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == 0)
        return fd;
    fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : fd;
}

/* open_pagemap() - needs the right to trace the process; whoever lacks it does without */
/* #syscalls openat open */
static int open_pagemap(pid_t pid)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* #syscalls pread64 */
enum peer_page peer_look_at_page(const struct peer *p, hva_t addr)
{
    const uint64_t present_or_swapped = 3ull << 62;
    uint64_t entry;

    if (p->pagemap < 0 || pread(p->pagemap, &entry, sizeof(entry),
                                (off_t)(addr / PAGEMAP_UNIT * sizeof(entry))) != sizeof(entry))
        return PEER_PAGE_UNKNOWN;
    return entry & present_or_swapped ? PEER_PAGE_PRESENT : PEER_PAGE_ABSENT;
}

int peer_identify(struct peer *out, int socket)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    int r;

    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return err_origin_errno(-errno, "cannot tell who connected");
    if (cred.pid <= 0)
        return err_origin(
            -ESRCH, "the VMM is not visible from this PID namespace: it could not be stopped if "
                    "its memory could not be served (run thaw in the same or a parent namespace)");
    *out = (struct peer){
        .pid = cred.pid,
        .uid = cred.uid,
        .pidfd = open_pidfd(socket, cred.pid),
        .pagemap = open_pagemap(cred.pid),
    };
    if (out->pidfd < 0) {
        r = out->pidfd;
        out->pidfd = -1;
        return err_origin_errno(r, "cannot hold on to the VMM, process %d (pidfd)", cred.pid);
    }
    r = signal_peer(out, 0);
    if (r < 0 && r != -ESRCH) {
        peer_deinit(out);
        return err_origin_errno(
            r,
            "process %d of user %u may not be signalled by this process: it could not be "
            "stopped if its memory could not be served",
            cred.pid, cred.uid);
    }
    return 0;
}

/* #syscalls poll ppoll */
static bool wait_gone(const struct peer *p, int timeout_ms)
{
    struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};
    int n;

    do {
        n = poll(&pfd, 1, timeout_ms);
    } while (n < 0 && errno == EINTR);
    return n > 0;
}

bool peer_is_gone(const struct peer *p)
{
    return wait_gone(p, 0);
}

int peer_stop(const struct peer *p, void (*waiting)(void *ctx, unsigned seconds), void *ctx)
{
    int r = signal_peer(p, SIGKILL);
    unsigned seconds = 0;

    if (r < 0 && r != -ESRCH)
        return err_origin_errno(r, "cannot stop the VMM, process %d", p->pid);
    while (!wait_gone(p, 1000))
        waiting(ctx, ++seconds);
    return 0;
}

void peer_deinit(struct peer *p)
{
    p->pidfd = fd_close(p->pidfd);
    p->pagemap = fd_close(p->pagemap);
}
