/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver_vsock.c - from the host to a port of the guest
 *
 * Firecracker's vsock device is a unix socket on the host (docs/vsock.md there). Whoever connects says `CONNECT PORT` in a line
 * and is answered `OK NUMBER` once the guest has accepted; if nobody listens at that port the connection is closed. After
 * that line it is a stream between the two. Connections do not outlive a snapshot, listening sockets of the guest do.
 */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "vmm/driver_private.h"

#define ANSWER_MAX 32u /* "OK 4294967295\n" has 14 */

/* read_line() - byte by byte: what comes after it is for somebody else. Return: as fd_wait(); -ECONNREFUSED: there is none */
static int read_line(int fd, uint64_t deadline_ns, char line[static ANSWER_MAX])
{
    size_t len = 0;

    while (len < ANSWER_MAX - 1) {
        int r = fd_wait(fd, POLLIN, deadline_ns);
        ssize_t n = r < 0 ? r : recv(fd, line + len, 1, 0);

        if (r < 0)
            return r;
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return -ECONNREFUSED;
        if (line[len] == '\n')
            break;
        len++;
    }
    line[len] = '\0';
    return 0;
}

/* ask() - to be connected to the port. Return: 0; -ECONNREFUSED, -EPROTO or another negative errno (no text) */
static int ask(int fd, unsigned port, uint64_t deadline_ns)
{
    char line[ANSWER_MAX];
    int len = snprintf(line, sizeof(line), "CONNECT %u\n", port);
    int r;

    /* A new connection has room for so little. */
    if (send(fd, line, (size_t)len, MSG_NOSIGNAL) != len)
        return -ECONNREFUSED;
    r = read_line(fd, deadline_ns, line);
    if (r < 0)
        return r;
    return strncmp(line, "OK ", 3) == 0 ? 0 : -EPROTO;
}

int vmm_vsock_connect(const struct vmm *vm, unsigned port, unsigned timeout_ms)
{
    uint64_t deadline_ns = clock_now_ns() + timeout_ms * NS_PER_MS;
    _cleanup_fd_ int fd = -1;
    int r;

    if (!vm->spec.vsock)
        return err_origin(-EOPNOTSUPP, "the VM in %s has no vsock", vm->folder);
    fd = socket_connect(vm->root, VMM_FILE_VSOCK);
    if (fd < 0)
        return err_origin_errno(fd, "cannot connect to %s/%s", vm->root, VMM_FILE_VSOCK);
    r = ask(fd, port, deadline_ns);
    if (r == 0)
        return TAKE_FD(fd);
    if (r == -ECONNREFUSED)
        return err_origin(r, "nobody in the guest listens at vsock port %u", port);
    if (r == -ETIMEDOUT)
        return err_origin(r, "nobody in the guest has answered at vsock port %u within %u ms", port,
                          timeout_ms);
    return err_origin_errno(r, "cannot connect to vsock port %u of the guest", port);
}
