/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/peer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"
#include "base/procfs.h"
#include "uffd/install.h"

#define PAGEMAP_UNIT \
    4096ull /* bytes of memory that one entry is about, whatever the mapping's page size */

/* #syscalls pidfd_send_signal:1=0,SIGKILL */
static int signal_peer(const struct peer *p, int signal)
{
    return (int)syscall(SYS_pidfd_send_signal, p->pidfd, signal, NULL, 0) < 0 ? -errno : 0;
}

/* open_pidfd() - from the socket where the kernel can (6.5), else by number while the connection stands */
/* #syscalls:start getsockopt pidfd_open */
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
/* #syscalls:start openat open */
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

int peer_can_stop(const struct peer *p)
{
    int r = signal_peer(p, 0);

    return r == -ESRCH ? 0 : r;
}

/* hold() - what is known of the process @pid besides its number; it must be one that we can stop */
static int hold(struct peer *out, pid_t pid, uid_t uid, int pidfd)
{
    int r;

    *out = (struct peer){.pid = pid, .uid = uid, .pidfd = pidfd, .pagemap = open_pagemap(pid)};
    (void)procfs_start_ticks(pid, &out->start_ticks);
    if (out->pidfd < 0) {
        r = out->pidfd;
        out->pidfd = -1;
        peer_deinit(out);
        return err_origin_errno(r, "cannot hold on to the VMM, process %d (pidfd)", pid);
    }
    r = peer_can_stop(out);
    if (r < 0) {
        peer_deinit(out);
        return err_origin_errno(
            r,
            "process %d of user %u may not be signalled by this process: it could not be "
            "stopped if its memory could not be served",
            pid, uid);
    }
    return 0;
}

int peer_identify(struct peer *out, int socket)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);

    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return err_origin_errno(-errno, "cannot tell who connected");
    if (cred.pid <= 0)
        return err_origin(
            -ESRCH, "the VMM is not visible from this PID namespace: it could not be stopped if "
                    "its memory could not be served (run thaw in the same or a parent namespace)");
    return hold(out, cred.pid, cred.uid, open_pidfd(socket, cred.pid));
}

/* ---- a VMM that another pager has served ---------------------------------------------------------------------- */

int peer_of_process(struct peer *out, pid_t pid)
{
    char path[64];
    struct stat st;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

    if (pidfd < 0)
        return errno == ESRCH ? err_origin(-ESRCH, "the VMM, process %d, is gone", pid)
                              : err_origin_errno(-errno, "cannot hold on to process %d", pid);
    (void)snprintf(path, sizeof(path), "/proc/%d", pid);
    if (stat(path, &st) < 0) {
        (void)fd_close(pidfd);
        return err_origin(-ESRCH, "the VMM, process %d, is gone", pid);
    }
    return hold(out, pid, st.st_uid, pidfd);
}

/* struct search - for one of a process's descriptors */
struct search {
    uint64_t device;
    uint64_t inode;
    int number; /* -1: none found yet */
    unsigned n_others;
};

/* look_at_fd() - is the process's descriptor @name what is searched for? */
/* #syscalls:start newfstatat fstat fstatat64 statx */
static void look_at_fd(struct search *s, int dir, const char *name)
{
    char what[64];
    struct stat st;
    ssize_t n = readlinkat(dir, name, what, sizeof(what) - 1);

    what[n < 0 ? 0 : n] = '\0';
    if (strcmp(what, UFFD_LINK_NAME) != 0 || fstatat(dir, name, &st, 0) < 0)
        return;
    if (s->inode != 0 && (st.st_ino != s->inode || st.st_dev != s->device))
        return;
    if (s->number >= 0 && s->inode == 0)
        s->n_others++;
    s->number = atoi(name); /* NOLINT(cert-err34-c): the kernel's own number */
}

static void dir_closep(DIR **d)
{
    if (*d)
        (void)closedir(*d);
}

/* #syscalls:start pidfd_getfd getdents64 */
int peer_take_uffd(const struct peer *p, uint64_t device, uint64_t inode, int *uffd)
{
    struct search s = {.device = device, .inode = inode, .number = -1};
    _cleanup_(dir_closep) DIR *dir = NULL;
    char path[64];
    struct dirent *e;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", p->pid);
    dir = opendir(path);
    if (!dir)
        return err_origin_errno(-errno, "cannot look for the userfaultfd of process %d", p->pid);
    while ((e = readdir(dir)))
        look_at_fd(&s, dirfd(dir), e->d_name);
    if (s.number < 0)
        return err_origin(-ENOENT,
                          "process %d has not kept the userfaultfd of its memory open: nobody can "
                          "serve it any more",
                          p->pid);
    if (s.n_others > 0)
        return err_origin(-EINVAL,
                          "process %d has %u userfaultfds, and the state file does not say which: "
                          "it is of a version that did not note it",
                          p->pid, s.n_others + 1);
    fd = (int)syscall(SYS_pidfd_getfd, p->pidfd, s.number, 0);
    if (fd < 0)
        return err_origin_errno(-errno,
                                "cannot take the userfaultfd out of process %d (it needs the right "
                                "to trace it: the same user, or CAP_SYS_PTRACE)",
                                p->pid);
    *uffd = fd;
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
