/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qmp.c - QEMU's control socket
 *
 * Commands carry a number, and only the answer with that number counts. Whatever else is a message with a meaning of its own
 * (an event) is skipped; what is no JSON object is an error, as the two sides cannot be in step then. A line that is longer
 * than any answer we ask for is one as well.
 *
 * A descriptor is handed over with the first byte of the command `getfd`, and belongs to this connection: QEMU closes it when
 * the connection ends, if no other command has taken it by then.
 */

#include "vmm/qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "vmm/child.h"

#define LINE_MAX_BYTES (1 * MIB)
#define READ_BYTES     4096u

struct qmp {
    int fd;
    uint64_t deadline_ns;
    json_int_t n_commands;
    char *buf;
    size_t len;  /* of what has come and was not taken yet */
    size_t size; /* of @buf */
};

struct qmp *qmp_free(struct qmp *qmp)
{
    if (!qmp)
        return NULL;
    (void)fd_close(qmp->fd);
    free(qmp->buf);
    free(qmp);
    return NULL;
}

static int gone(int neg_errno)
{
    if (neg_errno == -EPIPE || neg_errno == -ECONNRESET || neg_errno == 0)
        return err_origin(-ECONNRESET, "QEMU has closed its control socket");
    return err_origin_errno(neg_errno, "cannot talk to QEMU");
}

/* too_late() - Return: -ETIMEDOUT */
static int too_late(const char *what)
{
    return err_origin(-ETIMEDOUT, "QEMU was asked for %s and did not answer in time", what);
}

/* wait_ready() - until the socket can be read from or written to. @what: for the text */
static int wait_ready(const struct qmp *qmp, short events, const char *what)
{
    int r = fd_wait(qmp->fd, events, qmp->deadline_ns);

    if (r == -ETIMEDOUT)
        return too_late(what);
    return r < 0 ? gone(r) : 0;
}

/* ---- what QEMU says -------------------------------------------------------------------------------------------- */

static int make_room(struct qmp *qmp)
{
    size_t size = qmp->size ? qmp->size * 2 : READ_BYTES;
    char *buf;

    if (qmp->size - qmp->len >= READ_BYTES)
        return 0;
    if (size > LINE_MAX_BYTES)
        return err_origin(-EPROTO, "QEMU sent a line of more than %llu bytes", LINE_MAX_BYTES);
    buf = realloc(qmp->buf, size);
    if (!buf)
        return err_origin(-ENOMEM, "no memory for what QEMU says");
    qmp->buf = buf;
    qmp->size = size;
    return 0;
}

static int receive(struct qmp *qmp, const char *what)
{
    ssize_t n;
    int r = make_room(qmp);

    if (r == 0)
        r = wait_ready(qmp, POLLIN, what);
    if (r < 0)
        return r;
    n = recv(qmp->fd, qmp->buf + qmp->len, qmp->size - qmp->len, 0);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n <= 0)
        return gone(n < 0 ? -errno : 0);
    qmp->len += (size_t)n;
    return 0;
}

/* read_message() - the next line. @out: (give) an object */
static int read_message(struct qmp *qmp, const char *what, json_t **out)
{
    json_error_t error;
    char *end = NULL;
    json_t *message;
    int r;

    for (;;) {
        end = qmp->buf ? memchr(qmp->buf, '\n', qmp->len) : NULL;
        if (end)
            break;
        r = receive(qmp, what);
        if (r < 0)
            return r;
    }
    message = json_loadb(qmp->buf, (size_t)(end - qmp->buf), JSON_REJECT_DUPLICATES, &error);
    qmp->len -= (size_t)(end + 1 - qmp->buf);
    memmove(qmp->buf, end + 1, qmp->len);
    if (!json_is_object(message)) {
        json_decref(message);
        return err_origin(-EPROTO, "what QEMU says is no JSON object: %s", error.text);
    }
    *out = message;
    return 0;
}

/* ---- what QEMU is asked ---------------------------------------------------------------------------------------- */

/* send_line() - @fd: (borrow) goes with the first byte; -1: none */
static int send_line(const struct qmp *qmp, const char *line, size_t len, int fd, const char *what)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)line, .iov_len = len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
    }
    while (iov.iov_len > 0) {
        ssize_t n = sendmsg(qmp->fd, &msg, MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            int r = wait_ready(qmp, POLLOUT, what);

            if (r < 0)
                return r;
        } else if (n < 0 && errno != EINTR) {
            return gone(-errno);
        } else if (n > 0) {
            iov.iov_base = (char *)iov.iov_base + n;
            iov.iov_len -= (size_t)n;
            msg.msg_control = NULL; /* it went with the first byte */
            msg.msg_controllen = 0;
        }
    }
    return 0;
}

/* send_command() - @args: (take) */
static int send_command(struct qmp *qmp, const char *command, json_t *args, int fd)
{
    _cleanup_json_ json_t *message =
        json_pack("{s:s, s:o, s:I}", "execute", command, "arguments", args, "id", qmp->n_commands);
    char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
    size_t len;
    int r;

    if (!text)
        return err_origin(-ENOMEM, "no memory to ask QEMU for %s", command);
    len = strlen(text);
    text[len] = '\n'; /* in the place of the NUL */
    r = send_line(qmp, text, len + 1, fd, command);
    free(text);
    return r;
}

static int refused(const char *command, json_t *error)
{
    const char *desc = json_string_value(json_object_get(error, "desc"));
    const char *class = json_string_value(json_object_get(error, "class"));
    bool unknown = class && strcmp(class, "CommandNotFound") == 0;

    return err_origin(unknown ? -EOPNOTSUPP : -EIO, "QEMU refuses %s: %s", command,
                      desc ? desc : "it does not say why");
}

/* read_answer() - to the command that was sent last */
static int read_answer(struct qmp *qmp, const char *command, json_t **out)
{
    for (;;) {
        _cleanup_json_ json_t *message = NULL;
        json_t *id, *error;
        int r = read_message(qmp, command, &message);

        if (r < 0)
            return r;
        id = json_object_get(message, "id");
        error = json_object_get(message, "error");
        /* A command that QEMU could not even read is answered without its number. */
        if (!(json_is_integer(id) && json_integer_value(id) == qmp->n_commands) &&
            !(error && !id)) {
            if (clock_now_ns() < qmp->deadline_ns)
                continue;
            return too_late(command); /* one who never stops talking always has something to read */
        }
        if (error)
            return refused(command, error);
        if (out)
            *out = json_incref(json_object_get(message, "return"));
        return 0;
    }
}

static int execute(struct qmp *qmp, const char *command, json_t *args, int fd, json_t **out)
{
    int r;

    qmp->n_commands++;
    r = send_command(qmp, command, args, fd);
    return r < 0 ? r : read_answer(qmp, command, out);
}

int qmp_execute(struct qmp *qmp, const char *command, json_t *args, json_t **out)
{
    return execute(qmp, command, args ? args : json_object(), -1, out);
}

int qmp_give_fd(struct qmp *qmp, const char *name, int fd)
{
    assert(fd >= 0);
    return execute(qmp, "getfd", json_pack("{s:s}", "fdname", name), fd, NULL);
}

int qmp_new(struct qmp **out, int fd, uint64_t deadline_ns)
{
    _cleanup_(qmp_freep) struct qmp *qmp = calloc(1, sizeof(*qmp));
    _cleanup_json_ json_t *greeting = NULL;
    int r;

    if (!qmp) {
        (void)fd_close(fd);
        return err_origin(-ENOMEM, "no memory for a connection to QEMU");
    }
    qmp->fd = fd;
    qmp->deadline_ns = deadline_ns;
    r = read_message(qmp, "a greeting", &greeting);
    if (r < 0)
        return r;
    if (!json_object_get(greeting, "QMP"))
        return err_origin(-EPROTO, "what listens at the control socket is no QEMU");
    r = qmp_execute(qmp, "qmp_capabilities", NULL, NULL);
    if (r < 0)
        return r;
    *out = TAKE(qmp);
    return 0;
}
