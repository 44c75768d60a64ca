/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver_socket.c - connections to the sockets of a VM's folder
 *
 * A socket's address has room for 107 bytes, and folders of sandboxes may be deeper than that. So the socket's file is opened
 * and named by way of /proc/self/fd. A symbolic link in its place is not followed: a jailed VMM that went mad can put one there,
 * which leads to a socket of the host or of another VM.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "vmm/driver_private.h"

#define RETRY_NS (1000 * NS_PER_US)

int socket_connect(const char *folder, const char *name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    _cleanup_fd_ int dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    _cleanup_fd_ int file = -1;
    _cleanup_fd_ int fd = -1;

    if (dir < 0)
        return -errno;
    file = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0)
        return -errno;
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d", file);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /* A queue that is full is EAGAIN at once; there is no connection that is still being made. */
    if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
        return -errno;
    return TAKE_FD(fd);
}

/* may_come() - does an error of connect() pass once the VMM is ready? */
static bool may_come(int r)
{
    return r == -ENOENT || r == -ECONNREFUSED || r == -EAGAIN || r == -EINTR;
}

int vmm_connect(const struct vmm *vm, const char *name, uint64_t deadline_ns)
{
    for (;;) {
        bool gone =
            vmm_has_ended(vm); /* before the attempt: it may have answered and ended since */
        int fd = socket_connect(vm->root, name);

        if (fd >= 0)
            return fd;
        if (!may_come(fd))
            return err_origin_errno(fd, "cannot connect to %s/%s", vm->root, name);
        if (gone)
            return err_origin(-ECONNREFUSED, "nobody listens at %s/%s", vm->root, name);
        if (clock_left_ms(deadline_ns) == 0)
            return err_origin(-ETIMEDOUT, "%s does not listen at %s/%s in time", vmm_program(vm),
                              vm->root, name);
        clock_sleep_ns(RETRY_NS);
    }
}
