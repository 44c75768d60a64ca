/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/fc_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/fd.h"

/* put_text() - Return: whether there was room */
PRINTF_LIKE(2, 3)
static bool put_text(struct fc_socket *s, const char *fmt, ...)
{
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(s->text, sizeof(s->text), fmt, args);
    va_end(args);
    if (n > 0 && (size_t)n < sizeof(s->text))
        return true;
    s->text[0] = '\0';
    return false;
}

/* find_file() - the file itself, whatever is put in its place afterwards */
static int find_file(struct fc_socket *s, const char *path)
{
    s->fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (s->fd < 0)
        return fc_socket_error(-errno, path);
    (void)put_text(s, "/proc/self/fd/%d", s->fd);
    return 0;
}

int fc_socket_find(struct fc_socket *s, const char *path)
{
    const char *name = strrchr(path, '/');

    if (s->text[0] != '\0')
        return 0;
    if (s->no_links)
        return find_file(s, path);
    if (put_text(s, "%s", path))
        return 0;
    if (name && name[1] != '\0') {
        s->fd = folder_open(path);
        if (s->fd < 0)
            return err_origin_errno(s->fd, "cannot open the folder of socket %s", path);
        if (put_text(s, "/proc/self/fd/%d%s", s->fd, name))
            return 0;
        fc_socket_forget(s);
    }
    return err_origin(-ENAMETOOLONG,
                      "the name of socket \"%s\" cannot be that of one: expected 1 to 80 bytes",
                      name ? name + 1 : path);
}

void fc_socket_forget(struct fc_socket *s)
{
    s->text[0] = '\0';
    s->fd = fd_close(s->fd);
}

int fc_socket_error(int neg_errno, const char *path)
{
    struct stat st;

    switch (neg_errno) {
    case -ENOENT:
        return err_origin(
            neg_errno, "there is no socket %s: Firecracker does not run, or has not got there yet",
            path);
    case -ECONNREFUSED:
        if (stat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
            return err_origin(neg_errno, "%s is no socket, expected that of a Firecracker", path);
        return err_origin(
            neg_errno, "nobody listens on socket %s: the Firecracker that made it has ended", path);
    case -EAGAIN:
        return err_origin(-ETIMEDOUT, "Firecracker does not accept connections on socket %s", path);
    default:
        return err_origin_errno(neg_errno, "cannot connect to socket %s", path);
    }
}
