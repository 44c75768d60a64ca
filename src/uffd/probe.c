/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe.c - getting a userfaultfd, and asking the kernel what one can do here
 *
 * Most of this file is about saying no well. The kernel has few errno values for many reasons, so
 * each refusal is compared with what /proc says about it, and the sentence names the one thing to
 * change:
 *
 *     the device   EACCES  the file's permissions
 *                  EPERM   a device cgroup (containers) or a security module
 *                  ENOENT  no such file: the system call is tried
 *     the call     ENOSYS  not built in, or hidden by a filter: the sysctl's existence tells which
 *                  EPERM   no CAP_SYS_PTRACE and vm.unprivileged_userfaultfd=0; else a filter
 *     UFFDIO_API   EINVAL  a feature that this kernel lacks: a second fd is asked for the list
 *                  EPERM   EVENT_FORK needs CAP_SYS_PTRACE
 *
 * UFFDIO_API works once on each userfaultfd, so asking for the list and using it take two.
 */
#include "uffd/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"
#include "base/procfs.h"

#define UNPRIVILEGED_SYSCTL "/proc/sys/vm/unprivileged_userfaultfd"

const struct uffd_feature uffd_features[] = {
    {UFFD_FEATURE_PAGEFAULT_FLAG_WP, "PAGEFAULT_FLAG_WP", "5.7"},
    {UFFD_FEATURE_EVENT_FORK, "EVENT_FORK", "4.11"},
    {UFFD_FEATURE_EVENT_REMAP, "EVENT_REMAP", "4.11"},
    {UFFD_FEATURE_EVENT_REMOVE, "EVENT_REMOVE", "4.11"},
    {UFFD_FEATURE_MISSING_HUGETLBFS, "MISSING_HUGETLBFS", "4.11"},
    {UFFD_FEATURE_MISSING_SHMEM, "MISSING_SHMEM", "4.11"},
    {UFFD_FEATURE_EVENT_UNMAP, "EVENT_UNMAP", "4.11"},
    {UFFD_FEATURE_SIGBUS, "SIGBUS", "4.14"},
    {UFFD_FEATURE_THREAD_ID, "THREAD_ID", "4.14"},
    {UFFD_FEATURE_MINOR_HUGETLBFS, "MINOR_HUGETLBFS", "5.13"},
    {UFFD_FEATURE_MINOR_SHMEM, "MINOR_SHMEM", "5.14"},
    {UFFD_FEATURE_EXACT_ADDRESS, "EXACT_ADDRESS", "5.18"},
    {UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "WP_HUGETLBFS_SHMEM", "5.19"},
    {UFFD_FEATURE_WP_UNPOPULATED, "WP_UNPOPULATED", "6.4"},
    {UFFD_FEATURE_POISON, "POISON", "6.6"},
    {UFFD_FEATURE_WP_ASYNC, "WP_ASYNC", "6.7"},
    {UFFD_FEATURE_MOVE, "MOVE", "6.8"},
};

const unsigned n_uffd_features = ARRAY_LEN(uffd_features);

static void append(char *buf, size_t len, const char *text)
{
    size_t n = strlen(buf);

    (void)snprintf(buf + n, len - n, "%s%s", n ? " " : "", text);
}

void uffd_features_text(uint64_t features, char *buf, size_t len)
{
    char number[24];

    assert(len > 0);
    buf[0] = '\0';
    for (unsigned i = 0; i < n_uffd_features; i++) {
        if (features & uffd_features[i].bit)
            append(buf, len, uffd_features[i].name);
        features &= ~uffd_features[i].bit;
    }
    if (features) {
        (void)snprintf(number, sizeof(number), "0x%" PRIx64, features);
        append(buf, len, number);
    }
}

/* The device exists and gave no userfaultfd. */
static int device_refused(int neg_errno)
{
    switch (neg_errno) {
    case -EACCES:
        return err_origin(neg_errno,
                          "%s: permission denied: give this user read and write permission on it "
                          "(chown, setfacl or a udev rule)",
                          UFFD_DEVICE_PATH);
    case -EPERM:
        return err_origin(
            neg_errno,
            "%s: not permitted: a device cgroup, seccomp filter or security module forbids it; "
            "allow the device in the container's or service's settings",
            UFFD_DEVICE_PATH);
    case -ENXIO:
    case -ENODEV:
    case -ENOTTY:
        return err_origin_errno(
            neg_errno,
            "%s is not the kernel's userfaultfd device: remove it and make it again with "
            "the minor number in /proc/misc",
            UFFD_DEVICE_PATH);
    default:
        return err_origin_errno(neg_errno, "%s", UFFD_DEVICE_PATH);
    }
}

/* The device does not exist and the system call said no. */
static int syscall_refused(int neg_errno)
{
    uint64_t unprivileged = 0;
    bool built_in = procfs_read_u64(UNPRIVILEGED_SYSCTL, &unprivileged) == 0;
    bool filtered = procfs_has_seccomp_filter();
    bool allowed = unprivileged == 1 || procfs_has_cap(CAP_SYS_PTRACE);

    if (neg_errno == -ENOSYS && !built_in)
        return err_origin(
            neg_errno,
            "this kernel has no userfaultfd: it needs one built with CONFIG_USERFAULTFD");
    if (neg_errno == -EPERM && !allowed)
        return err_origin(
            neg_errno,
            "no %s, and userfaultfd(2) is not permitted: make the device available (Linux 6.1 or "
            "later), or set vm.unprivileged_userfaultfd=1, or add CAP_SYS_PTRACE",
            UFFD_DEVICE_PATH);
    if (neg_errno == -EPERM || neg_errno == -EACCES || neg_errno == -ENOSYS)
        return err_origin(
            neg_errno,
            "no %s, and %s forbids userfaultfd(2) (%s): allow the call there, or make "
            "the device available",
            UFFD_DEVICE_PATH, filtered ? "a seccomp filter" : "a security module",
            strerrordesc_np(-neg_errno));
    return err_origin_errno(neg_errno, "userfaultfd(2)");
}

/* A userfaultfd before its UFFDIO_API, from whichever door is open. */
static int open_raw(int *fd_out, enum uffd_how *how)
{
    _cleanup_fd_ int device = -1;
    int fd;

    device = open(UFFD_DEVICE_PATH, O_RDWR | O_CLOEXEC);
    if (device >= 0) {
        fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
            return device_refused(-errno);
        *how = UFFD_BY_DEVICE;
    } else if (errno != ENOENT) {
        return device_refused(-errno);
    } else {
        fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
            return syscall_refused(-errno);
        *how = UFFD_BY_SYSCALL;
    }
    *fd_out = fd;
    return 0;
}

/* All that the kernel offers; *fd_out, if asked for, is a userfaultfd with no feature on. */
static int offered_features(uint64_t *features, enum uffd_how *how, int *fd_out)
{
    _cleanup_fd_ int fd = -1;
    struct uffdio_api api = {.api = UFFD_API};
    int r;

    r = open_raw(&fd, how);
    if (r < 0)
        return r;
    if (ioctl(fd, UFFDIO_API, &api) < 0)
        return err_origin_errno(-errno, "UFFDIO_API without features");
    *features = api.features;
    if (fd_out)
        *fd_out = TAKE_FD(fd);
    return 0;
}

static int api_refused(int neg_errno, uint64_t wanted)
{
    char names[256];
    uint64_t offered = 0;
    enum uffd_how how;
    int r;

    if (neg_errno == -EPERM && (wanted & UFFD_FEATURE_EVENT_FORK))
        return err_origin(neg_errno, "userfaultfd's EVENT_FORK needs CAP_SYS_PTRACE");
    if (neg_errno != -EINVAL)
        return err_origin_errno(neg_errno, "UFFDIO_API");
    r = offered_features(&offered, &how, NULL);
    if (r < 0)
        return r;
    if (!(wanted & ~offered))
        return err_origin_errno(neg_errno, "UFFDIO_API");
    uffd_features_text(wanted & ~offered, names, sizeof(names));
    return err_origin(-EOPNOTSUPP, "this kernel's userfaultfd lacks %s: a later kernel is needed",
                      names);
}

int uffd_open(uint64_t features, int *fd_out)
{
    _cleanup_fd_ int fd = -1;
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    enum uffd_how how;
    int r;

    r = open_raw(&fd, &how);
    if (r < 0)
        return r;
    if (ioctl(fd, UFFDIO_API, &api) < 0)
        return api_refused(-errno, features);
    *fd_out = TAKE_FD(fd);
    return 0;
}

static int register_range(int uffd, void *mem, size_t len, uint64_t mode, uint64_t *ioctls)
{
    struct uffdio_register reg = {
        .range = {.start = (uintptr_t)mem, .len = len},
        .mode = mode,
    };

    if (ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
        return -errno;
    *ioctls = reg.ioctls;
    return 0;
}

/*
 * Registers a mapping of one kind, with write tracking if that is accepted, and takes it away
 * again.
 */
static void probe_mapping(int uffd, size_t len, int map_flags, struct uffd_mapping *m)
{
    const uint64_t missing = UFFDIO_REGISTER_MODE_MISSING;
    const uint64_t both = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP;
    void *mem;

    *m = (struct uffd_mapping){0};
    mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | map_flags, -1, 0);
    if (mem == MAP_FAILED) {
        m->error = -errno;
        return;
    }
    if (register_range(uffd, mem, len, both, &m->ioctls) == 0) {
        m->modes = both;
    } else {
        m->error = register_range(uffd, mem, len, missing, &m->ioctls);
        if (m->error == 0)
            m->modes = missing;
    }
    (void)munmap(mem, len);
}

int uffd_probe(struct uffd_abilities *out)
{
    struct uffd_abilities a = {0};
    _cleanup_fd_ int fd = -1;
    int r;

    r = offered_features(&a.features, &a.how, &fd);
    if (r < 0)
        return r;
    probe_mapping(fd, (size_t)sysconf(_SC_PAGESIZE), 0, &a.anon);
    probe_mapping(fd, 2 * MIB, MAP_HUGETLB | MAP_HUGE_2MB, &a.hugetlb);
    *out = a;
    return 0;
}
