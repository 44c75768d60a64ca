/* SPDX-License-Identifier: Apache-2.0 */
#include "source/share.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"

struct share {
    const char *memory;    /* owned mapping */
    const uint64_t *there; /* owned mapping: a bit a page */
    uint64_t image_bytes;
    int fds[SHARE_CONNECTIONS]; /* owned; -1: the filler is not asked here any more */
};

/* #syscalls:start geteuid */
socklen_t share_address(struct sockaddr_un *addr, const uint8_t id[IMAGE_ID_BYTES])
{
    char text[IMAGE_ID_TEXT];
    int len;

    *addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    len = snprintf(addr->sun_path + 1, sizeof(addr->sun_path) - 1, "thaw-fill-%u-%s", geteuid(),
                   image_id_text(id, text));
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
}

uint64_t share_bits_words(uint64_t image_bytes)
{
    return image_bytes / IMAGE_PAGE / 64 + 1;
}

/* bits_file_bytes() - with the number of connections */
static uint64_t bits_file_bytes(uint64_t image_bytes)
{
    return (share_bits_words(image_bytes) + 1) * sizeof(uint64_t);
}

/* ---- joining --------------------------------------------------------------------------------------------------- */

/* connect_one() - Return: the fd (give), SHARE_E_NOBODY as a negative number that is no errno, or a negative errno with a text */
/* #syscalls:start socket connect getsockopt setsockopt */
static int connect_one(const struct manifest *m, int *out)
{
    const struct timeval wait = {.tv_sec = SHARE_WAIT_MS / 1000,
                                 .tv_usec = SHARE_WAIT_MS % 1000 * 1000L};
    struct ucred filler = {0};
    socklen_t cred_len = sizeof(filler);
    struct sockaddr_un addr;
    socklen_t len = share_address(&addr, m->id);
    _cleanup_fd_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return err_origin_errno(-errno, "cannot make a socket");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) < 0)
        return err_origin_errno(-errno, "cannot set up a socket");
    if (connect(fd, (struct sockaddr *)&addr, len) < 0)
        return errno == ECONNREFUSED
                   ? SHARE_E_NOBODY
                   : err_origin_errno(-errno, "cannot connect to the filler of the image");
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &filler, &cred_len) < 0 || filler.uid != geteuid())
        return err_origin(-EPERM, "user %u has taken the place of the image's filler", filler.uid);
    *out = TAKE_FD(fd);
    return 0;
}

/* read_hello() - @files: (give) the memory and the bits. Return: 0, SHARE_E_NOBODY, or a negative errno with a text */
/* #syscalls:start recvmsg */
static int read_hello(int fd, const struct manifest *m, int files[2])
{
    union {
        struct cmsghdr header; /* for its alignment */
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    struct share_hello hello = {0};
    struct iovec into = {.iov_base = &hello, .iov_len = sizeof(hello)};
    struct msghdr msg = {.msg_iov = &into,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *cmsg = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;

    if (n == 0 || (n < 0 && errno == ECONNRESET))
        return SHARE_E_NOBODY;
    if (n < 0)
        return err_origin_errno(-errno, "the filler of the image does not answer");
    if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS &&
        cmsg->cmsg_len == CMSG_LEN(2 * sizeof(int)))
        memcpy(files, CMSG_DATA(cmsg), 2 * sizeof(int));
    if (n != (ssize_t)sizeof(hello) || hello.magic != SHARE_MAGIC || files[0] < 0 ||
        hello.image_bytes != m->image_bytes || memcmp(hello.id, m->id, IMAGE_ID_BYTES) != 0)
        return err_origin(-EPROTO, "the filler of the image says what it should not");
    return 0;
}

/* map_file() - for reading; one that may shrink is not taken. Return: NULL: it is not what it should be */
/* #syscalls:start fstat newfstatat mmap fcntl */
static const void *map_file(int fd, uint64_t bytes)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    const void *map;

    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 ||
        (uint64_t)st.st_size != bytes)
        return NULL;
    map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    return map == MAP_FAILED ? NULL : map;
}

/* take_hello() - the first connection brings the files, the others say that they are there */
static int take_hello(struct share *s, int fd, const struct manifest *m)
{
    int files[2] = {-1, -1};
    int r = read_hello(fd, m, files);

    if (r == 0 && !s->memory) {
        s->memory = map_file(files[0], m->image_bytes);
        s->there = map_file(files[1], bits_file_bytes(m->image_bytes));
        if (!s->memory || !s->there)
            r = err_origin(-EPROTO, "the filler of the image gave files that cannot be used");
    }
    (void)fd_close(files[0]);
    (void)fd_close(files[1]);
    return r;
}

int share_join(struct share **out, const struct manifest *m)
{
    _cleanup_(share_freep) struct share *s = calloc(1, sizeof(*s));
    int r = 0;

    if (!s)
        return err_origin_errno(-ENOMEM, "cannot share pages");
    s->image_bytes = m->image_bytes;
    for (unsigned i = 0; i < SHARE_CONNECTIONS; i++)
        s->fds[i] = -1;
    for (unsigned i = 0; i < SHARE_CONNECTIONS && r == 0; i++) {
        r = connect_one(m, &s->fds[i]);
        if (r == 0)
            r = take_hello(s, s->fds[i], m);
    }
    if (r == 0)
        *out = TAKE(s);
    return r;
}

struct share *share_free(struct share *s)
{
    if (!s)
        return NULL;
    if (s->memory)
        (void)munmap((void *)s->memory, s->image_bytes);
    if (s->there)
        (void)munmap((void *)s->there, bits_file_bytes(s->image_bytes));
    for (unsigned i = 0; i < SHARE_CONNECTIONS; i++)
        s->fds[i] = fd_close(s->fds[i]);
    free(s);
    return NULL;
}

/* ---- serving --------------------------------------------------------------------------------------------------- */

bool share_has(const struct share *s, uint64_t page)
{
    return (__atomic_load_n(&s->there[page / 64], __ATOMIC_ACQUIRE) >> (page % 64)) & 1;
}

bool share_is_worth_it(const struct share *s)
{
    return __atomic_load_n(&s->there[share_bits_words(s->image_bytes)], __ATOMIC_RELAXED) >
           SHARE_CONNECTIONS;
}

const void *share_page(const struct share *s, uint64_t page)
{
    return s->memory + page * IMAGE_PAGE;
}

/*
 * exchange() - a request and its answer
 *
 * A pager that was killed may have left a request unanswered on a connection that its successor has from their supervisor: the
 * tag tells the answers apart. Return: 0 or a negative errno (no text)
 */
/* #syscalls read write */
static int exchange(int fd, uint32_t frame, struct share_reply *reply)
{
    struct share_request request = {.tag = clock_now_ns(), .frame = frame};
    ssize_t n;

    *reply = (struct share_reply){0};
    do {
        n = write(fd, &request, sizeof(request));
    } while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(request))
        return n < 0 ? -errno : -EPROTO;
    for (;;) {
        n = read(fd, reply, sizeof(*reply));
        if (n < 0 && errno == EINTR)
            continue;
        if (n != (ssize_t)sizeof(*reply))
            return n < 0 ? -errno : -EPIPE;
        if (reply->tag == request.tag)
            return 0;
    }
}

bool share_ask(struct share *s, unsigned connection, uint32_t frame)
{
    struct share_reply reply;

    if (s->fds[connection] < 0)
        return false;
    if (exchange(s->fds[connection], frame, &reply) < 0) {
        s->fds[connection] = fd_close(s->fds[connection]);
        return false;
    }
    return reply.answer == SHARE_THERE;
}
