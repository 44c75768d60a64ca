/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qemu_migrate.c - the devices' state as a migration
 *
 * QEMU writes its state into a socket, one end of which it is given through QMP, and reads it from there. This process moves
 * the bytes between the socket and the file. That needs no shell (`exec:`), works with every QEMU there is (a plain file as
 * `fd:` is deprecated from 9.1 on, `file:` is not there before 8.2), and who writes the file knows whether it could be written.
 *
 * RAM is left out because it is shared memory to QEMU (x-ignore-shared). So the stream is small, whatever the guest has.
 */

#include "vmm/qemu_migrate.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "vmm/child.h"

#define PIECE_BYTES (64 * KIB)
#define FD_NAME     "thaw-state"
#define POLL_NS     (1000 * NS_PER_US)

/* open_line() - a socket whose other end QEMU has, and the capability. Return: fd (give), non-blocking, or -errno with a text */
static int open_line(struct qmp *qmp)
{
    json_t *list =
        json_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", "x-ignore-shared", "state", 1);
    _cleanup_fd_ int ours = -1, theirs = -1;
    int ends[2];
    int r = qmp_execute(qmp, "migrate-set-capabilities", list, NULL);

    if (r < 0)
        return r;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return err_origin_errno(-errno, "cannot make a connection for QEMU's state");
    ours = ends[0];
    theirs = ends[1];
    r = qmp_give_fd(qmp, FD_NAME, theirs);
    if (r < 0)
        return r;
    if (fcntl(ours, F_SETFL, O_NONBLOCK) < 0)
        return err_origin_errno(-errno, "cannot set up a connection for QEMU's state");
    return TAKE_FD(ours);
}

static int wait_for(int fd, short events, uint64_t deadline_ns, const char *what)
{
    int r = fd_wait(fd, events, deadline_ns);

    if (r == -ETIMEDOUT)
        return err_origin(r, "QEMU did not %s its state in time", what);
    return r < 0 ? err_origin_errno(r, "cannot wait for QEMU") : 0;
}

/* status() - of a migration: 0 going on, 1 complete; or a negative errno with a text */
static int status(struct qmp *qmp)
{
    _cleanup_json_ json_t *answer = NULL;
    const char *word, *desc;
    int r = qmp_execute(qmp, "query-migrate", NULL, &answer);

    if (r < 0)
        return r;
    word = json_string_value(json_object_get(answer, "status"));
    desc = json_string_value(json_object_get(answer, "error-desc"));
    if (word && strcmp(word, "completed") == 0)
        return 1;
    if (word && (strcmp(word, "failed") == 0 || strcmp(word, "cancelled") == 0))
        return err_origin(-EIO, "QEMU's migration %s: %s", word,
                          desc ? desc : "its log may say why");
    return 0;
}

static int wait_completed(struct qmp *qmp, uint64_t deadline_ns, const char *what)
{
    for (;;) {
        int r = status(qmp);

        if (r != 0)
            return r < 0 ? r : 0;
        if (clock_left_ms(deadline_ns) == 0)
            return err_origin(-ETIMEDOUT, "QEMU did not %s its state in time", what);
        clock_sleep_ns(POLL_NS);
    }
}

/* ---- out ------------------------------------------------------------------------------------------------------- */

/* receive_all() - until QEMU closes its end */
static int receive_all(int line, int file, const char *path, uint64_t deadline_ns)
{
    char piece[PIECE_BYTES];

    for (;;) {
        ssize_t n;
        int r = wait_for(line, POLLIN, deadline_ns, "save");

        if (r == 0 && clock_left_ms(deadline_ns) == 0) /* a state without end is always ready */
            r = err_origin(-ETIMEDOUT, "QEMU did not save its state in time");
        if (r < 0)
            return r;
        n = recv(line, piece, sizeof(piece), 0);
        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return err_origin_errno(-errno, "cannot read QEMU's state");
        r = n > 0 ? fd_write_all(file, piece, (size_t)n) : 0;
        if (r < 0)
            return err_origin_errno(r, "cannot write %s", path);
    }
}

static int save(struct qmp *qmp, int file, const char *path, uint64_t deadline_ns)
{
    _cleanup_fd_ int line = open_line(qmp);
    int r;

    if (line < 0)
        return line;
    r = qmp_execute(qmp, "migrate", json_pack("{s:s}", "uri", "fd:" FD_NAME), NULL);
    if (r == 0)
        r = receive_all(line, file, path, deadline_ns);
    return r < 0 ? r : wait_completed(qmp, deadline_ns, "save");
}

int qemu_save(struct qmp *qmp, const char *path, uint64_t deadline_ns)
{
    char part[PATH_MAX];
    _cleanup_fd_ int file = -1;
    int r;

    if (snprintf(part, sizeof(part), "%s.part", path) >= (int)sizeof(part))
        return err_origin(-ENAMETOOLONG, "file name %s is too long", path);
    file = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (file < 0)
        return err_origin_errno(-errno, "cannot create %s", part);
    r = save(qmp, file, path, deadline_ns);
    if (r == 0 && rename(part, path) < 0)
        r = err_origin_errno(-errno, "cannot write %s", path);
    if (r < 0) {
        (void)unlink(part);
        (void)unlink(path);
    }
    return r;
}

/* ---- in -------------------------------------------------------------------------------------------------------- */

/* send_piece() - Return: 0; -EPIPE if QEMU has had enough; another negative errno with a text */
static int send_piece(int line, const char *piece, size_t len, uint64_t deadline_ns)
{
    while (len > 0) {
        ssize_t n = send(line, piece, len, MSG_NOSIGNAL);
        int r = 0;

        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
            return err_origin(-EPIPE, "QEMU cannot load the state that it was given");
        if (n < 0 && errno == EAGAIN)
            r = wait_for(line, POLLOUT, deadline_ns, "load");
        else if (n < 0 && errno != EINTR)
            r = err_origin_errno(-errno, "cannot give QEMU its state");
        if (r < 0)
            return r;
        if (n > 0) {
            piece += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int send_all(int line, int file, const char *path, uint64_t deadline_ns)
{
    char piece[PIECE_BYTES];
    ssize_t n;
    int r;

    while ((n = read(file, piece, sizeof(piece))) > 0) {
        r = send_piece(line, piece, (size_t)n, deadline_ns);
        if (r < 0)
            return r;
    }
    return n < 0 ? err_origin_errno(-errno, "cannot read %s", path) : 0;
}

int qemu_load(struct qmp *qmp, const char *path, uint64_t deadline_ns)
{
    _cleanup_fd_ int file = open(path, O_RDONLY | O_CLOEXEC);
    _cleanup_fd_ int line = -1;
    int r;

    if (file < 0)
        return err_origin_errno(-errno, "cannot read %s", path);
    line = open_line(qmp);
    if (line < 0)
        return line;
    r = qmp_execute(qmp, "migrate-incoming", json_pack("{s:s}", "uri", "fd:" FD_NAME), NULL);
    if (r == 0)
        r = send_all(line, file, path, deadline_ns);
    (void)fd_close(TAKE_FD(line)); /* the end of a state that is too short must be seen as such */
    return r < 0 ? r : wait_completed(qmp, deadline_ns, "load");
}
