/* SPDX-License-Identifier: Apache-2.0 */
#include "uffd/install.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"
#include "base/linux_compat.h"

static enum outcome outcome_of(int error)
{
    switch (error) {
    case EAGAIN:
        return OUTCOME_AGAIN;
    case EEXIST:
        return OUTCOME_EXISTS;
    case ENOENT:
        return OUTCOME_UNMAPPED;
    case ENOMEM:
    case ENOSPC:
        return OUTCOME_NOMEM;
    case EFAULT:
        return OUTCOME_SOURCE;
    case ESRCH:
        return OUTCOME_GONE;
    default:
        return OUTCOME_REFUSED;
    }
}

/*
 * Three ways in which the kernel tells of an ioctl that did less than all: errno alone (before 6.15), errno and the same
 * errno negated in the result field, or EAGAIN and the bytes done in the result field.
 */
static struct install_result decode(int error, int64_t field, uint64_t len)
{
    struct install_result r = {.outcome = outcome_of(error)};

    if (field > 0)
        r.bytes_done = min_u64((uint64_t)field, len);
    else if (field < 0 && error == EAGAIN)
        r.outcome = outcome_of((int)-field);
    return r;
}

/* uffd_ioctl() - errno of the ioctl, 0 on success; a signal is no outcome */
/* #syscalls ioctl:1=UFFDIO_COPY,UFFDIO_ZEROPAGE,UFFDIO_WRITEPROTECT,UFFDIO_WAKE,UFFDIO_UNREGISTER */
static int uffd_ioctl(int uffd, unsigned long request, void *arg)
{
    while (ioctl(uffd, request, arg) < 0) {
        if (errno != EINTR)
            return errno;
    }
    return 0;
}

struct install_result uffd_copy(int uffd, hva_t dst, const void *src, uint64_t len, bool arm)
{
    struct uffdio_copy c = {
        .dst = dst,
        .src = (uintptr_t)src,
        .len = len,
        .mode = arm ? UFFDIO_COPY_MODE_WP : 0,
    };
    int error = uffd_ioctl(uffd, UFFDIO_COPY, &c);

    if (error == 0)
        return (struct install_result){.outcome = OUTCOME_DONE, .bytes_done = len};
    return decode(error, c.copy, len);
}

struct install_result uffd_zeropage(int uffd, hva_t dst, uint64_t len)
{
    struct uffdio_zeropage z = {.range = {.start = dst, .len = len}};
    int error = uffd_ioctl(uffd, UFFDIO_ZEROPAGE, &z);

    if (error == 0)
        return (struct install_result){.outcome = OUTCOME_DONE, .bytes_done = len};
    return decode(error, z.zeropage, len);
}

struct install_result uffd_unprotect(int uffd, hva_t dst, uint64_t len)
{
    struct uffdio_writeprotect w = {.range = {.start = dst, .len = len}};
    int error = uffd_ioctl(uffd, UFFDIO_WRITEPROTECT, &w);

    if (error == 0)
        return (struct install_result){.outcome = OUTCOME_DONE, .bytes_done = len};
    return decode(error, 0, len);
}

static struct install_result range_ioctl(int uffd, unsigned long request, hva_t start, uint64_t len)
{
    struct uffdio_range range = {.start = start, .len = len};
    int error = uffd_ioctl(uffd, request, &range);

    if (error == 0)
        return (struct install_result){.outcome = OUTCOME_DONE, .bytes_done = len};
    return decode(error, 0, len);
}

struct install_result uffd_wake(int uffd, hva_t dst, uint64_t len)
{
    return range_ioctl(uffd, UFFDIO_WAKE, dst, len);
}

struct install_result uffd_unregister(int uffd, hva_t start, uint64_t len)
{
    return range_ioctl(uffd, UFFDIO_UNREGISTER, start, len);
}

/* #syscalls:start mmap munmap */
int uffd_check_huge(int uffd, hva_t start)
{
    void *nothing = mmap(NULL, 4 * KIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct install_result r;

    if (nothing == MAP_FAILED)
        return err_origin_errno(-errno, "cannot map a page");
    r = uffd_copy(uffd, start, nothing, 4 * KIB, false);
    (void)munmap(nothing, 4 * KIB);
    if (r.outcome == OUTCOME_SOURCE)
        return err_origin(-EINVAL,
                          "handshake: the VMM says that its pages have 2097152 bytes, those of the "
                          "region at 0x%" PRIx64 " are smaller",
                          start);
    return 0;
}

/* #syscalls:start ioctl:1=UFFDIO_REGISTER */
int uffd_track(int uffd, hva_t start, uint64_t len)
{
    struct uffdio_register reg = {
        .range = {.start = start, .len = len},
        .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
    };
    int error = uffd_ioctl(uffd, UFFDIO_REGISTER, &reg);

    if (error != 0)
        return err_origin_errno(-error,
                                "cannot track writes to the region at 0x%" PRIx64
                                " (use --track none, or see thaw doctor)",
                                start);
    if (!(reg.ioctls & (1ull << _UFFDIO_WRITEPROTECT)))
        return err_origin(-EOPNOTSUPP,
                          "cannot track writes to the region at 0x%" PRIx64
                          ": this kernel has no write protection for such memory",
                          start);
    return 0;
}

/* describe_fd() - what /proc calls @fd, such as "anon_inode:[userfaultfd]" or "pipe:[4711]"; "" if it cannot be told */
/* #syscalls:start readlink readlinkat */
static void describe_fd(int fd, char *what, size_t len)
{
    char link[64];
    ssize_t n;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, what, len - 1);
    what[n < 0 ? 0 : n] = '\0';
}

bool uffd_is_one(int fd)
{
    char what[64];

    describe_fd(fd, what, sizeof(what));
    return strcmp(what, UFFD_LINK_NAME) == 0;
}

/* #syscalls:start fcntl */
int uffd_check(int fd)
{
    char what[64];
    int flags;

    if (!uffd_is_one(fd)) {
        describe_fd(fd, what, sizeof(what));
        return err_origin(
            -EINVAL, "handshake: the file descriptor received is %s, expected a userfaultfd", what);
    }
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || !(flags & O_NONBLOCK))
        return err_origin(
            -EINVAL,
            "handshake: the userfaultfd received is in blocking mode, expected O_NONBLOCK: "
            "it cannot be waited for with poll(2)");
    return 0;
}
