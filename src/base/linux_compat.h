/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LINUX_COMPAT_H
#define BASE_LINUX_COMPAT_H

/*
 * linux_compat.h - what the kernel's interface has and the C library's headers may lack
 *
 * Thaw builds with the headers of Linux 6.1 and runs on later kernels. Each constant stands here
 * with the kernel version that brought it; having the constant says nothing about the running
 * kernel (uffd/probe.h asks it).
 *
 * The numbers are part of the kernel's binary interface and never change. Those that Thaw depends
 * on are asserted at the end: a wrong number for UFFDIO_WAKE, for one, fails with EINVAL in a place
 * where nobody looks, and strands the thread that was to be woken.
 */

#include <assert.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

/* Features of userfaultfd: bits of struct uffdio_api.features */
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#    define UFFD_FEATURE_WP_UNPOPULATED \
        (1 << 13) /* 6.4: WRITEPROTECT holds for pages that are not there */
#endif
#ifndef UFFD_FEATURE_POISON
#    define UFFD_FEATURE_POISON (1 << 14) /* 6.6: UFFDIO_POISON */
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#    define UFFD_FEATURE_WP_ASYNC \
        (1 << 15) /* 6.7: the kernel resolves write-protect faults itself */
#endif
#ifndef UFFD_FEATURE_MOVE
#    define UFFD_FEATURE_MOVE (1 << 16) /* 6.8: UFFDIO_MOVE */
#endif

#ifndef UFFDIO_CONTINUE_MODE_WP
#    define UFFDIO_CONTINUE_MODE_WP ((__u64)1 << 1) /* 6.4 */
#endif

/* 6.6: a page whose access raises SIGBUS, as a memory error does */
#ifndef UFFDIO_POISON
#    define _UFFDIO_POISON              (0x08)
#    define UFFDIO_POISON_MODE_DONTWAKE ((__u64)1 << 0)
struct uffdio_poison {
    struct uffdio_range range;
    __u64 mode;
    __s64 updated; /* out: bytes, or a negative errno */
};
#    define UFFDIO_POISON _IOWR(UFFDIO, _UFFDIO_POISON, struct uffdio_poison)
#endif

/* 6.8: a page goes from one place of the caller's own address space to another */
#ifndef UFFDIO_MOVE
#    define _UFFDIO_MOVE                     (0x05)
#    define UFFDIO_MOVE_MODE_DONTWAKE        ((__u64)1 << 0)
#    define UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES ((__u64)1 << 1)
struct uffdio_move {
    __u64 dst;
    __u64 src;
    __u64 len;
    __u64 mode;
    __s64 move; /* out: bytes, or a negative errno */
};
#    define UFFDIO_MOVE _IOWR(UFFDIO, _UFFDIO_MOVE, struct uffdio_move)
#endif

/* 5.11: faults raised by the kernel (KVM, read(2)) are not delivered. Thaw never asks for it. */
#ifndef UFFD_USER_MODE_ONLY
#    define UFFD_USER_MODE_ONLY 1
#endif

/* 6.1: /dev/userfaultfd */
#ifndef USERFAULTFD_IOC
#    define USERFAULTFD_IOC     0xAA
#    define USERFAULTFD_IOC_NEW _IO(USERFAULTFD_IOC, 0x00)
#endif

#ifndef MADV_POPULATE_READ
#    define MADV_POPULATE_READ 22 /* 5.14 */
#endif
#ifndef MADV_POPULATE_WRITE
#    define MADV_POPULATE_WRITE 23 /* 5.14 */
#endif
#ifndef MADV_DONTNEED_LOCKED
#    define MADV_DONTNEED_LOCKED 24 /* 5.18 */
#endif
#ifndef MADV_COLLAPSE
#    define MADV_COLLAPSE 25 /* 6.1 */
#endif

#ifndef MAP_HUGE_SHIFT
#    define MAP_HUGE_SHIFT 26
#endif
#ifndef MAP_HUGE_2MB
#    define MAP_HUGE_2MB (21 << MAP_HUGE_SHIFT)
#endif

/* 6.5: a pidfd of the process that connected, with no window in which its pid is used again */
#ifndef SO_PEERPIDFD
#    define SO_PEERPIDFD 77
#endif

/*
 * The same numbers on every architecture that has the common system call table, x86-64 and aarch64
 * among them.
 */
#ifndef SYS_pidfd_send_signal
#    define SYS_pidfd_send_signal 424 /* 5.1 */
#endif
#ifndef SYS_pidfd_open
#    define SYS_pidfd_open 434 /* 5.3 */
#endif
#ifndef SYS_pidfd_getfd
#    define SYS_pidfd_getfd 438 /* 5.6 */
#endif
#ifndef SYS_process_madvise
#    define SYS_process_madvise 440 /* 5.10 */
#endif

#ifndef SYS_cachestat
#    define SYS_cachestat 451 /* 6.5: how much of a file is in the page cache */
#endif
/* cachestat(2)'s arguments, under our own names: the header that has them is not in the 6.1 headers */
struct compat_cachestat_range {
    __u64 off;
    __u64 len;
};
struct compat_cachestat {
    __u64 nr_cache; /* pages of 4 KiB */
    __u64 nr_dirty;
    __u64 nr_writeback;
    __u64 nr_evicted;
    __u64 nr_recently_evicted;
};

/* si_code of a SIGSYS that a seccomp filter raised; in the kernel's header, which does not go together with <signal.h> */
#ifndef SYS_SECCOMP
#    define SYS_SECCOMP 1
#endif

/* 5.13: a process takes rights to files away from itself */
#ifndef SYS_landlock_create_ruleset
#    define SYS_landlock_create_ruleset 444
#    define SYS_landlock_add_rule       445
#    define SYS_landlock_restrict_self  446
#endif
/* Landlock's interface, under our own names: the headers of 6.1 know its version 2 of 7 */
#define COMPAT_LANDLOCK_VERSION      1u /* flag of landlock_create_ruleset: which version is there? */
#define COMPAT_LANDLOCK_PATH_BENEATH 1
struct compat_landlock_ruleset {
    __u64 handled_fs;
    __u64 handled_net; /* version 4, Linux 6.7 */
    __u64 scoped;      /* version 6, Linux 6.12 */
};
struct compat_landlock_path {
    __u64 allowed;
    __s32 parent_fd;
} __attribute__((packed));
#define COMPAT_LANDLOCK_FS_WRITE_FILE       (1ull << 1)
#define COMPAT_LANDLOCK_FS_READ_FILE        (1ull << 2)
#define COMPAT_LANDLOCK_FS_REMOVE_FILE      (1ull << 5)
#define COMPAT_LANDLOCK_FS_MAKE_REG         (1ull << 8)
#define COMPAT_LANDLOCK_FS_ALL_1            ((1ull << 13) - 1) /* version 1 */
#define COMPAT_LANDLOCK_FS_REFER            (1ull << 13)       /* version 2, Linux 5.19 */
#define COMPAT_LANDLOCK_FS_TRUNCATE         (1ull << 14)       /* version 3, Linux 6.2 */
#define COMPAT_LANDLOCK_FS_IOCTL_DEV        (1ull << 15)       /* version 5, Linux 6.10 */
#define COMPAT_LANDLOCK_NET_ALL             3ull               /* TCP: bind and connect */
#define COMPAT_LANDLOCK_SCOPE_ABSTRACT_UNIX (1ull << 0)

static_assert(sizeof(struct uffd_msg) == 32, "kernel interface");
static_assert(USERFAULTFD_IOC_NEW == 0xaa00, "kernel interface");
static_assert(UFFDIO_API == 0xc018aa3f, "kernel interface");
static_assert(UFFDIO_REGISTER == 0xc020aa00, "kernel interface");
static_assert(UFFDIO_UNREGISTER == 0x8010aa01, "kernel interface");
static_assert(UFFDIO_WAKE == 0x8010aa02, "kernel interface");
static_assert(UFFDIO_COPY == 0xc028aa03, "kernel interface");
static_assert(UFFDIO_ZEROPAGE == 0xc020aa04, "kernel interface");
static_assert(UFFDIO_MOVE == 0xc028aa05, "kernel interface");
static_assert(UFFDIO_WRITEPROTECT == 0xc018aa06, "kernel interface");
static_assert(UFFDIO_CONTINUE == 0xc020aa07, "kernel interface");
static_assert(UFFDIO_POISON == 0xc020aa08, "kernel interface");
static_assert(UFFD_FEATURE_EVENT_REMOVE == 0x8, "kernel interface");
static_assert(UFFD_FEATURE_WP_UNPOPULATED == 0x2000, "kernel interface");
static_assert(UFFD_FEATURE_MOVE == 0x10000, "kernel interface");
static_assert(UFFDIO_COPY_MODE_WP == 0x2, "kernel interface");
static_assert(sizeof(struct compat_landlock_path) == 12, "kernel interface");

#endif
