/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_PROCFS_H
#define BASE_PROCFS_H

/*
 * procfs.h - small facts out of /proc and /sys
 *
 * For start-up and diagnosis, never for the fault path: each call opens and reads a file. No error
 * texts are made: the caller knows what a missing file means.
 */

#include "base/base.h"

/**
 * procfs_read() - the first line of a small file, without its newline
 * @path: a file below /proc or /sys
 * @buf:  NUL terminated on success; longer lines are cut
 * @len:  size of @buf, bytes
 *
 * Return: 0 or a negative errno (no text).
 */
int procfs_read(const char *path, char *buf, size_t len);

/**
 * procfs_read_u64() - the number that a small file begins with. Return: 0, -EINVAL (no number) or a
 * negative errno
 */
int procfs_read_u64(const char *path, uint64_t *value);

/**
 * procfs_field_u64() - a number from a file of "Name:   value" lines (/proc/self/status,
 * /proc/meminfo)
 * @path:  the file
 * @name:  without the colon
 * @base:  10, or 16 for capability sets
 * @value: set on success
 *
 * Return: 0, -ENOENT (no such field), -EINVAL (no number) or a negative errno (no text).
 */
int procfs_field_u64(const char *path, const char *name, int base, uint64_t *value);

/**
 * procfs_start_ticks() - when process @pid began, in clock ticks since the machine did (proc(5), /proc/PID/stat):
 * together with its number it names a process for ever
 *
 * Return: 0, -EINVAL (not the file that is documented) or a negative errno (no text).
 */
int procfs_start_ticks(int pid, uint64_t *ticks);

/**
 * procfs_has_cap() - does this process hold capability @cap (CAP_*) in its effective set, in the
 * first user namespace?
 */
bool procfs_has_cap(unsigned cap);

/**
 * procfs_in_user_namespace() - is this process in a user namespace of its own, where capabilities
 * reach less far?
 */
bool procfs_in_user_namespace(void);

/** procfs_has_seccomp_filter() - does a seccomp filter judge this process's system calls? */
bool procfs_has_seccomp_filter(void);

#endif
