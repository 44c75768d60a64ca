/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ahead_guest.c - the guest's process
 *
 * As much memory as the guest has is used and freed first (see bench_memory_wake()). Then the memory is mapped and handed over,
 * the guest waits until it may resume, and works. Last, every page that is there is compared with the file.
 *
 * How much is installed meanwhile is seen from here: the server installs in the order of the file, so where it is can be found
 * with a few looks at single pages (mincore(2)). A rate then is of just the time in which the guest worked.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "cli/bench/ahead_run.h"
#include "cli/bench/base.h"
#include "cli/bench/touch.h"

#define PAGE_BYTES     4096u
#define LOOK_EACH      64u /* samples between two looks whether the installing is over */
#define PAUSE_NS       (100 * NS_PER_US)
#define DISCARDS_MAX   256u
#define DISCARDS_BYTES (64 * MIB) /* of one length, but one at least */

const uint64_t ahead_lengths[AHEAD_N_LENGTHS] = {4 * KIB, 64 * KIB, 2 * MIB, 16 * MIB, 64 * MIB};

/* struct guest - that runs */
struct guest {
    const struct ahead_part *part;
    struct bench_task task;
    char *memory;
    uint64_t *ticks; /* one a sample */
};

static bool is_present(const struct guest *g, uint64_t page)
{
    unsigned char there = 0;

    (void)mincore(g->memory + page * PAGE_BYTES, PAGE_BYTES, &there);
    return there & 1;
}

/* How many of the first @n_pages are there, given that they are installed in order. */
static uint64_t find_front(const struct guest *g, uint64_t n_pages)
{
    uint64_t low = 0;
    uint64_t high = n_pages;

    while (low < high) {
        uint64_t middle = (low + high) / 2;

        if (is_present(g, middle))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int wait_for_news(const struct ahead_part *part, char news)
{
    char got;

    do {
        if (read(part->news, &got, 1) != 1)
            return err_origin(-EPIPE, "the server ended");
    } while (got != news);
    return 0;
}

/* Discards without a pause leave the kernel no time for installs: it refuses them from each discard's call until its thread runs
 * on. The guest works in between, as guests do. */
static void pause_between(const struct guest *g)
{
    uint64_t until_ns = clock_now_ns() + PAUSE_NS;

    while (g->part->c->work == AHEAD_DISCARD && clock_now_ns() < until_ns)
        continue;
}

/* sample() - one touch or one discard. Return: its ticks */
static uint64_t sample(const struct guest *g, uint32_t page)
{
    const struct bench_clock *clock = &g->part->ahead->clock;
    char *at = g->memory + (uint64_t)page * PAGE_BYTES;
    uint64_t begin = bench_clock_ticks(clock);

    assert(g->memory);
    if (g->part->c->work == AHEAD_DISCARD)
        (void)madvise(at, PAGE_BYTES, MADV_DONTNEED);
    else
        (void)*(volatile char *)at;
    return bench_clock_ticks(clock) - begin;
}

/* Single pages of the plan, until it or the installing is over. */
static void take_samples(struct guest *g)
{
    const struct bench_plan *plan = g->task.plan;
    struct ahead_shared *s = g->part->shared;
    uint64_t n_pages = g->part->c->set_bytes / PAGE_BYTES;
    uint64_t front = find_front(g, n_pages);
    uint64_t begin_ns = clock_now_ns();
    uint64_t end_ns;
    uint32_t n = 0;

    while (n < plan->n &&
           (n == 0 || n % LOOK_EACH || n_pages == 0 || !is_present(g, n_pages - 1))) {
        g->ticks[n] = sample(g, plan->pages[n]);
        n++;
        pause_between(g);
    }
    end_ns = clock_now_ns();
    s->window_rate_bps = (double)((find_front(g, n_pages) - front) * PAGE_BYTES) *
                         (double)NS_PER_S / (double)(clock_now_ns() - begin_ns);
    s->n_samples = n;
    s->report.total_ns = (double)(end_ns - begin_ns);
    bench_summarise(&s->report.touch, g->ticks, n, g->task.clock);
}

/* Ranges that are there, one behind the other, shorter ones first. */
static int discard_ranges(struct guest *g)
{
    const struct bench_clock *clock = g->task.clock;
    uint64_t off = 0;

    for (unsigned i = 0; i < AHEAD_N_LENGTHS; i++) {
        uint64_t len = ahead_lengths[i];
        uint64_t n_max = max_u64(1, min_u64(DISCARDS_MAX, DISCARDS_BYTES / len / 2));
        struct bench_summary summary;
        unsigned n = 0;

        while (n < n_max && off + len <= g->part->ahead->size_bytes) {
            uint64_t begin = bench_clock_ticks(clock);

            if (madvise(g->memory + off, len, MADV_DONTNEED) < 0)
                return err_origin_errno(-errno, "madvise");
            g->ticks[n++] = bench_clock_ticks(clock) - begin;
            off += len;
        }
        if (n == 0)
            continue;
        bench_summarise(&summary, g->ticks, n, clock);
        g->part->shared->discard_ns[i] = summary.p50_ns;
    }
    return 0;
}

static int work(struct guest *g)
{
    struct ahead_shared *s = g->part->shared;

    switch (g->part->c->work) {
    case AHEAD_WAIT:
        return wait_for_news(g->part, AHEAD_OVER);
    case AHEAD_TOUCH: {
        struct bench_task task = g->task;

        task.page_bytes =
            PAGE_BYTES; /* what is touched stays the same with pages of another size */
        return bench_touch(&task, g->memory, &s->report);
    }
    case AHEAD_SAMPLE:
    case AHEAD_DISCARD:
        take_samples(g);
        return 0;
    default:
        return discard_ranges(g);
    }
}

static void count_present(struct guest *g)
{
    uint64_t n_pages = g->part->image->size_bytes / PAGE_BYTES;
    unsigned char *there = calloc(n_pages, 1);

    if (there && mincore(g->memory, g->part->image->size_bytes, there) == 0) {
        for (uint64_t i = 0; i < n_pages; i++)
            g->part->shared->present_bytes += (uint64_t)(there[i] & 1) * PAGE_BYTES;
    }
    free(there);
}

/* Every page that is there; of those that were touched, that they are. */
static int compare(struct guest *g)
{
    const struct bench_plan none = {0};
    struct bench_task task = g->task;
    struct bench_report *rep = &g->part->shared->report;
    int r;

    if (g->part->c->work != AHEAD_TOUCH)
        task.plan = &none;
    task.page_bytes = PAGE_BYTES;
    r = bench_vmm_compare(&task, g->memory, rep);
    if (r == 0 && rep->n_wrong > 0)
        r = err_origin(-EBADMSG, "wrong bytes: %ju pages, the first is page %ju",
                       (uintmax_t)rep->n_wrong, (uintmax_t)rep->first_wrong);
    return r;
}

/* populate() - the kernel's own ranges, to be discarded */
static int populate(const struct guest *g)
{
    assert(g->memory);
    for (uint64_t off = 0; off < g->part->ahead->size_bytes; off += PAGE_BYTES)
        *(volatile char *)(g->memory + off) = 1;
    return 0;
}

/* The first faults of a guest whose memory nobody installs ahead are left out, as its start-up is. */
static void warm_up(const struct guest *g)
{
    uint64_t size = g->part->image->size_bytes;

    assert(g->memory);
    for (uint64_t off = size - bench_reserved_bytes(PAGE_BYTES); off < size; off += PAGE_BYTES)
        (void)*(volatile const char *)(g->memory + off);
}

static int start(struct guest *g)
{
    const struct ahead_case *c = g->part->c;
    int r = bench_memory_wake(g->part->image->size_bytes, c->page_bytes);

    if (r == 0)
        r = c->server == AHEAD_NOBODY ? bench_base_map(&g->task, &g->memory)
                                      : bench_vmm_attach(&g->task, &g->memory);
    if (r < 0)
        return r;
    g->part->shared->attached_ns = clock_now_ns();
    if (c->server != AHEAD_NOBODY)
        r = wait_for_news(g->part, AHEAD_RESUME);
    else if (c->work == AHEAD_DISCARDS)
        r = populate(g);
    g->part->shared->resumed_ns = clock_now_ns();
    if (r == 0 && c->server == AHEAD_THAW && !c->set_path)
        warm_up(g);
    return r;
}

static int ping(const struct ahead_part *part, const struct bench_task *task)
{
    struct bench_ping p;
    int r = bench_ping_start(&p, task);

    if (r == 0)
        r = bench_ping_measure(&p, task, &part->shared->report);
    if (r == 0)
        bench_ping_stop(&p);
    return r;
}

static int play(struct guest *g)
{
    const struct ahead_case *c = g->part->c;
    int r = start(g);

    if (r == 0)
        r = work(g);
    if (r < 0)
        return r;
    count_present(g);
    if (c->server != AHEAD_NOBODY)
        r = compare(g);
    return r;
}

int ahead_guest(const struct ahead_part *part)
{
    const struct ahead *a = part->ahead;
    struct guest g = {
        .part = part,
        .task =
            {
                .kind = part->c->server != AHEAD_NOBODY ? BENCH_HANDLER
                        : part->c->is_anonymous         ? BENCH_ANON
                                                        : BENCH_FILE,
                .image = part->image,
                .plan = &a->plan,
                .clock = &a->clock,
                .socket_path = part->socket_path,
                .no_events = part->c->server == AHEAD_RAW, /* it would not answer */
                .page_bytes = part->c->page_bytes,
                .n_threads = part->c->n_threads,
                .n_round_trips = a->n_faults,
                .cpu = part->cpu,
                .partner_cpu = part->partner_cpu,
            },
    };
    int r = bench_cpu_bind(part->cpu);

    if (r < 0)
        return r;
    if (part->c->work == AHEAD_PING)
        return ping(part, &g.task);
    g.ticks = calloc(max_u64(a->n_faults, DISCARDS_MAX), sizeof(*g.ticks));
    if (!g.ticks)
        return err_origin(-ENOMEM, "no memory for samples");
    memset(g.ticks, 0, max_u64(a->n_faults, DISCARDS_MAX) * sizeof(*g.ticks));
    r = play(&g);
    free(g.ticks);
    return r;
}
