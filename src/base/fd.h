/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_FD_H
#define BASE_FD_H

/* fd.h - owned file descriptors: -1 is none, closing keeps errno */

#include "base/base.h"

/** fd_close() - close @fd if it is one. Return: -1, to be stored where the fd was */
int fd_close(int fd);

static inline void fd_closep(int *fd)
{
    *fd = fd_close(*fd);
}

#define _cleanup_fd_ _cleanup_(fd_closep)

/**
 * fd_lock() - flock(2), waiting for whoever has the lock
 * @how:         LOCK_SH or LOCK_EX
 * @deadline_ns: of clock_now_ns(); it is tried once in any case
 *
 * Return: 0; -EWOULDBLOCK: somebody still has it; another negative errno (no text)
 */
int fd_lock(int fd, int how, uint64_t deadline_ns);

/** fd_write_all() - write all of @buf; retries short writes and EINTR. Return: 0 or a negative errno (no text) */
int fd_write_all(int fd, const void *buf, size_t len);

/**
 * file_may_replace() - is @path a regular file, or nothing yet? A device or a folder is not to be replaced by a file
 *
 * Return: 0, or -EINVAL with a text.
 */
int file_may_replace(const char *path);

/**
 * file_replace() - put @text into the file @path so that readers see all of it or the old content
 *
 * Writes a temporary file in the same folder and renames it. Return: 0 or a negative errno with a text.
 */
int file_replace(const char *path, const char *text, size_t len);

/** file_remove() - what is not there is no error. Return: 0 or a negative errno with a text */
int file_remove(const char *path);

/**
 * folder_sync() - what names the folder @fd has survives a crash of the host
 *
 * Some file systems have no fsync(2) for a folder (EINVAL): they keep names as they do, and nobody can ask for more, so that is
 * no error. It is one for a file: its bytes are promised to be on disk. Return: 0 or a negative errno (no text)
 */
int folder_sync(int fd);

/** folder_open() - the folder of the file @path, for reading. Return: the fd (give) or a negative errno (no text) */
int folder_open(const char *path);

/**
 * file_replace_durable() - the same, and after it the content survives a crash of the host
 * @dir_fd: (borrow) the folder of @path, open for reading; -1: it is opened here, which a confined process may not do
 *
 * Waits for the disk. On an error the old content is there and nothing else; only when it is the folder that could not be
 * written to the disk, the new content is, whole, and may be lost with the host.
 *
 * Return: 0 or a negative errno with a text.
 */
int file_replace_durable(const char *path, const void *bytes, size_t len, int dir_fd);

#endif
