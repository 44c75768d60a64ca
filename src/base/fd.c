/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"

#define LOCK_NAP_NS (5 * NS_PER_MS)

/* #syscalls:all close */
int fd_close(int fd)
{
    int saved = errno;

    if (fd >= 0)
        (void)close(fd);
    errno = saved;
    return -1;
}

/* #syscalls:start flock clock_nanosleep */
int fd_lock(int fd, int how, uint64_t deadline_ns)
{
    while (flock(fd, how | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK || clock_now_ns() >= deadline_ns)
            return -errno;
        clock_sleep_ns(LOCK_NAP_NS);
    }
    return 0;
}

/* #syscalls write */
int fd_write_all(int fd, const void *buf, size_t len)
{
    const char *p = buf;

    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* #syscalls fsync */
static int sync_fd(int fd)
{
    return fsync(fd) < 0 ? -errno : 0;
}

int folder_sync(int fd)
{
    int r = sync_fd(fd);

    return r == -EINVAL ? 0 : r;
}

/* #syscalls:start newfstatat stat */
int file_may_replace(const char *path)
{
    struct stat st;

    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return err_origin(-EINVAL, "%s is there and is not a regular file", path);
    return 0;
}

/* mkostemp() makes new files only, and nothing else is opened: what is there cannot be read */
/* #syscalls openat:2&O_ACCMODE|O_CREAT|O_EXCL=O_RDWR|O_CREAT|O_EXCL */
/* #syscalls fchmod rename renameat renameat2 unlink unlinkat */
static int replace(const char *path, const void *bytes, size_t len, bool durable)
{
    char temp[PATH_MAX];
    _cleanup_fd_ int fd = -1;
    int r;

    if (snprintf(temp, sizeof(temp), "%s.XXXXXX", path) >= (int)sizeof(temp))
        return err_origin(-ENAMETOOLONG, "file name %s is too long", path);
    fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return err_origin_errno(-errno, "cannot create a file beside %s", path);
    r = fd_write_all(fd, bytes, len);
    if (r == 0 && fchmod(fd, 0644) < 0)
        r = -errno;
    if (r == 0 && durable)
        r = sync_fd(fd);
    if (r == 0 && rename(temp, path) < 0)
        r = -errno;
    if (r < 0) {
        (void)unlink(temp);
        return err_origin_errno(r, "cannot write %s", path);
    }
    return 0;
}

int file_replace(const char *path, const char *text, size_t len)
{
    return replace(path, text, len, false);
}

int file_remove(const char *path)
{
    return unlink(path) < 0 && errno != ENOENT ? err_origin_errno(-errno, "cannot remove %s", path)
                                               : 0;
}

/* #syscalls:start openat open */
int folder_open(const char *path)
{
    const char *slash = strrchr(path, '/');
    char folder[PATH_MAX] = ".";
    int fd;

    if (slash && (size_t)(slash - path) + 1 >= sizeof(folder))
        return -ENAMETOOLONG;
    if (slash) {
        memcpy(folder, path,
               (size_t)(slash - path) + 1); /* with the slash: of "/file" it is all there is */
        folder[slash - path + 1] = '\0';
    }
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int file_replace_durable(const char *path, const void *bytes, size_t len, int dir_fd)
{
    _cleanup_fd_ int opened = -1;
    int r;

    if (dir_fd < 0) {
        opened = folder_open(path);
        if (opened < 0)
            return err_origin_errno(opened, "cannot open the folder of %s", path);
        dir_fd = opened;
    }
    r = replace(path, bytes, len, true);
    if (r < 0)
        return r;
    r = folder_sync(dir_fd);
    if (r < 0)
        return err_origin_errno(r, "%s is written, its folder is not", path);
    return 0;
}
