/* SPDX-License-Identifier: Apache-2.0 */
/*
 * touchvmm.c - a VMM of any memory file, which touches the pages that it is told and says what each touch took
 *
 *     touchvmm SOCKET MEMFILE PAGES
 *
 * PAGES: a file of page numbers, 64 bits each, host byte order; no page twice. One line of JSON when they are touched; then
 * it waits for a line on stdin, compares each of these pages with MEMFILE, and ends. The file is not read before.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "uffd_peer.h"

#define PAGE       4096u
#define DEADLINE_S 300u

struct touches {
    uint64_t *pages;
    uint32_t *ns;
    size_t n;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* map_file() - for reading. Return: where, and how long */
static const char *map_file(const char *path, size_t *len)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *map;

    if (fd < 0 || fstat(fd, &st) < 0)
        peer_die(PEER_EXIT_USAGE, errno, "cannot open %s", path);
    *len = (size_t)st.st_size;
    map = *len > 0 ? mmap(NULL, *len, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    if (map == MAP_FAILED)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot map %s", path);
    (void)close(fd);
    return map;
}

static void read_touches(struct touches *t, const char *path, size_t memory_len)
{
    size_t len;
    const char *bytes = map_file(path, &len);

    t->n = len / sizeof(*t->pages);
    t->pages = malloc(len + 1);
    t->ns = calloc(t->n + 1, sizeof(*t->ns));
    if (!t->pages || !t->ns)
        peer_die(PEER_EXIT_ABSENT, ENOMEM, "cannot note %zu touches", t->n);
    memcpy(t->pages, bytes, t->n * sizeof(*t->pages));
    for (size_t i = 0; i < t->n; i++) {
        if (t->pages[i] >= memory_len / PAGE)
            peer_die(PEER_EXIT_USAGE, 0, "no page %llu", (unsigned long long)t->pages[i]);
    }
}

static char *attach(const char *socket_path, size_t len)
{
    char *memory =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char hello[300];
    int uffd, sock, r;

    if (memory == MAP_FAILED)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot map guest memory");
    uffd = peer_uffd_new(O_NONBLOCK, 0);
    peer_uffd_register(uffd, memory, len);
    sock = peer_connect(socket_path);
    if (sock < 0)
        peer_die(PEER_EXIT_ABSENT, -sock, "cannot connect to %s", socket_path);
    r = snprintf(hello, sizeof(hello),
                 "[{\"base_host_virt_addr\":%llu,\"size\":%zu,\"offset\":0,\"page_size\":%u,"
                 "\"page_size_kib\":%u}]",
                 (unsigned long long)(uintptr_t)memory, len, PAGE, PAGE);
    r = peer_send(sock, hello, (size_t)r, &uffd, 1);
    if (r < 0)
        peer_die(PEER_EXIT_ABSENT, -r, "cannot send a handshake");
    return memory;
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void report(struct touches *t, uint64_t total_ns)
{
    qsort(t->ns, t->n, sizeof(*t->ns), compare_u32);
    printf("{\"n\":%zu,\"total_ns\":%llu,\"p50\":%u,\"p90\":%u,\"p99\":%u,\"max\":%u}\n", t->n,
           (unsigned long long)total_ns, t->n ? t->ns[t->n / 2] : 0,
           t->n ? t->ns[t->n * 9 / 10] : 0, t->n ? t->ns[t->n * 99 / 100] : 0,
           t->n ? t->ns[t->n - 1] : 0);
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct touches t; /* kept to the end */
    struct pollfd go = {.fd = STDIN_FILENO, .events = POLLIN};
    const char *truth;
    volatile char *memory;
    uint64_t begin_ns;
    size_t len;

    if (argc != 4)
        peer_die(PEER_EXIT_USAGE, 0, "expected SOCKET MEMFILE PAGES");
    (void)alarm(DEADLINE_S); /* a touch that nobody answers */
    truth = map_file(argv[2], &len);
    read_touches(&t, argv[3], len);
    memory = attach(argv[1], len);
    begin_ns = now_ns();
    for (size_t i = 0; i < t.n; i++) {
        uint64_t at_ns = now_ns();

        (void)memory[t.pages[i] * PAGE];
        t.ns[i] = (uint32_t)(now_ns() - at_ns);
    }
    report(&t, now_ns() - begin_ns);
    (void)poll(&go, 1, -1);
    for (size_t i = 0; i < t.n; i++) {
        if (memcmp((const char *)memory + t.pages[i] * PAGE, truth + t.pages[i] * PAGE, PAGE) != 0)
            peer_die(PEER_EXIT_WRONG, 0, "wrong byte in page %llu", (unsigned long long)t.pages[i]);
    }
    return 0;
}
