/* SPDX-License-Identifier: Apache-2.0 */
/*
 * odd_handler.c - a page-fault handler that does as it is told, for the benchmark's own tests
 *
 *     odd_handler MODE SOCKET MEMFILE
 *
 * It serves one VM, one page a fault, in the plainest way, and goes wrong after FAULTS_BEFORE
 * faults:
 *
 *     good        never
 *     wrong-byte  one byte of a page is not the file's
 *     wrong-page  the page before is served in place of the right one
 *     neighbour   serves the right page, and a page of zeroes beside it that nobody touched
 *     stop        stops itself (SIGSTOP) and never answers again
 *     die         ends with exit status 3
 *     kill-vmm    kills the process that it serves
 *     mute        takes no connection at all
 */

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define FAULTS_BEFORE 700u

struct guest {
    const char *mode;
    const char *memory; /* the mapped file */
    uint64_t base;      /* of the one region, in the VMM */
    uint64_t page_bytes;
    pid_t vmm;
    int sock;
    int uffd;
    char *spare; /* one page */
    unsigned n_faults;
};

static void map_memory(struct guest *g, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        err(1, "%s", path);
    g->memory = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (g->memory == MAP_FAILED)
        err(1, "mmap");
    (void)close(fd);
}

static int listen_at(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 1) < 0)
        err(1, "%s", path);
    return fd;
}

static void take_handshake(struct guest *g, int listener)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    char json[1024] = "";
    struct iovec iov = {.iov_base = json, .iov_len = sizeof(json) - 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    struct ucred peer;
    socklen_t peer_len = sizeof(peer);
    const char *base, *page;

    g->sock = accept(listener, NULL, NULL);
    if (g->sock < 0 || recvmsg(g->sock, &msg, MSG_CMSG_CLOEXEC) <= 0 || !CMSG_FIRSTHDR(&msg))
        errx(1, "no handshake");
    if (getsockopt(g->sock, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len) < 0)
        err(1, "SO_PEERCRED");
    g->vmm = peer.pid;
    memcpy(&g->uffd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
    base = strstr(json, "\"base_host_virt_addr\":");
    page = strstr(json, "\"page_size\":");
    if (!base || !page)
        errx(1, "not a handshake: %s", json);
    g->base = strtoull(strchr(base, ':') + 1, NULL, 10);
    g->page_bytes = strtoull(strchr(page, ':') + 1, NULL, 10);
    g->spare = aligned_alloc(g->page_bytes, g->page_bytes);
    if (!g->spare)
        err(1, "malloc");
}

static void copy_page(const struct guest *g, uint64_t addr, const void *from)
{
    struct uffdio_copy copy = {.dst = addr, .src = (uintptr_t)from, .len = g->page_bytes};

    if (ioctl(g->uffd, UFFDIO_COPY, &copy) < 0 && errno != EEXIST)
        err(1, "UFFDIO_COPY");
}

/* What the mode wants done in place of a plain answer. Returns the bytes that are to be installed.
 */
static const char *go_wrong(struct guest *g, uint64_t offset)
{
    const char *right = g->memory + offset;

    if (strcmp(g->mode, "wrong-byte") == 0) {
        memcpy(g->spare, right, g->page_bytes);
        g->spare[1234] = (char)(g->spare[1234] ^ 1);
        return g->spare;
    }
    if (strcmp(g->mode, "wrong-page") == 0)
        return offset ? right - g->page_bytes : right;
    if (strcmp(g->mode, "neighbour") == 0) {
        memset(g->spare, 0, g->page_bytes);
        copy_page(g, offset ? g->base + offset - g->page_bytes : g->base, g->spare);
    }
    if (strcmp(g->mode, "stop") == 0)
        (void)raise(SIGSTOP);
    if (strcmp(g->mode, "die") == 0)
        errx(3, "the end was near");
    if (strcmp(g->mode, "kill-vmm") == 0)
        (void)kill(g->vmm, SIGKILL);
    return right;
}

static void serve(struct guest *g)
{
    struct pollfd pfds[2] = {{.fd = g->uffd, .events = POLLIN}, {.fd = g->sock, .events = POLLIN}};
    struct uffd_msg msg;

    for (;;) {
        const char *from;
        uint64_t offset;

        if (poll(pfds, 2, -1) < 0)
            err(1, "poll");
        if (pfds[1].revents)
            return; /* the VMM is gone */
        if (read(g->uffd, &msg, sizeof(msg)) != sizeof(msg) || msg.event != UFFD_EVENT_PAGEFAULT)
            continue;
        offset = (msg.arg.pagefault.address & ~(g->page_bytes - 1)) - g->base;
        from = g->memory + offset;
        if (++g->n_faults > FAULTS_BEFORE && strcmp(g->mode, "good") != 0)
            from = go_wrong(g, offset);
        copy_page(g, g->base + offset, from);
    }
}

int main(int argc, char **argv)
{
    struct guest g = {0};

    if (argc != 4)
        errx(2, "usage: odd_handler MODE SOCKET MEMFILE");
    g.mode = argv[1];
    if (strcmp(g.mode, "mute") == 0) {
        for (;;)
            (void)pause();
    }
    map_memory(&g, argv[3]);
    take_handshake(&g, listen_at(argv[2]));
    serve(&g);
    return 0;
}
