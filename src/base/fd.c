/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

/* #syscalls close */
int fd_close(int fd)
{
    int saved = errno;

    if (fd >= 0)
        (void)close(fd);
    errno = saved;
    return -1;
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

/* mkostemp() makes new files only, and nothing else is opened: what is there cannot be read */
/* #syscalls openat:2&O_ACCMODE|O_CREAT|O_EXCL=O_RDWR|O_CREAT|O_EXCL */
/* #syscalls fchmod rename renameat renameat2 unlink unlinkat */
int file_replace(const char *path, const char *text, size_t len)
{
    char temp[PATH_MAX];
    _cleanup_fd_ int fd = -1;
    int r;

    if (snprintf(temp, sizeof(temp), "%s.XXXXXX", path) >= (int)sizeof(temp))
        return err_origin(-ENAMETOOLONG, "file name %s is too long", path);
    fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return err_origin_errno(-errno, "cannot create a file beside %s", path);
    r = fd_write_all(fd, text, len);
    if (r == 0 && fchmod(fd, 0644) < 0)
        r = -errno;
    if (r == 0 && rename(temp, path) < 0)
        r = -errno;
    if (r < 0) {
        (void)unlink(temp);
        return err_origin_errno(r, "cannot write %s", path);
    }
    return 0;
}
