/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ahead_vmm.c - a VMM that only measures: what tools/bench_ahead.py tells it to do, it does, and says how long it took
 *
 *     ahead_vmm SIZE [2M]      maps SIZE bytes of guest memory, which the host has just given it, and waits for orders
 *
 * Orders are lines on stdin; each is answered with one line of JSON on stdout. Times are nanoseconds of CLOCK_MONOTONIC.
 *
 *     attach SOCKET            register the memory and send the handshake
 *     private FILE             map this file privately in place of the memory
 *     populate                 touch all of it
 *     touch LIST [THREADS]     touch the pages of a list (u64 each), in order; with threads, each takes its share
 *     slowly LIST GAP_US       the same, one touch every so often
 *     discard N BYTES GAP_US   N times madvise(MADV_DONTNEED) of BYTES, at another place each time
 *     raw FILE CHUNK THREADS   install the file's bytes into the memory with a userfaultfd of our own, in chunks
 *     pingpong N               N round trips between two threads over two eventfds
 *     pin CPU                  this thread, and those that it starts, run there; -1: anywhere
 *
 * Why all memory is touched and freed before it is measured: a host that reclaims free memory takes ten times as long to
 * give a page for the first time. Nothing here checks bytes but for one word of each page touched, added up: the tests do.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../lib/uffd_peer.h"

#define PAGE        4096u
#define MAX_THREADS 64u

static uint8_t *memory;
static size_t size_bytes;
static size_t page_bytes = PAGE;
static int uffd = -1;

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void *map_memory(void)
{
    int huge = page_bytes > PAGE ? MAP_HUGETLB : 0;
    void *p =
        mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | huge, -1, 0);

    if (p == MAP_FAILED)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot map %zu bytes of memory", size_bytes);
    return p;
}

/* warm_host() - have the host give us as much memory as we are about to use */
static void warm_host(void)
{
    uint8_t *p = map_memory();

    for (size_t at = 0; at < size_bytes; at += page_bytes)
        p[at] = 1;
    munmap(p, size_bytes);
}

/* ---- lists and figures ---------------------------------------------------------------------------------------- */

static uint64_t *read_list(const char *path, size_t *n)
{
    struct stat st;
    uint64_t *list;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0)
        peer_die(PEER_EXIT_USAGE, errno, "cannot open list %s", path);
    list = malloc((size_t)st.st_size + 8);
    if (!list || read(fd, list, (size_t)st.st_size) != st.st_size)
        peer_die(PEER_EXIT_USAGE, errno, "cannot read list %s", path);
    close(fd);
    *n = (size_t)st.st_size / 8;
    for (size_t i = 0; i < *n; i++) {
        if (list[i] >= size_bytes / PAGE)
            peer_die(PEER_EXIT_USAGE, 0, "list %s: page %llu is beyond the memory", path,
                     (unsigned long long)list[i]);
    }
    return list;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void print_times(uint64_t *ns, size_t n, uint64_t total_ns)
{
    qsort(ns, n, sizeof(*ns), compare_u64);
    printf("{\"n\":%zu,\"total_ns\":%llu,\"p50_ns\":%llu,\"p90_ns\":%llu,\"p99_ns\":%llu,\"max_"
           "ns\":%llu}\n",
           n, (unsigned long long)total_ns, (unsigned long long)(n ? ns[n / 2] : 0),
           (unsigned long long)(n ? ns[n * 9 / 10] : 0),
           (unsigned long long)(n ? ns[n * 99 / 100] : 0), (unsigned long long)(n ? ns[n - 1] : 0));
}

/* ---- touching ------------------------------------------------------------------------------------------------- */

struct share {
    const uint64_t *pages;
    size_t n;
    uint64_t *ns;
    uint64_t gap_ns;
    uint64_t sum;
};

static void *touch_share(void *arg)
{
    struct share *s = arg;
    uint64_t next = now_ns();

    for (size_t i = 0; i < s->n; i++) {
        const volatile uint64_t *at =
            (const volatile uint64_t *)(void *)(memory + s->pages[i] * PAGE);
        uint64_t begin;

        while (s->gap_ns && now_ns() < next)
            continue;
        begin = now_ns();
        s->sum += *at;
        s->ns[i] = now_ns() - begin;
        next = begin + s->gap_ns;
    }
    return NULL;
}

static void touch(const char *path, unsigned n_threads, uint64_t gap_ns)
{
    struct share shares[MAX_THREADS];
    pthread_t threads[MAX_THREADS];
    size_t n;
    uint64_t *list = read_list(path, &n), *ns = calloc(n + 1, sizeof(*ns)), begin;
    unsigned i;

    if (n_threads == 0 || n_threads > MAX_THREADS || !ns)
        peer_die(PEER_EXIT_USAGE, 0, "touch: 1 to %u threads", MAX_THREADS);
    begin = now_ns();
    for (i = 0; i < n_threads; i++) {
        size_t first = n * i / n_threads, end = n * (i + 1) / n_threads;

        shares[i] = (struct share){
            .pages = list + first, .n = end - first, .ns = ns + first, .gap_ns = gap_ns};
        if (n_threads > 1 && pthread_create(&threads[i], NULL, touch_share, &shares[i]) != 0)
            peer_die(PEER_EXIT_ABSENT, 0, "cannot start a thread");
    }
    if (n_threads == 1)
        touch_share(&shares[0]);
    for (i = 0; n_threads > 1 && i < n_threads; i++)
        pthread_join(threads[i], NULL);
    print_times(ns, n, now_ns() - begin);
    free(list);
    free(ns);
}

/* ---- what a pager hears --------------------------------------------------------------------------------------- */

static void attach(const char *path)
{
    char text[256];
    int sock;

    uffd = peer_uffd_new(O_NONBLOCK, 0);
    peer_uffd_register(uffd, memory, size_bytes);
    sock = peer_connect(path);
    snprintf(text, sizeof(text),
             "[{\"base_host_virt_addr\":%llu,\"size\":%zu,\"offset\":0,\"page_size\":%zu,\"page_"
             "size_kib\":%zu}]",
             (unsigned long long)(uintptr_t)memory, size_bytes, page_bytes, page_bytes);
    if (sock < 0 || peer_send(sock, text, strlen(text), &uffd, 1) < 0)
        peer_die(PEER_EXIT_ABSENT, 0, "cannot give the memory to %s", path);
    printf("{\"at_ns\":%llu}\n", (unsigned long long)now_ns());
}

static void discard(unsigned n, size_t len, uint64_t gap_ns)
{
    uint64_t *ns = calloc(n + 1, sizeof(*ns)), begin = now_ns(), next = begin;
    size_t places = size_bytes / len;

    if (!ns || places == 0)
        peer_die(PEER_EXIT_USAGE, 0, "discard: more than there is");
    for (unsigned i = 0; i < n; i++) {
        uint8_t *at = memory + (i * 7919u % places) * len;
        uint64_t start;

        while (now_ns() < next)
            continue;
        start = now_ns();
        if (madvise(at, len, MADV_DONTNEED) < 0)
            peer_die(PEER_EXIT_ABSENT, errno, "madvise");
        ns[i] = now_ns() - start;
        next = start + gap_ns;
    }
    print_times(ns, n, now_ns() - begin);
    free(ns);
}

/* ---- what can be had at most ---------------------------------------------------------------------------------- */

struct raw {
    int uffd;
    const uint8_t *from;
    size_t first, end, chunk;
};

static void *raw_share(void *arg)
{
    const struct raw *r = arg;

    for (size_t at = r->first; at < r->end; at += r->chunk) {
        struct uffdio_copy c = {
            .dst = (uintptr_t)memory + at,
            .src = (uintptr_t)r->from + at,
            .len = r->chunk < r->end - at ? r->chunk : r->end - at,
        };

        if (ioctl(r->uffd, UFFDIO_COPY, &c) < 0)
            peer_die(PEER_EXIT_ABSENT, errno, "UFFDIO_COPY of %llu bytes",
                     (unsigned long long)c.len);
    }
    return NULL;
}

static void raw(const char *path, size_t chunk, unsigned n_threads)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), own = peer_uffd_new(O_NONBLOCK, 0);
    const uint8_t *from = mmap(NULL, size_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    struct raw shares[MAX_THREADS];
    pthread_t threads[MAX_THREADS];
    uint64_t begin;
    unsigned i;

    if (fd < 0 || from == MAP_FAILED || n_threads == 0 || n_threads > MAX_THREADS)
        peer_die(PEER_EXIT_USAGE, errno, "raw: cannot map %s", path);
    peer_uffd_register(own, memory, size_bytes);
    begin = now_ns();
    for (i = 0; i < n_threads; i++) {
        size_t first = size_bytes / chunk * i / n_threads * chunk;
        size_t end =
            i + 1 == n_threads ? size_bytes : size_bytes / chunk * (i + 1) / n_threads * chunk;

        shares[i] =
            (struct raw){.uffd = own, .from = from, .first = first, .end = end, .chunk = chunk};
        if (i > 0 && pthread_create(&threads[i], NULL, raw_share, &shares[i]) != 0)
            peer_die(PEER_EXIT_ABSENT, 0, "cannot start a thread");
    }
    raw_share(&shares[0]);
    for (i = 1; i < n_threads; i++)
        pthread_join(threads[i], NULL);
    printf("{\"total_ns\":%llu}\n", (unsigned long long)(now_ns() - begin));
    close(fd);
    close(own);
    munmap((void *)(uintptr_t)from, size_bytes);
}

static int ping[2];

static void *answer_pings(void *arg)
{
    uint64_t word;

    for (unsigned n = *(unsigned *)arg; n > 0; n--) {
        if (read(ping[0], &word, sizeof(word)) < 0 || write(ping[1], &word, sizeof(word)) < 0)
            return NULL;
    }
    return NULL;
}

static void pingpong(unsigned n)
{
    uint64_t *ns = calloc(n + 1, sizeof(*ns)), word = 1, begin = now_ns();
    pthread_t thread;

    ping[0] = eventfd(0, EFD_CLOEXEC);
    ping[1] = eventfd(0, EFD_CLOEXEC);
    if (!ns || ping[0] < 0 || ping[1] < 0 || pthread_create(&thread, NULL, answer_pings, &n) != 0)
        peer_die(PEER_EXIT_ABSENT, errno, "pingpong");
    for (unsigned i = 0; i < n; i++) {
        uint64_t start = now_ns();

        if (write(ping[0], &word, sizeof(word)) < 0 || read(ping[1], &word, sizeof(word)) < 0)
            peer_die(PEER_EXIT_ABSENT, errno, "pingpong");
        ns[i] = now_ns() - start;
    }
    pthread_join(thread, NULL);
    print_times(ns, n, now_ns() - begin);
    free(ns);
}

/* ---- orders --------------------------------------------------------------------------------------------------- */

static void map_private(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || mmap(memory, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd,
                       0) == MAP_FAILED)
        peer_die(PEER_EXIT_USAGE, errno, "cannot map %s", path);
    close(fd);
    printf("{}\n");
}

static void populate(void)
{
    for (size_t at = 0; at < size_bytes; at += page_bytes)
        memory[at] = 1;
    printf("{}\n");
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    for (int i = 0; i < CPU_SETSIZE && i < sysconf(_SC_NPROCESSORS_CONF); i++) {
        if (cpu < 0 || i == cpu)
            CPU_SET(i, &set);
    }
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        peer_die(PEER_EXIT_USAGE, errno, "cannot run on processor %d", cpu);
    printf("{}\n");
}

static void obey(const char *line)
{
    char word[16] = "", path[512] = "";
    unsigned long long a = 0, b = 0;

    if (sscanf(line, "attach %511s", path) == 1)
        attach(path);
    else if (sscanf(line, "private %511s", path) == 1)
        map_private(path);
    else if (sscanf(line, "touch %511s %llu", path, &a) >= 1)
        touch(path, a ? (unsigned)a : 1, 0);
    else if (sscanf(line, "slowly %511s %llu", path, &a) == 2)
        touch(path, 1, a * 1000);
    else if (sscanf(line, "discard %llu %llu", &a, &b) == 2) {
        unsigned long long gap = 0;

        sscanf(line, "discard %*u %*u %llu", &gap);
        discard((unsigned)a, (size_t)b, gap * 1000);
    } else if (sscanf(line, "raw %511s %llu %llu", path, &a, &b) == 3)
        raw(path, (size_t)a, (unsigned)b);
    else if (sscanf(line, "pingpong %llu", &a) == 1)
        pingpong((unsigned)a);
    else if (sscanf(line, "pin %15s", word) == 1)
        pin(atoi(word));
    else if (strcmp(line, "populate\n") == 0)
        populate();
    else
        peer_die(PEER_EXIT_USAGE, 0, "no such order: %s", line);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char line[600];

    if (argc < 2 || (size_bytes = strtoull(argv[1], NULL, 0)) == 0)
        peer_die(PEER_EXIT_USAGE, 0, "usage: ahead_vmm SIZE [2M]");
    if (argc > 2)
        page_bytes = 2u << 20;
    warm_host();
    memory = map_memory();
    printf("{\"page_bytes\":%zu}\n", page_bytes);
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin))
        obey(line);
    return 0;
}
