/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UFFD_PEER_H
#define TESTS_UFFD_PEER_H

/*
 * uffd_peer.h - what a VMM does towards a pager, in the plainest way
 *
 * Shared by the fake VMM and by uffd_peer_main.c. Written from the kernel's manual pages alone and without any
 * of the library's code, so that a mistake there is not repeated here.
 */

#include <stddef.h>
#include <stdint.h>

#define PEER_EXIT_WRONG 1 /* a byte was not what it should have been */
#define PEER_EXIT_USAGE 2
#define PEER_EXIT_STUCK 3 /* the watchdog fired */
#define PEER_EXIT_ABSENT \
    4 /* this host has not what the test needs (userfaultfd, huge pages, ...) */

/** peer_die() - print one line (with errno's text when @err is not 0) and end the process with @code */
void peer_die(int code, int err, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 3, 4)));

/**
 * peer_uffd_new() - a userfaultfd that asked for EVENT_REMOVE; dies on error
 * @flags:    O_NONBLOCK or 0
 * @features: more UFFD_FEATURE_* to ask for; a VMM like Firecracker: 0
 *
 * Return: (give) the fd.
 */
int peer_uffd_new(int flags, uint64_t features);

/** peer_uffd_register() - register [@addr, @addr + @len_bytes) in mode MISSING; dies on error */
void peer_uffd_register(int uffd, void *addr, size_t len_bytes);

/** peer_connect() - connect to a unix stream socket. Return: (give) the fd or a negative errno */
int peer_connect(const char *path);

/**
 * peer_send() - send all of @bytes, the fds with the first of them
 *
 * Return: 0 or a negative errno. Never raises SIGPIPE.
 */
int peer_send(int sock, const void *bytes, size_t len_bytes, const int *fds, unsigned n_fds);

#endif
