/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uffd_peer.c - userfaultfd and unix socket as a VMM uses them
 *
 * The order is the one Firecracker keeps: /dev/userfaultfd first, userfaultfd(2) only where that file is missing;
 * UFFDIO_API with EVENT_REMOVE and nothing else; one UFFDIO_REGISTER a region in mode MISSING; one sendmsg with
 * the fd as SCM_RIGHTS. Errors end the process: a test tool has nobody to tell.
 */
#include "uffd_peer.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

void peer_die(int code, int err, const char *fmt, ...)
{
    va_list ap;

    fflush(stdout);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    if (err)
        fprintf(stderr, ": %s", strerror(err));
    fputc('\n', stderr);
    fflush(stderr);
    _exit(code);
}

static int uffd_create(int flags)
{
    int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int fd;

    if (dev < 0 && errno != ENOENT)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot open /dev/userfaultfd");
    if (dev >= 0) {
        fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | flags);
        if (fd < 0)
            peer_die(PEER_EXIT_ABSENT, errno, "USERFAULTFD_IOC_NEW");
        close(dev);
        return fd;
    }
    fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | flags);
    if (fd < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "userfaultfd(2)");
    return fd;
}

int peer_uffd_new(int flags, uint64_t features)
{
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE | features};
    int fd = uffd_create(flags);

    if (ioctl(fd, UFFDIO_API, &api) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "UFFDIO_API with features %#llx",
                 (unsigned long long)api.features);
    return fd;
}

void peer_uffd_register(int uffd, void *addr, size_t len_bytes)
{
    struct uffdio_register reg = {
        .range = {.start = (uintptr_t)addr, .len = len_bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };

    if (ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "UFFDIO_REGISTER of %zu bytes at %p", len_bytes, addr);
}

int peer_connect(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd, err;

    if (strlen(path) >= sizeof(sa.sun_path))
        return -ENAMETOOLONG;
    memcpy(sa.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
        err = errno;
        close(fd);
        return -err;
    }
    return fd;
}

int peer_send(int sock, const void *bytes, size_t len_bytes, const int *fds, unsigned n_fds)
{
    union {
        char buf[CMSG_SPACE(8 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len_bytes};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (n_fds > 8)
        return -E2BIG;
    if (n_fds > 0) {
        struct cmsghdr *c = &control.align;

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
    }
    while (iov.iov_len > 0) {
        n = sendmsg(sock, &msg, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        iov.iov_base = (char *)iov.iov_base + n;
        iov.iov_len -= (size_t)n;
        msg.msg_control = NULL;
        msg.msg_controllen = 0;
    }
    return 0;
}
