/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UFFD_INSTALL_H
#define UFFD_INSTALL_H

/*
 * install.h - putting pages into the VMM's memory, and waking who waits for them
 *
 * Each function is one ioctl. What the kernel said (errno and the result field, which kernels before 6.15 leave alone
 * when they refuse) becomes one outcome and the bytes that are done. Nobody else looks at a uffd errno.
 */

#include "core/event.h"

/* What /proc/PID/fd calls a userfaultfd. */
#define UFFD_LINK_NAME "anon_inode:[userfaultfd]"

/** struct install_result - what became of an ioctl */
struct install_result {
    enum outcome outcome;
    uint64_t bytes_done; /* from the start of the range; can be more than 0 with any outcome */
};

/**
 * uffd_copy() - install bytes and wake who waits for them
 * @dst: address in the VMM's memory, a multiple of the page size
 * @src: (borrow for the call) address in this process; only the kernel reads it
 * @len: bytes, a multiple of the page size
 * @arm: install write-protected
 */
struct install_result uffd_copy(int uffd, hva_t dst, const void *src, uint64_t len, bool arm);

/** uffd_zeropage() - install the kernel's shared zero page; 4 KiB mappings only, cannot be armed */
struct install_result uffd_zeropage(int uffd, hva_t dst, uint64_t len);

/** uffd_unprotect() - lift the write protection of installed pages and wake who waits */
struct install_result uffd_unprotect(int uffd, hva_t dst, uint64_t len);

/** uffd_wake() - wake who waits in the range: they try again, and may fault again */
struct install_result uffd_wake(int uffd, hva_t dst, uint64_t len);

/**
 * uffd_check_huge() - is the memory registered at @start made of huge pages?
 *
 * Asks for a copy of 4096 bytes from where nothing can be read: huge pages refuse the length, small ones the source. So
 * nothing is installed and nobody is woken. While the VMM discards memory it cannot be told, and is believed.
 * Return: 0 or a negative errno with a text.
 */
int uffd_check_huge(int uffd, hva_t start);

/**
 * uffd_track() - hear of writes, too: register a range again, for missing pages and write protection
 *
 * Works on a userfaultfd that another process set up without write protection (Linux 6.18, docs/decisions/0003).
 * Return: 0 or a negative errno with a text.
 */
int uffd_track(int uffd, hva_t start, uint64_t len);

/** uffd_unregister() - hear nothing more of a range; who waits there is woken and answered by the kernel */
struct install_result uffd_unregister(int uffd, hva_t start, uint64_t len);

/** uffd_is_one() - is @fd a userfaultfd? */
bool uffd_is_one(int fd);

/**
 * uffd_check() - is @fd a userfaultfd that a pager can work with? Its flags are looked at, never changed: the VMM
 * shares them.
 *
 * Return: 0 or -EINVAL with a text that says what it is and what was expected.
 */
int uffd_check(int fd);

#endif
