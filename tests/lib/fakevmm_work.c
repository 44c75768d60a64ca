/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakevmm_work.c - the workloads
 *
 * Each is a function that every thread of the step runs, on the pages [op->first, op->end), for op->n rounds.
 * Threads share the range unless it says otherwise. All of them check what they read; fakevmm_pages.c knows what is
 * right, also where threads meet.
 */
#include "fakevmm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "uffd_peer.h"

static uint64_t random_page(struct worker *w)
{
    return w->op->first + worker_random(w) % (w->op->end - w->op->first);
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The i-th page of the range in an order that visits each once and looks random. */
static uint64_t permuted_page(const struct worker *w, const struct op *op, uint64_t i)
{
    static const uint64_t primes[] = {1000003, 998244353, 15485863};
    uint64_t n = op->end - op->first, k = 0;

    while (k < 2 && n % primes[k] == 0)
        k++;
    return op->first + (i * primes[k] + w->guest->oracle.seed) % n;
}

/* A slice for each thread, from the first page to the last. */
static void read_seq(struct worker *w, const struct op *op)
{
    uint64_t n = op->end - op->first, p = op->first + n * w->id / op->n_threads;
    uint64_t end = op->first + n * (w->id + 1) / op->n_threads;

    for (; p < end; p++)
        guest_check(w, p);
}

static void read_shuffled(struct worker *w, const struct op *op)
{
    uint64_t i;

    for (i = w->id; i < op->end - op->first; i += op->n_threads)
        guest_check(w, permuted_page(w, op, i));
}

/* All threads on all pages, with repetitions: many threads meet on one page. */
static void read_random(struct worker *w, const struct op *op)
{
    uint64_t i;

    for (i = 0; i < op->n; i++)
        guest_check(w, random_page(w));
}

static void stamp_seq(struct worker *w, const struct op *op)
{
    uint64_t p;

    for (p = op->first + w->id; p < op->end; p += op->n_threads)
        guest_stamp(w, p);
    for (p = op->first + w->id; p < op->end; p += op->n_threads)
        guest_check(w, p);
}

static void write_random(struct worker *w, const struct op *op)
{
    uint64_t i, p;

    for (i = 0; i < op->n; i++) {
        p = random_page(w);
        switch (worker_random(w) % 4) {
        case 0:
            guest_fill(w, p);
            break;
        case 1:
        case 2:
            guest_stamp(w, p);
            break;
        default:
            break;
        }
        guest_check(w, p);
    }
}

/* Runs of 1 to 32 pages here and there, as a working set is. */
static void read_runs(struct worker *w, const struct op *op)
{
    uint64_t i, p, end;

    for (i = 0; i < op->n; i++) {
        p = random_page(w);
        end = min_u64(p + 1 + worker_random(w) % 32, op->end);
        for (; p < end; p++)
            guest_check(w, p);
    }
}

/* Every round all threads touch the same untouched page at the same moment. */
static void herd(struct worker *w, const struct op *op)
{
    uint64_t i, rounds = min_u64(op->n, op->end - op->first);

    for (i = 0; i < rounds; i++) {
        pthread_barrier_wait((pthread_barrier_t *)(uintptr_t)&op->barrier);
        guest_check(w, permuted_page(w, op, i));
    }
}

static void check_range(struct worker *w, uint64_t p, uint64_t n)
{
    uint64_t i;

    for (i = 0; i < n; i++)
        guest_check(w, p + i);
}

/* Give back, read zeroes, write, give back again, read zeroes again. */
static void discard_loop(struct worker *w, const struct op *op)
{
    uint64_t i, k, p, n;

    for (i = 0; i < op->n; i++) {
        p = random_page(w);
        n = 1 + worker_random(w) % min_u64(64, op->end - p);
        if (worker_random(w) % 2)
            guest_check(w, p); /* else it may never have been there */
        n = guest_discard(w, p, n);
        if (worker_random(w) % 4)
            check_range(w, p, n);
        for (k = 0; k < n; k++) {
            if (worker_random(w) % 2)
                guest_stamp(w, p + k);
        }
        check_range(w, p, n);
        if (n > 0)
            n = guest_discard(w, p, 1 + worker_random(w) % n);
        check_range(w, p, n);
    }
}

/* Give all of the range back and leave it. */
static void discard_all(struct worker *w, const struct op *op)
{
    uint64_t p = op->first, n;

    if (w->id != 0)
        return;
    for (; p < op->end; p += n)
        n = guest_discard(w, p, op->end - p);
}

/* The first thread (of 8 or more: the first two) is a balloon that inflates; the others go on using memory. */
static void balloon(struct worker *w, const struct op *op)
{
    bool inflates = w->id == 0 || (op->n_threads >= 8 && w->id == 1);
    uint64_t i, p, n;

    for (i = 0; i < op->n; i++) {
        p = random_page(w);
        if (inflates) {
            n = guest_discard(w, p, 1 + worker_random(w) % min_u64(512, op->end - p));
            if (n > 0)
                guest_check(w, p + worker_random(w) % n);
        } else if (worker_random(w) % 4 == 0) {
            guest_stamp(w, p);
        } else {
            guest_check(w, p);
        }
    }
}

/* What thread 0 of a race decided for this round. */
static struct {
    uint64_t page;
    uint64_t n;
} race_range;

static void race_judge(struct worker *w, uint64_t page)
{
    struct guest *g = w->guest;
    uint64_t block, n = 1ull << (g->page_shift - 12), got, own;
    const volatile uint64_t *at = (const volatile uint64_t *)(const void *)guest_page(g, page);
    unsigned i;

    for (block = 0; block < n; block++) {
        for (i = 0; i < BLOCK_WORDS; i++) {
            got = at[block * BLOCK_WORDS + i];
            own = oracle_own(&g->oracle, page * n + block, i, guest_op(g, page));
            if (got != 0 && !(block == 0 && i == 0 && got == own))
                worker_error(w, page, page * n + block, i, 0, got);
        }
    }
    w->tally.checks++;
}

static void race_lead(struct worker *w, const struct op *op)
{
    struct guest *g = w->guest;
    uint64_t k, p = random_page(w), n;

    n = min_u64(min_u64(1 + worker_random(w) % 16, op->end - p), guest_region_end(g, p) - p);
    if (worker_random(w) % 2)
        guest_check(w, p);
    for (k = 0; k < n; k++)
        guest_claim(g, p + k);
    race_range.page = p;
    race_range.n = n;
    pthread_barrier_wait((pthread_barrier_t *)(uintptr_t)&op->barrier);
    atomic_store(&w->doing, "discarding in a race");
    atomic_store(&w->doing_page, p);
    if (madvise(guest_page(g, p), n << g->page_shift, MADV_DONTNEED) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "MADV_DONTNEED");
    w->tally.discards++;
    w->tally.pages_discarded += n;
    pthread_barrier_wait((pthread_barrier_t *)(uintptr_t)&op->barrier);
    for (k = 0; k < n; k++) {
        race_judge(w, p + k);
        memset(guest_page(g, p + k), 0, 8);
        guest_release(g, p + k, CONTENT_ZERO);
    }
}

/* Writes into the pages that are being given back. The write may be lost with the page or come after it. */
static void race_follow(struct worker *w, const struct op *op)
{
    struct guest *g = w->guest;
    uint64_t k, i, n_blocks = 1ull << (g->page_shift - 12);

    pthread_barrier_wait((pthread_barrier_t *)(uintptr_t)&op->barrier);
    for (k = w->id - 1; k < race_range.n; k += op->n_threads - 1) {
        uint64_t p = race_range.page + (worker_random(w) % 2 ? k : race_range.n - 1 - k);

        atomic_store(&w->doing, "writing in a race");
        atomic_store(&w->doing_page, p);
        for (i = worker_random(w) % 512; i > 0; i--)
            atomic_signal_fence(memory_order_seq_cst);
        *(volatile uint64_t *)(void *)guest_page(g, p) =
            oracle_own(&g->oracle, p * n_blocks, 0, guest_op(g, p));
        atomic_fetch_or(&g->touched[p], 3);
        w->tally.writes++;
    }
    pthread_barrier_wait((pthread_barrier_t *)(uintptr_t)&op->barrier);
}

/* In step: thread 0 discards a few pages while the others write to them. */
static void race(struct worker *w, const struct op *op)
{
    uint64_t i;

    for (i = 0; i < op->n; i++) {
        if (w->id == 0)
            race_lead(w, op);
        else
            race_follow(w, op);
    }
}

/* Discards of address ranges that begin and end anywhere: over gaps, over the borders of regions. */
static void discard_spans(struct worker *w, const struct op *op)
{
    struct guest *g = w->guest;
    uint64_t i, k, lo, n, span_pages = g->span_bytes >> g->page_shift;
    uint64_t longest = 2 + 3 * span_pages / (g->n_regions + 1);

    for (i = 0; i < op->n; i++) {
        lo = worker_random(w) % span_pages;
        n = 1 + worker_random(w) % min_u64(longest, span_pages - lo);
        if (w->id == 0)
            guest_discard_span(w, lo << g->page_shift, n << g->page_shift);
        for (k = 0; k < 16; k++) {
            if (worker_random(w) % 4 == 0)
                guest_stamp(w, random_page(w));
            guest_check(w, random_page(w));
        }
    }
}

/* Fresh mappings over guest memory: no event tells the pager, and what it installs there is refused. */
static void remap(struct worker *w, const struct op *op)
{
    uint64_t i, p, n;

    for (i = 0; i < op->n; i++) {
        p = random_page(w);
        if (w->id == 0 && i % 4 == 0) {
            n = guest_remap(w, p, 1 + worker_random(w) % min_u64(8, op->end - p));
            check_range(w, p, n);
        } else {
            guest_check(w, p);
        }
    }
}

/* Huge pages only: a discard that ends inside a page. What is not whole stays as it was. */
static void discard_partly(struct worker *w, const struct op *op)
{
    struct guest *g = w->guest;
    uint64_t i, p, page_bytes = 1ull << g->page_shift, part;

    for (i = 0; i < op->n; i++) {
        p = random_page(w);
        part = BLOCK_BYTES * (1 + worker_random(w) % (page_bytes / BLOCK_BYTES - 1));
        if (p + 1 >= guest_region_end(g, p) || !guest_claim(g, p))
            continue;
        if (worker_random(w) % 2)
            guest_stamp(w, p + 1);
        atomic_store(&w->doing, "discarding a page and a part");
        if (madvise(guest_page(g, p), page_bytes + part, MADV_DONTNEED) < 0)
            peer_die(PEER_EXIT_ABSENT, errno, "MADV_DONTNEED of a part of a huge page");
        w->tally.discards++;
        w->tally.pages_discarded++;
        guest_release(g, p, CONTENT_ZERO);
        check_range(w, p, 2);
    }
}

/* One page through read(2): the kernel writes what the page is to hold next. */
static void syscall_fill(struct worker *w, uint64_t p, int fd, uint64_t *file)
{
    struct guest *g = w->guest;
    uint64_t k, page_bytes = 1ull << g->page_shift, block = p * (page_bytes / BLOCK_BYTES);

    for (k = 0; k < page_bytes / 8; k++)
        file[k] = oracle_own(&g->oracle, block + k / BLOCK_WORDS, (unsigned)(k % BLOCK_WORDS),
                             guest_op(g, p));
    atomic_store(&w->doing, "read(2) into it");
    if (pread(fd, guest_page(g, p), page_bytes, 0) != (ssize_t)page_bytes)
        peer_die(PEER_EXIT_ABSENT, errno, "read(2) into guest memory");
    atomic_fetch_or(&g->touched[p], 3);
    guest_release(g, p, CONTENT_OWN);
}

/* One page through write(2): the kernel reads it; guest_check() says later whether the page is right. */
static void syscall_drain(struct worker *w, uint64_t p, int fd, const uint64_t *file)
{
    struct guest *g = w->guest;
    uint64_t page_bytes = 1ull << g->page_shift;

    atomic_store(&w->doing, "write(2) from it");
    if (pwrite(fd, guest_page(g, p), page_bytes, 0) != (ssize_t)page_bytes)
        peer_die(PEER_EXIT_ABSENT, errno, "write(2) from guest memory");
    atomic_fetch_or(&g->touched[p], 1);
    if (memcmp(file, guest_page(g, p), page_bytes) != 0)
        worker_error(w, p, p * (page_bytes / BLOCK_BYTES), 0, 0, 1);
    guest_unclaim(g, p);
}

/* write(2) out of guest memory and read(2) into it: the kernel itself faults. */
static void use_syscalls(struct worker *w, const struct op *op)
{
    uint64_t page_bytes = 1ull << w->guest->page_shift, i, p;
    int fd = memfd_create("fakevmm", MFD_CLOEXEC);
    uint64_t *file;

    if (fd < 0 || ftruncate(fd, (off_t)page_bytes) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "memfd");
    file = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (file == MAP_FAILED)
        peer_die(PEER_EXIT_ABSENT, errno, "memfd");
    for (i = 0; i < op->n; i++) {
        p = random_page(w);
        if (!guest_claim(w->guest, p))
            continue;
        atomic_store(&w->doing_page, p);
        if (worker_random(w) % 2)
            syscall_fill(w, p, fd, file);
        else
            syscall_drain(w, p, fd, file);
        w->tally.syscalls++;
        guest_check(w, p);
    }
    munmap(file, page_bytes);
    close(fd);
}

static void say(const char *line)
{
    if (write(STDOUT_FILENO, line, strlen(line)) != (ssize_t)strlen(line))
        peer_die(PEER_EXIT_ABSENT, errno, "stdout");
}

static void wait_for_line(struct worker *w)
{
    char c;

    atomic_store(&w->doing, "waiting for a line on stdin");
    while (read(STDIN_FILENO, &c, 1) == 1 && c != '\n')
        ;
}

/* Stop here until the one who started this program has had a look. */
static void pause_here(struct worker *w, const struct op *op)
{
    (void)op;
    if (w->id != 0)
        return;
    say("paused\n");
    wait_for_line(w);
}

/*
 * A flood, until a line arrives on stdin. Thread 0 waits for that line. Thread 1 is the one who must not suffer: it reads
 * the pages of the second half, each once, one every op->n microseconds, and says so when it is through. All others
 * discard pages of the first half as fast as they can, each in a slice of its own.
 */
static atomic_bool flood_over;

static void note_slowest(struct worker *w, uint64_t began_ns)
{
    uint64_t took_ns = clock_ns() - began_ns;

    w->tally.slowest_ns = took_ns > w->tally.slowest_ns ? took_ns : w->tally.slowest_ns;
}

static void flood_suffer(struct worker *w, const struct op *op)
{
    uint64_t p = op->first + (op->end - op->first) / 2, t;

    for (; p < op->end && !atomic_load(&flood_over); p++) {
        t = clock_ns();
        guest_check(w, p);
        note_slowest(w, t);
        usleep((useconds_t)op->n);
    }
    if (p == op->end)
        say("served\n");
}

/* Return: true if this thread is one of those that discard; then [*p, *end) is its slice */
static bool flood_cast(struct worker *w, const struct op *op, uint64_t *p, uint64_t *end)
{
    uint64_t n = (op->end - op->first) / 2;

    if (w->id == 0) {
        say("flooding\n");
        wait_for_line(w);
        atomic_store(&flood_over, true);
    }
    if (w->id == 1)
        flood_suffer(w, op);
    if (w->id < 2)
        return false;
    *p = op->first + n * (w->id - 2) / (op->n_threads - 2);
    *end = op->first + n * (w->id - 1) / (op->n_threads - 2);
    return *p < *end;
}

static void flood(struct worker *w, const struct op *op)
{
    uint64_t i, p, end;

    if (!flood_cast(w, op, &p, &end))
        return;
    for (i = 0; !atomic_load(&flood_over); i++)
        guest_discard(w, p + i % (end - p), 1);
}

/* The same with memory that is used: what was given back is written to and read again. */
static void churn(struct worker *w, const struct op *op)
{
    uint64_t i, at, p, end, t;

    if (!flood_cast(w, op, &p, &end))
        return;
    for (i = 0; !atomic_load(&flood_over); i++) {
        at = p + i % (end - p);
        guest_discard(w, at, 1);
        t = clock_ns();
        guest_stamp(w, at);
        note_slowest(w, t);
        guest_check(w, at);
    }
}

const struct op_kind op_kinds[] = {
    {"seq", read_seq, 1, 1, "read every page in order"},
    {"shuffle", read_shuffled, 1, 1, "read every page once, in a random order"},
    {"random", read_random, 4, 1000, "N times: read any page"},
    {"stamp", stamp_seq, 1, 1, "write one word to every page in order, then read them"},
    {"write", write_random, 4, 1000, "N times: write all or a word of a page, read it"},
    {"runs", read_runs, 4, 60, "N times: read a run of up to 32 pages"},
    {"herd", herd, 64, 100, "N times: all threads read the same page"},
    {"discard", discard_loop, 1, 200, "N times: discard, read, write, discard, read"},
    {"drop", discard_all, 1, 1, "discard every page, touch none"},
    {"balloon", balloon, 4, 1500, "N times: one thread discards, the others read and write"},
    {"race", race, 2, 1000, "N times: one thread discards pages that the others are writing"},
    {"spans", discard_spans, 2, 100, "N times: discard over gaps and region borders"},
    {"remap", remap, 2, 300, "N times: map over guest memory, read beside it"},
    {"partly", discard_partly, 1, 20, "N times: discard a huge page and a part of the next"},
    {"syscalls", use_syscalls, 2, 300, "N times: read(2) into, write(2) from guest memory"},
    {"flood", flood, 8, 1000,
     "until a line on stdin: discard; one thread reads beside it every N us"},
    {"churn", churn, 8, 1000, "the same; what was discarded is used again"},
    {"verify", read_seq, 2, 1, "read every page, whatever it must hold"},
    {"pause", pause_here, 1, 1, "print \"paused\" and wait for a line on stdin"},
    {NULL, NULL, 0, 0, NULL},
};
