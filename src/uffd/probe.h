/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UFFD_PROBE_H
#define UFFD_PROBE_H

/*
 * probe.h - getting a userfaultfd, and asking the kernel what one can do here
 *
 * There are two doors. /dev/userfaultfd (Linux 6.1) is an ordinary device file: whoever may open it
 * gets the whole ability. The system call userfaultfd(2) is older and needs CAP_SYS_PTRACE or
 * vm.unprivileged_userfaultfd=1 for what a pager needs, faults raised by the kernel itself (KVM).
 * The system call is tried only where the device does not exist: if it exists and may not be
 * opened, somebody decided so, and the way out is another one than for a missing device.
 *
 * A userfaultfd belongs to the address space that opened it, so the VMM's half opens it and the
 * pager's half gets it.
 */

#include "base/base.h"

#define UFFD_DEVICE_PATH "/dev/userfaultfd"

/** enum uffd_how - through which door a userfaultfd comes */
enum uffd_how {
    UFFD_BY_NOTHING,
    UFFD_BY_DEVICE,  /* /dev/userfaultfd */
    UFFD_BY_SYSCALL, /* userfaultfd(2) */
};

/** struct uffd_mapping - what the kernel says when memory of one kind is registered */
struct uffd_mapping {
    int error;       /* 0, or the negative errno of mmap or UFFDIO_REGISTER with MISSING alone */
    uint64_t modes;  /* UFFDIO_REGISTER_MODE_MISSING, and _WP if both together are accepted */
    uint64_t ioctls; /* bit n: the ioctl numbered n in linux/userfaultfd.h (_UFFDIO_COPY, ...) */
};

/** struct uffd_abilities - what userfaultfd can do for this process on this host */
struct uffd_abilities {
    enum uffd_how how;
    uint64_t features; /* UFFD_FEATURE_* that the kernel offers */
    struct uffd_mapping anon;
    struct uffd_mapping hugetlb; /* 2 MiB pages; none needs to be free */
};

/**
 * uffd_open() - a userfaultfd over the calling process's memory, ready for UFFDIO_REGISTER
 * @features: UFFD_FEATURE_* to ask for; all or nothing
 * @fd_out:   (give) O_CLOEXEC and O_NONBLOCK; hears faults from user and kernel mode
 *
 * Return: 0 or a negative errno; the text (base/err.h) names what is missing and what to do about
 * it.
 * Errors: -EACCES, -EPERM, -ENOSYS, -ENOENT: not allowed or not there; -EOPNOTSUPP: the kernel
 * lacks one of @features; -EMFILE, -ENFILE, -ENOMEM.
 */
int uffd_open(uint64_t features, int *fd_out);

/**
 * uffd_probe() - find out what userfaultfd can do here
 * @out: set on success
 *
 * Maps and registers a little memory for a moment; touches none of it.
 *
 * Return: 0, or the negative errno and text of uffd_open() where there is no userfaultfd to be had.
 */
int uffd_probe(struct uffd_abilities *out);

/** uffd_has_ioctl() - is the ioctl numbered @nr (_UFFDIO_COPY, ...) in @m? */
static inline bool uffd_has_ioctl(const struct uffd_mapping *m, unsigned nr)
{
    return (m->ioctls & (1ull << nr)) != 0;
}

/** struct uffd_feature - one bit of UFFDIO_API's features */
struct uffd_feature {
    uint64_t bit;
    const char *name;  /* without UFFD_FEATURE_ */
    const char *since; /* the Linux version that brought it */
};

extern const struct uffd_feature uffd_features[];
extern const unsigned n_uffd_features;

/**
 * uffd_features_text() - the names of @features, separated by spaces; bits without a name as
 * numbers
 * @buf: NUL terminated; cut if it is too small
 * @len: size of @buf, bytes, not 0
 */
void uffd_features_text(uint64_t features, char *buf, size_t len);

#endif
