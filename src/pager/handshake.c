/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/handshake.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "pager/regions_json.h"
#include "uffd/install.h"

#define CHUNK_BYTES 16384
#define MAX_FDS     16 /* more than this in one message is cut off by the kernel, and refused */

/* struct message - what has arrived so far */
struct message {
    char *text; /* owned */
    size_t len;
    size_t room;
    struct json_span span;
    unsigned n_fds; /* how many descriptors came */
    int fd;         /* owned: one of them, see keep_fd(); -1: none */
    bool lost_fds;  /* the kernel had more of them than we could take */
};

/* ---- the socket ----------------------------------------------------------------------------------------------- */

/* Asked with a socket of another type: a connection that succeeded would use up the other pager's one. */
static int is_socket_in_use(const struct sockaddr_un *addr)
{
    _cleanup_fd_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    return fd >= 0 &&
           (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EPROTOTYPE);
}

/* remove_stale() - a socket that nobody listens on is in the way after a crash; anything else stays */
static int remove_stale(const char *path, const struct sockaddr_un *addr)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : err_origin_errno(-errno, "cannot look at socket %s", path);
    if (!S_ISSOCK(st.st_mode))
        return err_origin(-EEXIST, "%s exists and is no socket", path);
    if (is_socket_in_use(addr))
        return err_origin(-EADDRINUSE, "socket %s is in use by another process", path);
    if (unlink(path) < 0)
        return err_origin_errno(-errno, "cannot remove the stale socket %s", path);
    return 0;
}

/* #syscalls:start socket bind listen lstat newfstatat unlink unlinkat connect */
int handshake_listen(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    _cleanup_fd_ int fd = -1;
    int r;

    if (strlen(path) == 0 || strlen(path) >= sizeof(addr.sun_path))
        return err_origin(-ENAMETOOLONG, "socket path %s has %zu bytes, expected 1 to %zu", path,
                          strlen(path), sizeof(addr.sun_path) - 1);
    strcpy(addr.sun_path, path); /* NOLINT: the length was checked */
    r = remove_stale(path, &addr);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_origin_errno(-errno, "cannot make a socket");
    if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return err_origin_errno(-errno, "cannot create socket %s", path);
    if (listen(fd, 1) < 0) {
        r = -errno;
        (void)unlink(path);
        return err_origin_errno(r, "cannot listen on socket %s", path);
    }
    return TAKE_FD(fd);
}

/* ---- waiting -------------------------------------------------------------------------------------------------- */

/*
 * wait_for() - until @fd has something, a stop is asked for, or the time is up (deadline 0: no limit)
 *
 * What has come goes before a stop: it may be a VMM's memory, which nobody but us can stop the VMM for.
 * Return: 0, HANDSHAKE_E_STOPPED, -ETIMEDOUT (without a text).
 */
/* #syscalls:start poll ppoll */
static int wait_for(int fd, struct control *control, uint64_t deadline_ns)
{
    for (;;) {
        struct pollfd fds[] = {
            {.fd = fd, .events = POLLIN},
            {.fd = control->fd, .events = POLLIN},
        };
        uint64_t now_ns = clock_now_ns();
        int timeout_ms = -1;

        if (deadline_ns != 0) {
            if (now_ns >= deadline_ns)
                return -ETIMEDOUT;
            timeout_ms = (int)((deadline_ns - now_ns) / NS_PER_MS) + 1;
        }
        if (poll(fds, ARRAY_LEN(fds), timeout_ms) < 0 && errno != EINTR)
            return err_origin_errno(-errno, "cannot wait for the VMM");
        if (fds[0].revents != 0)
            return 0;
        if (fds[1].revents != 0 && control_has(control_take(control), THAW_REQUEST_STOP))
            return HANDSHAKE_E_STOPPED;
    }
}

/* ---- the message ---------------------------------------------------------------------------------------------- */

static int append(struct message *m, const char *bytes, size_t len)
{
    if (m->len + len > REGIONS_TEXT_MAX)
        return err_origin(-EMSGSIZE, "handshake: the message is longer than %llu bytes",
                          REGIONS_TEXT_MAX);
    if (m->len + len > m->room) {
        size_t room = max_u64(m->room * 2, m->len + len);
        char *text = realloc(m->text, room);

        if (!text)
            return err_origin_errno(-ENOMEM, "handshake: cannot keep the message");
        m->text = text;
        m->room = room;
    }
    memcpy(m->text + m->len, bytes, len);
    m->len += len;
    return 0;
}

static int take_text(struct message *m, const char *bytes, size_t len)
{
    size_t used = 0;
    int r = json_span_feed(&m->span, bytes, len, &used);

    if (r == JSON_SPAN_E_NOT_ARRAY)
        return err_origin(-EINVAL,
                          "handshake: the message does not begin with '[', expected a JSON array");
    r = append(m, bytes, used);
    while (used < len && strchr(" \t\r\n", bytes[used]) && bytes[used] != '\0')
        used++; /* the end of a line, of whoever ends one */
    if (r == 0 && used < len)
        return err_origin(-EINVAL, "handshake: %zu bytes follow the JSON array, expected none",
                          len - used);
    return r;
}

/* keep_fd() - one more descriptor came. One is kept: a userfaultfd if there is one, which decides about the VMM's life */
static void keep_fd(struct message *m, int fd)
{
    if (m->n_fds++ > 0 && (uffd_is_one(m->fd) || !uffd_is_one(fd))) {
        (void)fd_close(fd);
        return;
    }
    (void)fd_close(m->fd);
    m->fd = fd;
}

/* take_fds() - keep one descriptor, close all others, count them */
static void take_fds(struct message *m, struct msghdr *msg)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        size_t n;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            keep_fd(m, fd);
        }
    }
}

/* receive_bytes() - one recvmsg; descriptors that came are taken. Return: as recvmsg */
/* #syscalls:start recvmsg */
static ssize_t receive_bytes(struct message *m, int socket, char bytes[CHUNK_BYTES])
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(MAX_FDS * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = bytes, .iov_len = CHUNK_BYTES};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.buf,
        .msg_controllen = sizeof(control.buf),
    };
    ssize_t n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

    if (n < 0)
        return n;
    take_fds(m, &msg);
    m->lost_fds |= (msg.msg_flags & MSG_CTRUNC) != 0;
    return n;
}

/* receive_some() - one piece of the message. Return: 1 more is to come, 0 the message is whole, < 0 with a text */
static int receive_some(struct message *m, int socket)
{
    char bytes[CHUNK_BYTES];
    ssize_t n = receive_bytes(m, socket, bytes);
    int r;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 1;
    if (n < 0)
        return err_origin_errno(-errno, "handshake: cannot receive");
    if (m->lost_fds && m->n_fds < MAX_FDS)
        return err_origin(-EMFILE, "handshake: a file descriptor came and this process can have no "
                                   "more of them (see RLIMIT_NOFILE)");
    if (m->lost_fds)
        return err_origin(-EINVAL, "handshake: more than %d file descriptors, expected one",
                          MAX_FDS);
    if (n == 0 && m->len == 0)
        return err_origin(-ECONNRESET,
                          "handshake: the VMM closed the connection before it sent anything");
    if (n == 0)
        return err_origin(-ECONNRESET,
                          "handshake: the VMM closed the connection in the middle of the message, "
                          "after %zu bytes",
                          m->len);
    r = take_text(m, bytes, (size_t)n);
    return r < 0 ? r : !m->span.done;
}

/* last_look() - let nothing more in, and take what came: a userfaultfd among it decides about the VMM's life */
/* #syscalls:start shutdown */
static void last_look(struct message *m, int socket)
{
    char bytes[CHUNK_BYTES];
    ssize_t n;

    (void)shutdown(socket, SHUT_RD);
    do {
        n = receive_bytes(m, socket, bytes);
    } while (n > 0 || (n < 0 && errno == EINTR));
}

static int receive_message(struct message *m, int socket, struct control *control,
                           unsigned timeout_ms)
{
    uint64_t deadline_ns = clock_now_ns() + timeout_ms * NS_PER_MS;
    int r;

    do {
        r = wait_for(socket, control, deadline_ns);
        if (r == -ETIMEDOUT)
            return err_origin(r, "handshake: not whole after %u ms (%zu bytes came)", timeout_ms,
                              m->len);
        if (r != 0)
            return r;
        r = receive_some(m, socket);
    } while (r > 0);
    if (r < 0)
        return r;
    if (m->n_fds != 1)
        return err_origin(
            -EINVAL,
            "handshake: %u file descriptors came with the message, expected one, the userfaultfd",
            m->n_fds);
    return uffd_check(m->fd);
}

/* ---- what it says --------------------------------------------------------------------------------------------- */

static int check_page_bytes(struct regions *r, uint64_t wanted)
{
    if (wanted == 0)
        return 0;
    if (r->page_bytes_said && r->page_bytes != wanted)
        return err_origin(
            -EINVAL, "handshake: the VMM's pages have %" PRIu64 " bytes, --page-size says %" PRIu64,
            r->page_bytes, wanted);
    r->page_bytes = wanted;
    return 0;
}

static int geom_error(int e, hva_t bad, uint64_t page_bytes)
{
    switch (e) {
    case GEOM_E_UNALIGNED:
        return err_origin(-EINVAL,
                          "handshake: address, size or offset of the region at 0x%" PRIx64
                          " is 0 long or no multiple of the page size, %" PRIu64,
                          bad, page_bytes);
    case GEOM_E_OVERLAP_MEMORY:
        return err_origin(
            -EINVAL, "handshake: the region at 0x%" PRIx64 " overlaps another one in memory", bad);
    case GEOM_E_OVERLAP_IMAGE:
        return err_origin(
            -EINVAL,
            "handshake: the region at 0x%" PRIx64 " overlaps another one in the memory file", bad);
    default:
        return err_origin(-EINVAL, "handshake: the region at 0x%" PRIx64 " reaches beyond 64 bits",
                          bad);
    }
}

static int check_regions(struct handshake *out, struct regions *regions,
                         const struct handshake_options *opts)
{
    const struct geom_region *last;
    hva_t bad;
    int r;

    r = check_page_bytes(regions, opts->page_bytes);
    if (r < 0)
        return r;
    r = geom_init(&out->geom, regions->list, regions->n, regions->page_bytes == 2 * MIB ? 21 : 12,
                  &bad);
    if (r != 0)
        return geom_error(r, bad, regions->page_bytes);
    last = &regions->list[regions->n - 1];
    if (last->imgoff + last->len_bytes != opts->memory_bytes)
        return err_origin(-EINVAL,
                          "handshake: the VMM's memory ends at offset %" PRIu64
                          ", the memory file has %" PRIu64 " bytes: it is another VM's",
                          last->imgoff + last->len_bytes, opts->memory_bytes);
    out->regions = TAKE(regions->list);
    return 0;
}

/* check_huge() - pages said to be huge are. Taken for what they are not, a discard of one would be taken for nothing */
static int check_huge(const struct handshake *h)
{
    int r = 0;

    for (unsigned i = 0; i < h->geom.n_regions && r == 0; i++)
        r = uffd_check_huge(h->uffd, h->geom.regions[i].hva);
    return r;
}

static int check_uid(const struct peer *peer, const struct handshake_options *opts)
{
    if (opts->n_allow_uids == 0 && (peer->uid == 0 || peer->uid == geteuid()))
        return 0;
    for (unsigned i = 0; i < opts->n_allow_uids; i++) {
        if (opts->allow_uids[i] == peer->uid)
            return 0;
    }
    return err_origin(
        -EACCES,
        "handshake: process %d of user %u connected, which is not allowed (see --allow-uid)",
        peer->pid, peer->uid);
}

static int take_handshake(struct handshake *out, struct message *m, struct control *control,
                          const struct handshake_options *opts)
{
    struct regions regions;
    int r = receive_message(m, out->socket, control, opts->timeout_ms);

    if (r != 0)
        last_look(m, out->socket);
    /* Whatever is wrong with the message: with a userfaultfd, the VMM has given its memory away. */
    if (m->fd >= 0 && uffd_is_one(m->fd))
        out->uffd = TAKE_FD(m->fd);
    out->given = out->uffd >= 0 || m->lost_fds;
    if (r != 0)
        return r;
    r = regions_parse(&regions, m->text, m->len);
    if (r < 0)
        return r;
    r = check_regions(out, &regions, opts);
    regions_deinit(&regions);
    if (r == 0 && geom_page_bytes(&out->geom) == 2 * MIB)
        r = check_huge(out);
    return r;
}

/* accept_connection() - wait for a VMM to connect. Return: 0, HANDSHAKE_E_STOPPED, or a negative errno with a text */
/* #syscalls:start accept4 shutdown */
static int accept_connection(struct handshake *out, int listener, struct control *control)
{
    int r;

    do {
        r = wait_for(listener, control, 0);
        if (r < 0)
            return r;
        if (r == HANDSHAKE_E_STOPPED)
            (void)shutdown(listener, SHUT_RD); /* nobody else; but somebody may be there already */
        out->socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    } while (r == 0 && out->socket < 0 &&
             (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED));
    if (out->socket < 0 && r == 0)
        return err_origin_errno(-errno, "cannot accept the VMM's connection");
    return r;
}

int handshake_accept(struct handshake *out, int listener, struct control *control,
                     const struct handshake_options *opts)
{
    struct message m = {.fd = -1};
    bool stopped;
    int r;

    *out = (struct handshake)HANDSHAKE_NONE;
    r = accept_connection(out, listener, control);
    if (out->socket < 0)
        return r;
    stopped = r == HANDSHAKE_E_STOPPED;
    r = peer_identify(&out->peer, out->socket);
    if (r == 0)
        r = check_uid(&out->peer, opts);
    if (r == 0 && stopped)
        control_ask(control, THAW_REQUEST_STOP); /* for whoever waits next */
    if (r == 0)
        r = take_handshake(out, &m, control, opts);
    free(m.text);
    (void)fd_close(m.fd);
    return r;
}

void handshake_deinit(struct handshake *h)
{
    peer_deinit(&h->peer);
    h->uffd = fd_close(h->uffd);
    h->socket = fd_close(h->socket);
    free(h->regions);
    h->regions = NULL;
}
