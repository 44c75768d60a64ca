/* SPDX-License-Identifier: Apache-2.0 */
/*
 * touch.c - the timed part
 *
 * Each thread has an even share of the plan, as one piece: a sequential plan is then one stream a
 * thread. All that the loop itself needs is touched before the clock starts, so that the faults in
 * it are the measured memory's.
 *
 * A read touch loads the page's first word and compares it with what the snapshot has there; a
 * write touch (the baselines that make private copies) stores into it. The number of faults is the
 * kernel's count for the thread. A fault that a handler answered counts once, whether the kernel
 * calls it minor or major.
 */

#include "cli/bench/touch.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/err.h"

/* One thread's share. */
struct share {
    const struct bench_task *task;
    char *memory;
    pthread_barrier_t *start;
    struct bench_progress *progress;
    const uint32_t *pages;
    uint64_t *ticks; /* one a page */
    uint32_t n;
    uint64_t begin;
    uint64_t end;
    uint64_t n_faults;
    uint64_t n_wrong;
    uint64_t first_wrong; /* 4 KiB page */
};

int bench_cpu_bind(int cpu)
{
    cpu_set_t set;

    if (cpu < 0)
        return 0;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        return err_origin_errno(-errno, "cannot run on core %d", cpu);
    return 0;
}

static uint64_t thread_faults(void)
{
    struct rusage usage;

    (void)getrusage(RUSAGE_THREAD, &usage);
    return (uint64_t)usage.ru_minflt + (uint64_t)usage.ru_majflt;
}

static void read_pages(struct share *s)
{
    const struct bench_clock *clock = s->task->clock;
    const struct bench_image *im = s->task->image;
    uint64_t page_bytes = s->task->page_bytes;
    uint64_t image_pages = page_bytes / 4096; /* of the page */

    for (uint32_t i = 0; i < s->n; i++) {
        volatile const uint64_t *word = (void *)(s->memory + s->pages[i] * page_bytes);
        uint64_t begin = bench_clock_ticks(clock);
        uint64_t value = *word;

        s->ticks[i] = bench_clock_ticks(clock) - begin;
        if (value != bench_image_word(bench_image_page_key(im, s->pages[i] * image_pages), 0)) {
            if (s->n_wrong++ == 0)
                s->first_wrong = s->pages[i] * image_pages;
        }
        atomic_store_explicit(&s->progress->n_touched, i + 1, memory_order_relaxed);
    }
}

static void write_pages(struct share *s)
{
    const struct bench_clock *clock = s->task->clock;
    uint64_t page_bytes = s->task->page_bytes;

    for (uint32_t i = 0; i < s->n; i++) {
        volatile uint64_t *word = (void *)(s->memory + s->pages[i] * page_bytes);
        uint64_t begin = bench_clock_ticks(clock);

        *word = i;
        s->ticks[i] = bench_clock_ticks(clock) - begin;
        atomic_store_explicit(&s->progress->n_touched, i + 1, memory_order_relaxed);
    }
}

static void *touch_share(void *arg)
{
    struct share *s = arg;
    enum bench_kind kind = s->task->kind;
    uint64_t faults;

    memset(s->ticks, 0, s->n * sizeof(*s->ticks));
    atomic_store(&s->progress->n_touched, 0);
    (void)thread_faults();
    (void)pthread_barrier_wait(s->start);
    faults = thread_faults();
    s->begin = bench_clock_ticks(s->task->clock);
    if (kind == BENCH_ANON || kind == BENCH_FILE_WRITE)
        write_pages(s);
    else
        read_pages(s);
    s->end = bench_clock_ticks(s->task->clock);
    s->n_faults = thread_faults() - faults;
    return NULL;
}

static void collect(const struct bench_task *t, const struct share *shares, uint64_t *ticks,
                    struct bench_report *rep)
{
    uint64_t begin = UINT64_MAX;
    uint64_t end = 0;

    for (unsigned i = 0; i < t->n_threads; i++) {
        begin = min_u64(begin, shares[i].begin);
        end = max_u64(end, shares[i].end);
        rep->n_faults += shares[i].n_faults;
        if (shares[i].n_wrong > 0 && rep->n_wrong == 0) {
            rep->first_wrong = shares[i].first_wrong;
            rep->first_wrong_byte = 0;
        }
        rep->n_wrong += shares[i].n_wrong;
    }
    rep->n_touched = t->plan->n;
    rep->total_ns = (double)(end - begin) * t->clock->ns_per_tick;
    bench_summarise(&rep->touch, ticks, t->plan->n, t->clock);
}

/* Starts the other threads, does the first share itself, waits for the others. */
static int run_shares(struct share *shares, unsigned n)
{
    pthread_t threads[BENCH_THREADS_MAX];

    for (unsigned i = 1; i < n; i++) {
        int r = pthread_create(&threads[i], NULL, touch_share, &shares[i]);

        /* those that run wait at the barrier for ever; the process is about to end */
        if (r != 0)
            return err_origin_errno(-r, "cannot start thread %u", i);
    }
    (void)touch_share(&shares[0]);
    for (unsigned i = 1; i < n; i++)
        (void)pthread_join(threads[i], NULL);
    return 0;
}

int bench_touch(const struct bench_task *t, char *memory, struct bench_report *rep)
{
    static struct share shares[BENCH_THREADS_MAX];
    const struct bench_plan *plan = t->plan;
    pthread_barrier_t start;
    uint64_t *ticks;
    int r;

    assert(t->n_threads > 0 && t->n_threads <= BENCH_THREADS_MAX);
    ticks = calloc(plan->n, sizeof(*ticks));
    if (!ticks)
        return err_origin(-ENOMEM, "no memory for %u samples", plan->n);
    (void)pthread_barrier_init(&start, NULL, t->n_threads);
    for (unsigned i = 0; i < t->n_threads; i++) {
        uint32_t first = (uint32_t)((uint64_t)plan->n * i / t->n_threads);
        uint32_t end = (uint32_t)((uint64_t)plan->n * (i + 1) / t->n_threads);

        shares[i] = (struct share){
            .task = t,
            .memory = memory,
            .start = &start,
            .progress = &rep->threads[i],
            .pages = plan->pages + first,
            .ticks = ticks + first,
            .n = end - first,
        };
    }
    r = run_shares(shares, t->n_threads);
    if (r == 0)
        collect(t, shares, ticks, rep);
    free(ticks);
    return r;
}
