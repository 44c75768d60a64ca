/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attach.c - the VMM's half: register guest memory, hand the userfaultfd to a pager
 *
 * Four steps, in an order in which a failure leaves nothing behind: check the regions, connect to the pager, make a
 * userfaultfd and register every region with it, send one message. The userfaultfd is closed on any failure, which
 * also ends its registrations.
 *
 * The message is Firecracker's: a JSON array, one object a region, and the userfaultfd as SCM_RIGHTS on the first byte.
 * `page_size_kib` is in bytes in spite of its name; both names are sent because readers of either age exist. The
 * array may be longer than the socket takes at once (8192 regions make about 1 MiB): the rest follows in plain sends.
 *
 * Nothing is ever received: the connection only tells the pager, by its end, that this process is gone. So the pager's
 * refusal cannot be returned from here; a pager that refuses stops this process.
 */

#include "vmm/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "uffd/probe.h"

struct thaw_attachment {
    int uffd;
    int socket; /* stays open for the life of the memory; the pager sees its end */
};

static void free_spansp(struct span **p)
{
    free(*p);
}

static int span_compare(const void *a, const void *b)
{
    const struct span *x = a;
    const struct span *y = b;

    return x->start < y->start ? -1 : x->start > y->start;
}

/* Whether two of @spans share a byte; sorts them. *@where: where the second one of such a pair begins. */
static bool spans_overlap(struct span *spans, unsigned n_spans, uint64_t *where)
{
    qsort(spans, n_spans, sizeof(*spans), span_compare);
    for (unsigned i = 1; i < n_spans; i++) {
        if (spans[i].start < spans[i - 1].end) {
            *where = spans[i].start;
            return true;
        }
    }
    return false;
}

static int region_check(const struct thaw_region *r, uint64_t page_bytes)
{
    uint64_t start = (uintptr_t)r->addr;
    uint64_t end;

    if (r->page_bytes != page_bytes)
        return err_origin(
            -EINVAL, "region at %p: its pages have %" PRIu64 " bytes, the first region's %" PRIu64,
            r->addr, r->page_bytes, page_bytes);
    if (start == 0)
        return err_origin(-EINVAL, "a region has no address");
    if (r->len_bytes == 0)
        return err_origin(-EINVAL, "region at %p: its length is 0", r->addr);
    if (start % page_bytes || r->len_bytes % page_bytes || r->offset % page_bytes)
        return err_origin(-EINVAL,
                          "region at %p: address, length %zu and offset %" PRIu64
                          " must be multiples of %" PRIu64,
                          r->addr, r->len_bytes, r->offset, page_bytes);
    if (__builtin_add_overflow(start, r->len_bytes, &end) ||
        __builtin_add_overflow(r->offset, r->len_bytes, &end))
        return err_origin(-EINVAL, "region at %p: address or offset plus length overflows",
                          r->addr);
    return 0;
}

int regions_check(const struct thaw_region *regions, unsigned n_regions)
{
    _cleanup_(free_spansp) struct span *spans = NULL;
    uint64_t where;

    if (n_regions == 0 || n_regions > ATTACH_MAX_REGIONS)
        return err_origin(-EINVAL, "%u regions: 1 to %u are possible", n_regions,
                          ATTACH_MAX_REGIONS);
    if (regions[0].page_bytes != 4 * KIB && regions[0].page_bytes != 2 * MIB)
        return err_origin(-EINVAL,
                          "region at %p: page size %" PRIu64 " is neither 4096 nor 2097152",
                          regions[0].addr, regions[0].page_bytes);
    for (unsigned i = 0; i < n_regions; i++) {
        int r = region_check(&regions[i], regions[0].page_bytes);

        if (r < 0)
            return r;
    }

    spans = calloc(n_regions, sizeof(*spans));
    if (!spans)
        return err_origin(-ENOMEM, "no memory to check %u regions", n_regions);
    for (unsigned i = 0; i < n_regions; i++) {
        uint64_t start = (uintptr_t)regions[i].addr;

        spans[i] = (struct span){start, start + regions[i].len_bytes};
    }
    if (spans_overlap(spans, n_regions, &where))
        return err_origin(-EINVAL, "region at 0x%" PRIx64 " begins inside another region", where);
    for (unsigned i = 0; i < n_regions; i++)
        spans[i] = (struct span){regions[i].offset, regions[i].offset + regions[i].len_bytes};
    if (spans_overlap(spans, n_regions, &where))
        return err_origin(-EINVAL,
                          "region at offset %" PRIu64
                          " begins inside another region's part of the snapshot",
                          where);
    return 0;
}

int regions_json(char **out, const struct thaw_region *regions, unsigned n_regions)
{
    _cleanup_free_ char *json = NULL;
    size_t len = 0;
    FILE *f;

    f = open_memstream(&json, &len);
    if (!f)
        return err_origin(-ENOMEM, "no memory for the handshake");
    for (unsigned i = 0; i < n_regions; i++) {
        const struct thaw_region *r = &regions[i];

        fprintf(f,
                "%s{\"base_host_virt_addr\":%" PRIuPTR ",\"size\":%zu,\"offset\":%" PRIu64
                ",\"page_size\":%" PRIu64 ",\"page_size_kib\":%" PRIu64 "}",
                i == 0 ? "[" : ",", (uintptr_t)r->addr, r->len_bytes, r->offset, r->page_bytes,
                r->page_bytes);
    }
    fputc(']', f);
    if (fclose(f) != 0)
        return err_origin(-ENOMEM, "no memory for the handshake");
    *out = TAKE(json);
    return 0;
}

static int pager_connect(const char *path, int *socket_out)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    _cleanup_fd_ int fd = -1;
    int r;

    if (strlen(path) >= sizeof(addr.sun_path))
        return err_origin(-ENAMETOOLONG, "socket path longer than %zu bytes: %s",
                          sizeof(addr.sun_path) - 1, path);
    memcpy(addr.sun_path, path, strlen(path) + 1);

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_origin_errno(-errno, "cannot make a unix socket");
    do
        r = connect(fd, (const struct sockaddr *)&addr, sizeof(addr));
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return err_origin_errno(-errno, "cannot connect to the pager at %s", path);
    *socket_out = TAKE_FD(fd);
    return 0;
}

static int regions_register(int uffd, const struct thaw_region *regions, unsigned n_regions)
{
    for (unsigned i = 0; i < n_regions; i++) {
        struct uffdio_register reg = {
            .range = {.start = (uintptr_t)regions[i].addr, .len = regions[i].len_bytes},
            .mode = UFFDIO_REGISTER_MODE_MISSING,
        };

        if (ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
            return err_origin_errno(
                -errno,
                "cannot register %zu bytes at %p with userfaultfd (anonymous memory needed)",
                regions[i].len_bytes, regions[i].addr);
        if (!(reg.ioctls & (1ull << _UFFDIO_COPY)))
            return err_origin(-EOPNOTSUPP, "the kernel cannot install pages in the memory at %p",
                              regions[i].addr);
    }
    return 0;
}

int handshake_send(int sock, const char *json, int uffd)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)json, .iov_len = strlen(json)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.space,
        .msg_controllen = sizeof(control.space),
    };
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &uffd, sizeof(int));

    while (iov.iov_len > 0) {
        ssize_t n = sendmsg(sock, &msg, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_origin_errno(-errno, "cannot send the handshake to the pager");
        iov.iov_base = (char *)iov.iov_base + n;
        iov.iov_len -= (size_t)n;
        /* The fd went with the first byte; sending it again would make it two. */
        msg.msg_control = NULL;
        msg.msg_controllen = 0;
    }
    return 0;
}

THAW_EXPORT int thaw_vmm_attach(struct thaw_attachment **out, const char *socket_path,
                                const struct thaw_region *regions, unsigned n_regions)
{
    _cleanup_(thaw_vmm_detachp) struct thaw_attachment *a = NULL;
    _cleanup_free_ char *json = NULL;
    int r;

    r = regions_check(regions, n_regions);
    if (r < 0)
        return r;
    r = regions_json(&json, regions, n_regions);
    if (r < 0)
        return r;
    a = malloc(sizeof(*a));
    if (!a)
        return err_origin(-ENOMEM, "no memory for an attachment");
    *a = (struct thaw_attachment){.uffd = -1, .socket = -1};

    r = pager_connect(socket_path, &a->socket);
    if (r < 0)
        return r;
    r = uffd_open(UFFD_FEATURE_EVENT_REMOVE, &a->uffd);
    if (r < 0)
        return r;
    r = regions_register(a->uffd, regions, n_regions);
    if (r < 0)
        return r;
    assert(json);
    r = handshake_send(a->socket, json, a->uffd);
    if (r < 0)
        return r;
    *out = TAKE(a);
    return 0;
}

THAW_EXPORT struct thaw_attachment *thaw_vmm_detach(struct thaw_attachment *a)
{
    if (!a)
        return NULL;
    fd_close(a->uffd);
    fd_close(a->socket);
    free(a);
    return NULL;
}
