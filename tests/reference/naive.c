/* SPDX-License-Identifier: Apache-2.0 */
/*
 * naive.c - the plainest right pager, and a few wrong ones
 *
 *     naive SOCKET MEMFILE
 *
 * One page a fault: pread(2) into a buffer, UFFDIO_COPY. It remembers what was discarded, reads the queue until
 * it is empty before it answers anything, and tries again what the kernel put off. The process tests run against
 * it too, so that a failure says whether the pager or the test is wrong. Built with -DNAIVE_BUG=BUG_... it makes one of
 * the classic mistakes, and the tests must notice.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum bug {
    BUG_NONE,
    BUG_STALE, /* forgets discards: the memory file's bytes come back */
    BUG_ZERO,  /* every page is zero */
    BUG_WRITE, /* a page that is first written to gets zeroes around the write */
    BUG_AROUND, /* installs the next page too, as if memory behind a region's end were next in the file */
    BUG_LOST, /* a fault that the kernel put off is never answered */
};
#ifndef NAIVE_BUG
#    define NAIVE_BUG BUG_NONE
#endif
static const enum bug bug = NAIVE_BUG;

struct region {
    uint64_t hva, len, off;
};

static struct region regions[8192];
static size_t n_regions;
static uint64_t page_bytes = 4096;
static bool *removed; /* by page of the memory file */
static uint64_t memory_bytes;
static int uffd = -1, memory_fd, sock;
static struct uffd_msg msgs[65536];
static unsigned n_msgs;
static char *page, *zeroes;

static void fail(const char *what)
{
    fprintf(stderr, "naive: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void receive_handshake(void)
{
    static char text[2 << 20];
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov;
    json_t *array = NULL, *field;
    size_t len = 0, i;

    while (!array) {
        iov = (struct iovec){text + len, sizeof(text) - len};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.buf,
                             .msg_controllen = sizeof(control.buf)};
        ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
        if (n <= 0)
            fail("handshake");
        if (CMSG_FIRSTHDR(&msg))
            memcpy(&uffd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
        len += (size_t)n;
        if (text[len - 1] == ']')
            array = json_loadb(text, len, 0, NULL);
    }
    n_regions = json_array_size(array);
    for (i = 0; i < n_regions; i++) {
        json_t *o = json_array_get(array, i);
        regions[i].hva = (uint64_t)json_integer_value(json_object_get(o, "base_host_virt_addr"));
        regions[i].len = (uint64_t)json_integer_value(json_object_get(o, "size"));
        regions[i].off = (uint64_t)json_integer_value(json_object_get(o, "offset"));
        field = json_object_get(o, "page_size");
        if (field || (field = json_object_get(o, "page_size_kib")))
            page_bytes = (uint64_t)json_integer_value(field);
    }
    json_decref(array);
}

static const struct region *find_region(uint64_t addr)
{
    size_t i;

    for (i = 0; i < n_regions; i++) {
        if (addr - regions[i].hva < regions[i].len)
            return &regions[i];
    }
    return NULL;
}

static void apply_remove(uint64_t start, uint64_t end)
{
    uint64_t addr = (start + page_bytes - 1) / page_bytes * page_bytes;

    for (; addr + page_bytes <= end; addr += page_bytes) {
        const struct region *r = find_region(addr);
        if (r)
            removed[(addr - r->hva + r->off) / page_bytes] = true;
    }
}

/* Return: false when the kernel says to try again later. */
static bool install(uint64_t addr, const struct region *r, bool write)
{
    uint64_t off = addr - r->hva + r->off;
    struct uffdio_copy copy = {.dst = addr, .len = page_bytes};
    struct uffdio_range range = {.start = addr, .len = page_bytes};
    bool zero = (removed[off / page_bytes] && bug != BUG_STALE) || bug == BUG_ZERO;

    zero = zero || (write && bug == BUG_WRITE);
    if (!zero && pread(memory_fd, page, page_bytes, (off_t)off) != (ssize_t)page_bytes)
        fail("memory file");
    copy.src = (uintptr_t)(zero ? zeroes : page);
    if (ioctl(uffd, UFFDIO_COPY, &copy) == 0)
        return true;
    if (errno == EAGAIN)
        return false;
    if (errno != EEXIST && errno != ENOENT && errno != ESRCH)
        fail("UFFDIO_COPY");
    if (ioctl(uffd, UFFDIO_WAKE, &range) < 0 && errno != ESRCH && errno != ENOENT)
        fail("UFFDIO_WAKE");
    return true;
}

static bool answer_fault(const struct uffd_msg *m)
{
    uint64_t addr = m->arg.pagefault.address / page_bytes * page_bytes;
    const struct region *r = find_region(addr);

    if (!r)
        fail("a fault outside of all regions");
    if (!install(addr, r, m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE))
        return bug == BUG_LOST;
    if (bug == BUG_AROUND && addr - r->hva + r->off + 2 * page_bytes <= memory_bytes)
        install(addr + page_bytes, r, false);
    return true;
}

/* Read all there is; discards are applied at once, faults are kept behind those that still wait. */
static void drain(void)
{
    struct uffd_msg m;
    ssize_t n;

    while ((n = read(uffd, &m, sizeof(m))) == sizeof(m)) {
        if (m.event == UFFD_EVENT_REMOVE)
            apply_remove(m.arg.remove.start, m.arg.remove.end);
        else if (n_msgs < sizeof(msgs) / sizeof(msgs[0]))
            msgs[n_msgs++] = m;
    }
    if (n < 0 && errno != EAGAIN)
        fail("read of the userfaultfd");
}

static void serve(void)
{
    struct pollfd pfd[2] = {{uffd, POLLIN, 0}, {sock, POLLIN, 0}};
    unsigned i, kept;

    while (!(pfd[1].revents & (POLLIN | POLLHUP))) {
        if (poll(pfd, 2, n_msgs ? 1 : -1) < 0 && errno != EINTR)
            fail("poll");
        drain();
        for (i = kept = 0; i < n_msgs; i++) {
            if (!answer_fault(&msgs[i]))
                msgs[kept++] = msgs[i];
        }
        n_msgs = kept;
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (argc != 3 || strlen(argv[1]) >= sizeof(sa.sun_path))
        fail("usage: naive SOCKET MEMFILE");
    memcpy(sa.sun_path, argv[1], strlen(argv[1]) + 1);
    memory_fd = open(argv[2], O_RDONLY | O_CLOEXEC);
    memory_bytes = (uint64_t)lseek(memory_fd, 0, SEEK_END);
    if (memory_fd < 0 || bind(listener, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
        listen(listener, 1) < 0)
        fail("cannot start");
    sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    receive_handshake();
    page = malloc(page_bytes);
    zeroes = calloc(1, page_bytes);
    removed = calloc(memory_bytes / page_bytes + 2, sizeof(*removed));
    serve();
    return 0;
}
