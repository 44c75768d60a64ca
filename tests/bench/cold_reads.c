/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cold_reads.c - how the bytes of a cold working set can be had, each way timed (docs/decisions/0012)
 *
 *     cold_reads FILE MIB ROUNDS
 *
 * The working set is a tenth of the first MIB of FILE, in runs of 1 to 5 pages, in the order in which thaw plans it: 256 touches
 * at a time in the order of the file. Before each way the file is dropped from the page cache. Ways are taken in turn, ROUNDS
 * times; the output is a table of medians: milliseconds until all bytes are there, of processor time, and MiB that were read.
 *
 *     preadv     N threads read up to SIZE at a time, with gaps of up to GAP read along   (into one page: what counts is the cache)
 *     willneed   posix_fadvise(POSIX_FADV_WILLNEED) of the same pieces, then one thread reads them
 *     uring      the same pieces through io_uring, N under way, one thread
 *     direct     N threads read them past the page cache into memory of their own (O_DIRECT)
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PAGE        4096ull
#define WINDOW      256u
#define MAX_THREADS 32u
#define MAX_ROUNDS  25u
#define KIB         1024ull
#define MIB         (1024ull * KIB)

struct piece {
    uint64_t off, len;
};

struct way {
    const char *how;
    unsigned n; /* threads, or requests under way */
    uint64_t size, gap;
    double ms[MAX_ROUNDS], cpu_ms[MAX_ROUNDS];
    double mib;
};

static int fd_cached, fd_direct;
static struct piece *pieces;
static size_t n_pieces;
static size_t next_piece; /* atomic */

static void die(const char *what)
{
    fprintf(stderr, "cold_reads: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static double cpu_ms(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
}

/* ---- what is to be read --------------------------------------------------------------------------------------- */

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* make_set() - offsets of pages. Return: how many; (give) *out */
static size_t make_set(uint64_t bytes, uint64_t **out)
{
    size_t want = (size_t)(bytes / PAGE / 10), n = 0;
    uint64_t *set = malloc((want + 8) * sizeof(*set)), x = 88172645463325252ull;
    unsigned char *taken = calloc(bytes / PAGE + 8, 1);

    if (!set || !taken)
        die("no memory");
    while (n < want) {
        uint64_t first = next_random(&x) % (bytes / PAGE - 5), len = 1 + next_random(&x) % 5;

        for (uint64_t p = first; p < first + len && n < want; p++) {
            if (!taken[p])
                set[n++] = p * PAGE;
            taken[p] = 1;
        }
    }
    for (size_t i = 0; i < n; i += WINDOW)
        qsort(set + i, n - i < WINDOW ? n - i : WINDOW, sizeof(*set), compare_u64);
    free(taken);
    *out = set;
    return n;
}

/* cut() - the set as pieces of at most @size, with gaps of at most @gap */
static double cut(const uint64_t *set, size_t n, uint64_t size, uint64_t gap)
{
    uint64_t sum = 0;

    n_pieces = 0;
    for (size_t i = 0; i < n; i++) {
        struct piece *last = n_pieces > 0 ? &pieces[n_pieces - 1] : NULL;

        if (last && set[i] >= last->off && set[i] <= last->off + last->len + gap &&
            set[i] + PAGE - last->off <= size) {
            if (set[i] + PAGE > last->off + last->len)
                last->len = set[i] + PAGE - last->off;
            continue;
        }
        pieces[n_pieces++] = (struct piece){.off = set[i], .len = PAGE};
    }
    for (size_t i = 0; i < n_pieces; i++)
        sum += pieces[i].len;
    return (double)sum / (double)MIB;
}

/* ---- the ways ------------------------------------------------------------------------------------------------- */

static void read_piece(const struct piece *p)
{
    static char page[PAGE];
    struct iovec into[1024];
    uint64_t done = 0;

    for (unsigned i = 0; i < 1024; i++)
        into[i] = (struct iovec){.iov_base = page, .iov_len = PAGE};
    while (done < p->len) {
        uint64_t left = (p->len - done) / PAGE;
        ssize_t r = preadv(fd_cached, into, (int)(left < 1024 ? left : 1024), (off_t)(p->off + done));

        if (r <= 0)
            die("preadv");
        done += (uint64_t)r;
    }
}

static void *read_some(void *arg)
{
    const struct way *w = arg;
    bool direct = strcmp(w->how, "direct") == 0;
    void *own = direct ? mmap(NULL, w->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) : NULL;
    size_t i;

    while ((i = __atomic_fetch_add(&next_piece, 1, __ATOMIC_RELAXED)) < n_pieces) {
        if (!direct)
            read_piece(&pieces[i]);
        else if (pread(fd_direct, own, pieces[i].len, (off_t)pieces[i].off) != (ssize_t)pieces[i].len)
            die("pread past the cache");
    }
    if (direct)
        munmap(own, w->size);
    return NULL;
}

static void by_threads(struct way *w)
{
    pthread_t threads[MAX_THREADS];

    next_piece = 0;
    for (unsigned i = 0; i < w->n; i++) {
        if (pthread_create(&threads[i], NULL, read_some, w) != 0)
            die("pthread_create");
    }
    for (unsigned i = 0; i < w->n; i++)
        pthread_join(threads[i], NULL);
}

static void by_advice(struct way *w)
{
    for (size_t i = 0; i < n_pieces; i++)
        posix_fadvise(fd_cached, (off_t)pieces[i].off, (off_t)pieces[i].len, POSIX_FADV_WILLNEED);
    w->n = 1;
    by_threads(w);
}

static void by_uring(struct way *w)
{
    struct io_uring ring;
    char *own = mmap(NULL, w->size * w->n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    size_t begun = 0, done = 0;

    if (own == MAP_FAILED || io_uring_queue_init(w->n, &ring, 0) < 0)
        die("io_uring");
    while (done < n_pieces) {
        struct io_uring_cqe *cqe;

        for (; begun < n_pieces && begun - done < w->n; begun++) {
            struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

            io_uring_prep_read(sqe, fd_cached, own + begun % w->n * w->size, (unsigned)pieces[begun].len, pieces[begun].off);
        }
        io_uring_submit(&ring);
        if (io_uring_wait_cqe(&ring, &cqe) < 0 || cqe->res <= 0)
            die("io_uring read");
        io_uring_cqe_seen(&ring, cqe);
        done++;
    }
    io_uring_queue_exit(&ring);
    munmap(own, w->size * w->n);
}

/* ---- in turn -------------------------------------------------------------------------------------------------- */

static void take(struct way *w, unsigned round, const uint64_t *set, size_t n)
{
    double begin, cpu;

    w->mib = cut(set, n, w->size, w->gap);
    if (posix_fadvise(fd_cached, 0, 0, POSIX_FADV_DONTNEED) != 0)
        die("cannot drop the file from the page cache");
    begin = now_ms();
    cpu = cpu_ms();
    if (strcmp(w->how, "uring") == 0)
        by_uring(w);
    else if (strcmp(w->how, "willneed") == 0)
        by_advice(w);
    else
        by_threads(w);
    w->ms[round] = now_ms() - begin;
    w->cpu_ms[round] = cpu_ms() - cpu;
}

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static struct way ways[] = {
        {"preadv", 1, MIB, 64 * KIB, {0}, {0}, 0},      {"preadv", 2, MIB, 64 * KIB, {0}, {0}, 0},
        {"preadv", 3, MIB, 64 * KIB, {0}, {0}, 0},      {"preadv", 8, MIB, 64 * KIB, {0}, {0}, 0},
        {"preadv", 3, 64 * KIB, 64 * KIB, {0}, {0}, 0}, {"preadv", 3, 4 * MIB, 64 * KIB, {0}, {0}, 0},
        {"preadv", 3, MIB, 0, {0}, {0}, 0},             {"preadv", 3, MIB, 16 * KIB, {0}, {0}, 0},
        {"preadv", 3, MIB, 256 * KIB, {0}, {0}, 0},     {"willneed", 1, MIB, 64 * KIB, {0}, {0}, 0},
        {"willneed", 1, MIB, 0, {0}, {0}, 0},           {"uring", 8, MIB, 64 * KIB, {0}, {0}, 0},
        {"uring", 32, MIB, 64 * KIB, {0}, {0}, 0},      {"uring", 32, MIB, 0, {0}, {0}, 0},
        {"direct", 3, MIB, 64 * KIB, {0}, {0}, 0},      {"direct", 8, MIB, 64 * KIB, {0}, {0}, 0},
        {"direct", 8, MIB, 0, {0}, {0}, 0},
    };
    unsigned n_rounds = argc == 4 ? (unsigned)atoi(argv[3]) : 0;
    uint64_t *set;
    size_t n;

    if (argc != 4 || n_rounds == 0 || n_rounds > MAX_ROUNDS || atoi(argv[2]) < 1) {
        fprintf(stderr, "usage: cold_reads FILE MIB ROUNDS\n");
        return 2;
    }
    fd_cached = open(argv[1], O_RDONLY | O_CLOEXEC);
    fd_direct = open(argv[1], O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (fd_cached < 0 || fd_direct < 0)
        die(argv[1]);
    n = make_set((uint64_t)atoi(argv[2]) * MIB, &set);
    pieces = malloc(n * sizeof(*pieces));
    if (!pieces)
        die("no memory");
    for (unsigned round = 0; round < n_rounds; round++) {
        for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
            take(&ways[(i + round * 7) % (sizeof(ways) / sizeof(ways[0]))], round, set, n);
    }
    printf("%zu pages, %.1f MiB\n%-10s %3s %9s %8s %8s %8s %8s\n", n, (double)n * PAGE / (double)MIB, "way", "n", "size KiB",
           "gap KiB", "ms", "CPU ms", "MiB");
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        struct way *w = &ways[i];

        qsort(w->ms, n_rounds, sizeof(double), compare_double);
        qsort(w->cpu_ms, n_rounds, sizeof(double), compare_double);
        printf("%-10s %3u %9llu %8llu %8.1f %8.1f %8.1f\n", w->how, w->n, (unsigned long long)(w->size / KIB),
               (unsigned long long)(w->gap / KIB), w->ms[n_rounds / 2], w->cpu_ms[n_rounds / 2], w->mib);
    }
    return 0;
}
