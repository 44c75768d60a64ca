/* SPDX-License-Identifier: Apache-2.0 */
/*
 * filler.c - an arena in two files, and a thread for each connection
 *
 * The files are sealed: they keep their length, so who has them mapped never finds them cut off. Pagers get descriptors that
 * were opened for reading, and cannot have others: what one of them does to its own mappings no other one sees.
 *
 * A request is a number, checked against the manifest; nothing else comes in. Two requests for one frame wait for the same
 * read (source/arena.c).
 *
 * The first connection may take a moment, as the pager that started this process is still at its beginning. When there has
 * been one and there is none any more, the process ends. A connection that comes just then finds the socket closed, and its
 * pager starts another filler.
 */
#include "source/filler.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/thread.h"
#include "source/arena.h"
#include "source/share.h"

#define STACK_BYTES (256 * KIB)
#define BACKLOG     64
#define FIRST_MS    10000 /* how long to wait for the first connection */

/* struct shared_file - in memory, written here and read elsewhere */
struct shared_file {
    void *map; /* owned, for writing */
    uint64_t bytes;
    int read_only; /* owned: the same, to be given away */
};

struct filler {
    const struct image *image;
    struct arena *arena;
    struct shared_file memory;
    struct shared_file there;
    uint64_t bytes_max;
    int ended;               /* owned eventfd: the last connection is gone */
    uint64_t *n_connections; /* in there; atomic */
};

/* struct connection - what its thread has */
struct connection {
    struct filler *filler;
    int fd; /* owned */
};

/* #syscalls:start socket bind listen */
int filler_listen(const struct manifest *m)
{
    struct sockaddr_un addr;
    socklen_t len = share_address(&addr, m->id);
    _cleanup_fd_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return err_origin_errno(-errno, "cannot make a socket");
    if (bind(fd, (struct sockaddr *)&addr, len) < 0)
        return errno == EADDRINUSE ? -EADDRINUSE : err_origin_errno(-errno, "cannot name a socket");
    if (listen(fd, BACKLOG) < 0)
        return err_origin_errno(-errno, "cannot listen on a socket");
    return TAKE_FD(fd);
}

/* ---- one connection -------------------------------------------------------------------------------------------- */

/* #syscalls:fill sendmsg */
static bool say_hello(const struct filler *f, int fd)
{
    union {
        struct cmsghdr header; /* for its alignment */
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    const int files[2] = {f->memory.read_only, f->there.read_only};
    struct share_hello hello = {.magic = SHARE_MAGIC,
                                .image_bytes = f->image->manifest->image_bytes};
    struct iovec from = {.iov_base = &hello, .iov_len = sizeof(hello)};
    struct msghdr msg = {.msg_iov = &from,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

    memcpy(hello.id, f->image->manifest->id, IMAGE_ID_BYTES);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(files));
    memcpy(CMSG_DATA(cmsg), files, sizeof(files));
    return sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)sizeof(hello);
}

/* is_ours() - is the other side of the same user? */
/* #syscalls:fill getsockopt geteuid */
static bool is_ours(int fd)
{
    struct ucred pager = {0};
    socklen_t len = sizeof(pager);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &pager, &len) == 0 && pager.uid == geteuid();
}

static enum share_answer fill(const struct filler *f, uint32_t frame)
{
    int r = arena_bring(f->arena, frame, f->bytes_max);

    return r == 0 ? SHARE_THERE : r > 0 ? SHARE_FULL : SHARE_FAILED;
}

/* #syscalls:fill read write */
static void serve(const struct filler *f, int fd)
{
    struct share_request request;

    if (!is_ours(fd) || !say_hello(f, fd))
        return;
    while (read(fd, &request, sizeof(request)) == (ssize_t)sizeof(request) &&
           request.frame < f->image->manifest->n_frames) {
        struct share_reply reply = {.tag = request.tag, .answer = fill(f, request.frame)};

        if (write(fd, &reply, sizeof(reply)) != (ssize_t)sizeof(reply))
            return;
    }
}

static void end_connection(struct filler *f)
{
    uint64_t one = 1;

    if (__atomic_sub_fetch(f->n_connections, 1, __ATOMIC_ACQ_REL) == 0)
        (void)!write(f->ended, &one, sizeof(one));
}

static void *connection_main(void *arg)
{
    struct connection *c = arg;
    struct filler *f = c->filler;

    serve(f, c->fd);
    (void)fd_close(c->fd);
    free(c);
    end_connection(f);
    return NULL;
}

/* begin_connection() - @fd: (take). clone3 hides from a filter what it is to make, and is not missed where there is none */
/* #syscalls:fill clone3=ENOSYS clone:0&CLONE_KINDS=A_THREAD */
static void begin_connection(struct filler *f, int fd)
{
    struct connection *c = malloc(sizeof(*c));
    pthread_t thread;

    __atomic_add_fetch(f->n_connections, 1, __ATOMIC_ACQ_REL);
    if (c)
        *c = (struct connection){.filler = f, .fd = fd};
    if (!c || thread_start(&thread, STACK_BYTES, connection_main, c) < 0) {
        (void)fd_close(fd); /* its pager does without */
        free(c);
        end_connection(f);
        return;
    }
    (void)pthread_detach(thread);
}

/* ---- all of them ----------------------------------------------------------------------------------------------- */

/* #syscalls:start memfd_create ftruncate fcntl mmap openat open */
static int make_file(struct shared_file *file, const char *name, uint64_t bytes)
{
    _cleanup_fd_ int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    char path[40];
    void *map;

    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return err_origin_errno(-errno, "cannot make a file in memory");
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return err_origin_errno(-errno, "cannot map a file in memory");
    file->map = map;
    file->bytes = bytes;
    file->read_only = open(path, O_RDONLY | O_CLOEXEC);
    return file->read_only < 0 ? err_origin_errno(-errno, "cannot open a file in memory again") : 0;
}

static int make_files(struct filler *f)
{
    uint64_t image_bytes = f->image->manifest->image_bytes;
    int r = make_file(&f->memory, "thaw-pages", image_bytes);

    if (r == 0)
        r = make_file(&f->there, "thaw-bits",
                      (share_bits_words(image_bytes) + 1) * sizeof(uint64_t));
    if (r == 0)
        f->n_connections = (uint64_t *)f->there.map + share_bits_words(image_bytes);
    return r;
}

/* #syscalls:start eventfd2 */
int filler_new(struct filler **out, const struct image *image, uint64_t bytes_max)
{
    struct filler *f = calloc(1, sizeof(*f));
    struct arena_options o = {.cache_bytes = UINT64_MAX};
    int r;

    if (!f)
        return err_origin_errno(-ENOMEM, "cannot fill in image %s", image->name);
    f->image = image;
    f->bytes_max = bytes_max;
    r = make_files(f);
    o.memory = f->memory.map;
    o.there = f->there.map;
    if (r == 0)
        r = arena_new(&f->arena, image, &o);
    if (r == 0 && (f->ended = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        r = err_origin_errno(-errno, "cannot make an eventfd");
    *out = f; /* also when it is not complete: the process ends */
    return r;
}

/* #syscalls:fill accept4 poll ppoll */
void filler_run(struct filler *f, int listener)
{
    int timeout_ms = FIRST_MS;

    for (;;) {
        struct pollfd fds[] = {{.fd = listener, .events = POLLIN},
                               {.fd = f->ended, .events = POLLIN}};
        uint64_t count;
        int fd = -1;

        if (poll(fds, ARRAY_LEN(fds), timeout_ms) == 0)
            return;
        if (fds[1].revents != 0)
            (void)!read(f->ended, &count, sizeof(count));
        if (fds[0].revents != 0)
            fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            begin_connection(f, fd);
            timeout_ms = -1;
        } else if (fds[1].revents != 0 &&
                   __atomic_load_n(f->n_connections, __ATOMIC_ACQUIRE) == 0) {
            return;
        }
    }
}
