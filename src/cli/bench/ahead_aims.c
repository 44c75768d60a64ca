/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ahead_aims.c - what installing ahead is meant to reach, against what was measured beside it
 */

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/bench/ahead.h"

struct aims {
    const struct ahead *a;
    struct bench_aim *list;
    unsigned n;
};

static void widen(struct bench_aim *aim, double one)
{
    aim->low = one < aim->low ? one : aim->low;
    aim->high = one > aim->high ? one : aim->high;
}

/* value() - @figure of @f, and with before: what comes before the guest runs with it */
static double value(const double *f, enum ahead_figure figure, bool before)
{
    return f[figure] + (before && !isnan(f[AHEAD_BEFORE_NS]) ? f[AHEAD_BEFORE_NS] : 0);
}

struct ratio {
    const char *of;
    const char *by; /* NULL: by unit */
    enum ahead_figure figure;
    double unit;
    bool before; /* count the time before the guest runs, too */
};

static void add(struct aims *l, struct bench_aim aim, struct ratio q)
{
    const struct ahead_case *of = ahead_find(l->a, q.of);
    const struct ahead_case *by = q.by ? ahead_find(l->a, q.by) : NULL;

    if (!of || (q.by && !by))
        return;
    aim.figure = value(of->median, q.figure, q.before) /
                 (by ? value(by->median, q.figure, q.before) : q.unit);
    aim.low = INFINITY;
    aim.high = -INFINITY;
    for (unsigned i = 0; i < of->n_runs; i++)
        widen(&aim, value(of->runs[i], q.figure, q.before) /
                        (by ? value(by->runs[i], q.figure, q.before) : q.unit));
    assert(l->n < AHEAD_AIMS_MAX);
    if (!isnan(aim.figure))
        l->list[l->n++] = aim;
}

static struct bench_aim at_least(double limit, const char *unit)
{
    return (struct bench_aim){.limit = limit, .unit = unit, .at_least = true};
}

static struct bench_aim at_most(double limit, const char *unit)
{
    return (struct bench_aim){.limit = limit, .unit = unit};
}

#define SAY(aim, ...) ((void)snprintf((aim).what, sizeof((aim).what), __VA_ARGS__))

/* The quickest of the bare loops by one thread; @is_unmapped: that have to map the file's pages, as a pager has */
static const char *best_loop(const struct ahead *a, bool is_unmapped)
{
    const char *best = NULL;
    double most = 0;

    for (unsigned i = 0; i < a->n_cases; i++) {
        const struct ahead_case *c = &a->cases[i];

        if (c->server == AHEAD_RAW && c->n_threads == 1 && c->is_unmapped == is_unmapped &&
            !c->is_read && c->median[AHEAD_RATE_BPS] > most) {
            most = c->median[AHEAD_RATE_BPS];
            best = c->name;
        }
    }
    return best;
}

static void add_bulk(struct aims *l)
{
    static const char *const cases[] = {"after resume, slices of 32 KiB",
                                        "before resume, 1 thread"};
    struct bench_aim aim = at_least(1.6, "x one thread");

    for (unsigned i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        struct bench_aim share = at_least(0.9, "x the best bare loop");
        const char *best = best_loop(l->a, i % 2);

        if (!best)
            continue;
        SAY(share, "%s%s", cases[i / 2], i % 2 ? " (file not mapped before)" : "");
        add(l, share, (struct ratio){cases[i / 2], best, AHEAD_RATE_BPS, 0, false});
    }
    SAY(aim, "before resume, two threads");
    add(l, aim,
        (struct ratio){"before resume, 2 threads", "before resume, 1 thread", AHEAD_RATE_BPS, 0,
                       false});
}

/* One line of a case against another, in one placement. */
static void add_times(struct aims *l, struct bench_aim aim, const char *of, const char *by,
                      const char *tail, bool before)
{
    char of_name[64];
    char by_name[64];

    (void)snprintf(of_name, sizeof(of_name), "%s, %s", of, tail);
    (void)snprintf(by_name, sizeof(by_name), "%s, %s", by, tail);
    SAY(aim, "%s / %s, %s%s", of, by, tail, before ? ", with prefetch" : "");
    add(l, aim, (struct ratio){of_name, by_name, AHEAD_TOTAL_NS, 0, before});
}

static void add_scattered(struct aims *l)
{
    static const char *const tails[] = {"warm, free", "warm, awake", "cold, free", "slow, free"};
    static const char *const replays[] = {"replay before resume", "replay while it runs"};

    for (unsigned t = 0; t < ARRAY_LEN(tails); t++) {
        if (t < 2) {
            add_times(l, at_most(1.5, "x"), replays[0], "file mapping", tails[t], false);
            add_times(l, at_most(1.5, "x"), replays[0], "file mapping", tails[t], true);
        }
        if (t == 2) {
            add_times(l, at_least(2, "x"), "file mapping", replays[0], tails[t], true);
            add_times(l, at_least(2, "x"), "file mapping", replays[1], tails[t], true);
        }
        for (unsigned i = 0; i < ARRAY_LEN(replays); i++) {
            add_times(l, at_least(5, "x"), "demand only, 64 KiB", replays[i], tails[t], i == 0);
            add_times(l, at_least(5, "x"), "demand only, 4 KiB", replays[i], tails[t], i == 0);
        }
        add_times(l, at_least(5, "x"), "demand only, 64 KiB", replays[0], tails[t], false);
        add_times(l, at_least(5, "x"), "demand only, 4 KiB", replays[0], tails[t], false);
    }
}

static void add_latency_of(struct aims *l, const char *what, const char *place, double p50,
                           double p99)
{
    struct bench_aim aim = at_most(p50, "x without");
    char of[64];
    char by[64];

    (void)snprintf(of, sizeof(of), "%s, slices of 32 KiB, %s", what, place);
    (void)snprintf(by, sizeof(by), "%s, nothing else, %s", what, place);
    SAY(aim, "p50 of %s while 32 KiB slices are installed, %s", what, place);
    add(l, aim, (struct ratio){of, by, AHEAD_P50_NS, 0, false});
    aim = p99 > 10 ? at_most(p99, "us") : at_most(p99, "x without");
    SAY(aim, "p99 of the same, %s", place);
    add(l, aim, (struct ratio){of, p99 > 10 ? NULL : by, AHEAD_P99_NS, 1e3, false});
    aim = at_least(3.5, "GiB/s");
    SAY(aim, "installed meanwhile, %s", place);
    add(l, aim, (struct ratio){of, NULL, AHEAD_RATE_BPS, (double)GIB, false});
}

static void add_latency(struct aims *l)
{
    static const char *const places[] = {"split", "awake", "free"};

    for (unsigned i = 0; i < ARRAY_LEN(places); i++) {
        add_latency_of(l, "faults", places[i], 1.5, 2);
        add_latency_of(l, "discards", places[i], 2, 150);
    }
}

static void add_throughput(struct aims *l)
{
    static const char *const names[] = {"8 threads, split", "8 threads, awake"};

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        struct bench_aim aim = at_least(250000, "faults/s");

        struct bench_aim share = at_least(0.86, "x the bare handler");
        char bare[64];

        SAY(aim, "%s", names[i]);
        add(l, aim, (struct ratio){names[i], NULL, AHEAD_PER_S, 1, false});
        (void)snprintf(bare, sizeof(bare), "8 threads, bare handler%s", strchr(names[i], ','));
        SAY(share, "%s", names[i]);
        add(l, share, (struct ratio){names[i], bare, AHEAD_PER_S, 1, false});
    }
}

/*
 * What the pager adds to a discard, in wake-ups of a thread: half a ping-pong. The kernel's own part is that of memory which
 * came in the same way, from a process on another core, with nobody to be told.
 */
static void add_remove_of(struct aims *l, const char *pager, const char *place, unsigned length)
{
    enum ahead_figure figure = (enum ahead_figure)(AHEAD_DISCARD_NS + length);
    struct bench_aim aim = at_most(2, "wake-ups beyond the kernel's own");
    const struct ahead_case *c, *own, *ping;
    char name[64];

    (void)snprintf(name, sizeof(name), "%s, %s", pager, place);
    c = ahead_find(l->a, name);
    (void)snprintf(name, sizeof(name), "userfaultfd, no events, %s", place);
    own = ahead_find(l->a, name);
    (void)snprintf(name, sizeof(name), "ping-pong, %s", place);
    ping = ahead_find(l->a, name);
    if (!c || !own || !ping || isnan(c->median[figure]))
        return;
    SAY(aim, "discard of %llu KiB, %s, %s", (unsigned long long)(ahead_lengths[length] / KIB),
        pager, place);
    aim.figure = (c->median[figure] - own->median[figure]) / (ping->median[AHEAD_P50_NS] / 2);
    aim.low = INFINITY;
    aim.high = -INFINITY;
    for (unsigned k = 0; k < c->n_runs; k++)
        widen(&aim,
              (c->runs[k][figure] - own->runs[k][figure]) / (ping->runs[k][AHEAD_P50_NS] / 2));
    l->list[l->n++] = aim;
}

static void add_remove(struct aims *l)
{
    static const char *const places[] = {"split", "awake"};
    static const char *const pagers[] = {"pager idle", "pager busy"};

    for (unsigned i = 0; i < ARRAY_LEN(places) * ARRAY_LEN(pagers); i++) {
        for (unsigned length = 0; length < AHEAD_N_LENGTHS; length++)
            add_remove_of(l, pagers[i % 2], places[i / 2], length);
    }
}

unsigned ahead_aims(const struct ahead *a, struct bench_aim aims[AHEAD_AIMS_MAX])
{
    static void (*const adders[AHEAD_N_MEASUREMENTS])(struct aims *) = {
        [AHEAD_BULK] = add_bulk,       [AHEAD_SCATTERED] = add_scattered,
        [AHEAD_LATENCY] = add_latency, [AHEAD_THROUGHPUT] = add_throughput,
        [AHEAD_REMOVE] = add_remove,
    };
    struct aims l = {.a = a, .list = aims};

    if (adders[a->what])
        adders[a->what](&l);
    return l.n;
}
