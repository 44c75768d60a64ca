/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ahead_server.c - the server's process
 *
 * Thaw is used as a library, as `thaw serve` does it, because then its own news (resume, progress) can be timed where they
 * arise, and a source of bytes of our own can be given. It is confined as it is by default, but for the source that sleeps.
 *
 * The bare loop takes the same handshake and copies all of the guest, with one size of copy. Several threads share the work by
 * a common counter, as the pager's do. The bare handler takes it, too, and answers faults.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <thaw/thaw.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"
#include "cli/bench/ahead_run.h"
#include "cli/bench/touch.h"
#include "pager/tuning.h"

#define RAW_MSGS 32 /* of the bare handler: messages a read */

static void tell(const struct ahead_part *part, char news)
{
    (void)fd_write_all(part->news, &news, 1); /* a guest that is gone is the parent's affair */
}

/* ---- Thaw ----------------------------------------------------------------------------------------------------- */

static void on_resume(void *ctx)
{
    const struct ahead_part *part = ctx;

    part->shared->resume_ns = clock_now_ns();
    tell(part, AHEAD_RESUME);
}

static void on_progress(void *ctx, const struct thaw_progress *p)
{
    const struct ahead_part *part = ctx;
    struct ahead_shared *s = part->shared;
    uint64_t bytes = p->n_installed * p->page_bytes;

    if (s->first_ns == 0) {
        s->first_ns = clock_now_ns();
        s->first_bytes = bytes;
    }
    if (!p->over)
        return;
    s->over_ns = clock_now_ns();
    s->over_bytes = bytes;
    tell(part, AHEAD_OVER);
}

static void on_stats(void *ctx, const char *json)
{
    const struct ahead_part *part = ctx;

    (void)snprintf(part->shared->stats, sizeof(part->shared->stats), "%s", json);
}

static int serve_thaw(const struct ahead_part *part)
{
    const struct ahead_case *c = part->c;
    struct thaw_pager_options o = {
        .socket_path = part->socket_path,
        .state_dir = part->ahead->dir,
        .fault_around_bytes = c->around_bytes,
        .prefetch_path = c->set_path,
        .before_resume_bytes = c->before_bytes,
        .confine = c->bytes == AHEAD_SLOW ? THAW_CONFINE_OFF : THAW_CONFINE_ON,
    };
    struct ahead_slow *slow = NULL;
    struct thaw_pager *p = NULL;
    int r = 0;

    if (c->place == BENCH_FREE) { /* as thaw serve does it */
        o.cpus = "follow";
        o.latency_qos = THAW_LATENCY_QOS_AUTO;
        o.spin_us = THAW_SPIN_AUTO;
    }
    if (c->bytes == AHEAD_SLOW) {
        r = ahead_slow_new(&slow, part->image);
        o.source = &ahead_slow_ops;
        o.source_self = slow;
        o.source_size_bytes = part->image->size_bytes;
    } else {
        o.memory_path = part->image->path;
    }
    if (r == 0)
        r = thaw_pager_new(&p, &o);
    if (r < 0)
        return r;
    thaw_pager_on_resume(p, on_resume, (void *)part);
    thaw_pager_on_progress(p, on_progress, (void *)part);
    thaw_pager_on_stats(p, on_stats, (void *)part);
    pager_tune_ahead(p, c->slice_bytes);
    r = thaw_pager_accept(p);
    part->shared->accepted_ns = clock_now_ns();
    if (r == 0)
        r = thaw_pager_run(p);
    (void)thaw_pager_free(p);
    return r;
}

/* ---- the bare loop -------------------------------------------------------------------------------------------- */

struct raw {
    const struct ahead_part *part;
    const char *bytes;
    int file; /* owned */
    uint64_t dst;
    int uffd;
    uint64_t next; /* atomic: the next piece */
    int error;     /* atomic */
};

static void *copy_pieces(void *arg)
{
    struct raw *raw = arg;
    bool is_read = raw->part->c->is_read;
    char *buffer = calloc(1, raw->part->c->slice_bytes);
    uint64_t piece = raw->part->c->slice_bytes;
    uint64_t size = raw->part->image->size_bytes;
    uint64_t off;

    if (!buffer) {
        __atomic_store_n(&raw->error, -ENOMEM, __ATOMIC_RELAXED);
        return NULL;
    }
    while ((off = piece * __atomic_fetch_add(&raw->next, 1, __ATOMIC_RELAXED)) < size) {
        struct uffdio_copy copy = {
            .dst = raw->dst + off,
            .src = is_read ? (uintptr_t)buffer : (uintptr_t)raw->bytes + off,
            .len = min_u64(piece, size - off),
        };

        if (is_read && pread(raw->file, buffer, copy.len, (off_t)off) != (ssize_t)copy.len)
            __atomic_store_n(&raw->error, -EIO, __ATOMIC_RELAXED);
        if (ioctl(raw->uffd, UFFDIO_COPY, &copy) < 0)
            __atomic_store_n(&raw->error, -errno, __ATOMIC_RELAXED);
    }
    free(buffer);
    return NULL;
}

static int copy_all(struct raw *raw)
{
    struct ahead_shared *s = raw->part->shared;
    pthread_t helpers[BENCH_THREADS_MAX];
    unsigned n = raw->part->c->n_threads;

    s->first_ns = clock_now_ns();
    for (unsigned i = 1; i < n; i++) {
        if (pthread_create(&helpers[i], NULL, copy_pieces, raw) != 0)
            return err_origin(-EAGAIN, "cannot start a thread");
    }
    (void)copy_pieces(raw);
    for (unsigned i = 1; i < n; i++)
        (void)pthread_join(helpers[i], NULL);
    s->over_ns = clock_now_ns();
    s->over_bytes = raw->part->image->size_bytes;
    if (raw->error < 0)
        return err_origin_errno(raw->error, "UFFDIO_COPY");
    tell(raw->part, raw->part->c->work == AHEAD_WAIT ? AHEAD_OVER : AHEAD_RESUME);
    return 0;
}

/* answer() - the least that can be done for a fault */
static int answer(struct raw *raw, const struct uffd_msg *msg)
{
    uint64_t dst = align_down(msg->arg.pagefault.address, raw->part->c->page_bytes);
    struct uffdio_copy copy = {
        .dst = dst,
        .src = (uintptr_t)raw->bytes + (dst - raw->dst),
        .len = raw->part->c->page_bytes,
    };

    if (msg->event != UFFD_EVENT_PAGEFAULT)
        return err_origin(-EPROTO, "userfaultfd event 0x%x", msg->event);
    if (ioctl(raw->uffd, UFFDIO_COPY, &copy) < 0 && errno != EEXIST)
        return err_origin_errno(-errno, "UFFDIO_COPY");
    return 0;
}

/* answer_all() - a handler without states, checks and figures: what any other one is measured against. To the guest's end */
static int answer_all(struct raw *raw, int sock)
{
    struct uffd_msg msgs[RAW_MSGS];
    struct pollfd watched[] = {
        {.fd = raw->uffd, .events = POLLIN},
        {.fd = sock, .events = POLLIN},
    };
    int r = 0;

    tell(raw->part, AHEAD_RESUME);
    while (r == 0) {
        ssize_t n = read(raw->uffd, msgs, sizeof(msgs));

        if (n < 0 && errno != EAGAIN)
            return err_origin_errno(-errno, "cannot read from the userfaultfd");
        for (ssize_t i = 0; r == 0 && i < n / (ssize_t)sizeof(msgs[0]); i++)
            r = answer(raw, &msgs[i]);
        if (n > 0)
            continue;
        if (poll(watched, ARRAY_LEN(watched), -1) < 0 && errno != EINTR)
            return err_origin_errno(-errno, "poll");
        if (watched[1].revents != 0)
            break;
    }
    return r;
}

/* Takes the handshake's address and userfaultfd. */
static int take_handshake(int sock, struct raw *raw)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    char json[512] = "";
    struct iovec iov = {.iov_base = json, .iov_len = sizeof(json) - 1};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.space,
        .msg_controllen = sizeof(control.space),
    };
    struct cmsghdr *cmsg;

    if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) <= 0)
        return err_origin_errno(-errno, "cannot take the handshake");
    cmsg = CMSG_FIRSTHDR(&msg);
    if (!cmsg || sscanf(json, "[{\"base_host_virt_addr\":%" SCNu64, &raw->dst) != 1)
        return err_origin(-EPROTO, "no handshake: %s", json);
    memcpy(&raw->uffd, CMSG_DATA(cmsg), sizeof(int));
    return 0;
}

static int listen_on(const char *path, int *out)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    _cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(addr.sun_path))
        return err_origin(-ENAMETOOLONG, "the socket's path is too long: %s", path);
    memcpy(addr.sun_path, path, strlen(path));
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 1) < 0)
        return err_origin_errno(-errno, "cannot listen on %s", path);
    *out = TAKE_FD(fd);
    return 0;
}

static int map_file(const struct ahead_part *part, struct raw *raw)
{
    int flags = MAP_SHARED | (part->c->is_unmapped ? 0 : MAP_POPULATE);
    char *bytes;

    raw->file = open(part->image->path, O_RDONLY | O_CLOEXEC);
    if (raw->file < 0)
        return err_origin_errno(-errno, "cannot open %s", part->image->path);
    bytes = mmap(NULL, part->image->size_bytes, PROT_READ, flags, raw->file, 0);
    if (bytes == MAP_FAILED)
        return err_origin_errno(-errno, "cannot map %s", part->image->path);
    raw->bytes = bytes;
    return 0;
}

static int serve_raw(const struct ahead_part *part)
{
    struct raw raw = {.part = part, .uffd = -1};
    _cleanup_fd_ int listener = -1;
    _cleanup_fd_ int sock = -1;
    char byte;
    int r = map_file(part, &raw);

    if (r == 0)
        r = listen_on(part->socket_path, &listener);
    if (r < 0)
        return r;
    sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (sock < 0)
        return err_origin_errno(-errno, "accept");
    r = take_handshake(sock, &raw);
    if (r < 0)
        return r;
    part->shared->accepted_ns = clock_now_ns();
    if (part->c->work == AHEAD_WAIT)
        tell(part, AHEAD_RESUME);
    if (part->c->work == AHEAD_TOUCH)
        return answer_all(&raw, sock);
    r = copy_all(&raw);
    while (r == 0 && read(sock, &byte, 1) < 0 && errno == EINTR)
        continue; /* the guest's end ends this process, too */
    return r;
}

int ahead_serve(const struct ahead_part *part)
{
    int r = bench_cpu_bind(part->cpu);

    if (r < 0)
        return r;
    return part->c->server == AHEAD_THAW ? serve_thaw(part) : serve_raw(part);
}
