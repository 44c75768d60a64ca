/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aims.c - what the pager is meant to reach
 *
 * The aims are ratios within one run wherever they can be: a fault that another process answers
 * costs two context switches or two wake-ups, and what these cost is the machine's affair. They
 * hold for one faulting thread and 4 KiB pages; a file that is in the page cache; for the latency,
 * pages in random order, one at a time.
 *
 * A round is an experiment by itself: all its runs are made within a short time. Where the rounds
 * do not agree about an aim, the answer is that this measurement does not tell.
 */

#include "cli/bench/aims.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char single_name[] = "thaw";
static const char around_name[] = "thaw-around";

struct aims {
    struct bench_aim *list;
    unsigned n;
};

static void add(struct aims *a, const struct bench_aim *aim)
{
    assert(a->n < BENCH_AIMS_MAX);
    if (!isnan(aim->figure))
        a->list[a->n++] = *aim;
}

static bool keeps(const struct bench_aim *aim, double figure)
{
    return aim->at_least ? figure >= aim->limit : figure <= aim->limit;
}

enum bench_verdict bench_aim_verdict(const struct bench_aim *aim)
{
    bool low_keeps = keeps(aim, aim->low);

    if (low_keeps != keeps(aim, aim->high))
        return BENCH_UNSETTLED;
    return low_keeps ? BENCH_MET : BENCH_MISSED;
}

const char *bench_verdict_name(enum bench_verdict verdict)
{
    static const char *const names[] = {
        [BENCH_MET] = "met",
        [BENCH_MISSED] = "missed",
        [BENCH_UNSETTLED] = "unsettled",
    };

    return names[verdict];
}

/* Sets the figure, @of divided by @by (a job, or NULL and then by @unit), and its range over the
 * rounds. */
static void set_figure(struct bench_aim *aim, enum bench_figure figure, const struct bench_job *of,
                       const struct bench_job *by, double unit)
{
    unsigned n = by && by->n_runs < of->n_runs ? by->n_runs : of->n_runs;

    aim->figure = of->median[figure] / (by ? by->median[figure] : unit);
    aim->low = INFINITY;
    aim->high = -INFINITY;
    for (unsigned i = 0; i < n; i++) {
        double one = of->runs[i][figure] / (by ? by->runs[i][figure] : unit);

        /* by hand: fmin() would load the maths library into every pager, which is the same program */
        aim->low = one < aim->low ? one : aim->low;
        aim->high = one > aim->high ? one : aim->high;
    }
}

static void add_latency(struct aims *a, const struct bench_results *res, enum bench_place place,
                        double limit)
{
    const struct bench_job *ping =
        bench_find_job(res, BENCH_PING_PONG, NULL, place, BENCH_RANDOM, 1);
    const struct bench_job *job =
        bench_find_job(res, BENCH_HANDLER, single_name, place, BENCH_RANDOM, 1);
    struct bench_aim aim = {.unit = "x ping-pong", .limit = limit};

    if (!ping || !job)
        return;
    (void)snprintf(aim.what, sizeof(aim.what), "p50 of a fault, %s", bench_place_name(place));
    set_figure(&aim, BENCH_P50_NS, job, ping, 1);
    add(a, &aim);
}

static void add_cpu(struct aims *a, const struct bench_results *res, enum bench_place place)
{
    const struct bench_job *job =
        bench_find_job(res, BENCH_HANDLER, single_name, place, BENCH_RANDOM, 1);
    struct bench_aim aim = {.unit = "us", .limit = 3};

    if (!job)
        return;
    (void)snprintf(aim.what, sizeof(aim.what), "handler CPU a fault, %s", bench_place_name(place));
    set_figure(&aim, BENCH_CPU_NS, job, NULL, 1000);
    add(a, &aim);
}

static void add_around(struct aims *a, const struct bench_results *res, enum bench_place place)
{
    const struct bench_job *single =
        bench_find_job(res, BENCH_HANDLER, single_name, place, BENCH_SEQUENTIAL, 1);
    const struct bench_job *around =
        bench_find_job(res, BENCH_HANDLER, around_name, place, BENCH_SEQUENTIAL, 1);
    struct bench_aim aim = {.unit = "x without", .limit = 6, .at_least = true};

    if (!single || !around)
        return;
    (void)snprintf(aim.what, sizeof(aim.what), "sequential with fault-around, %s",
                   bench_place_name(place));
    set_figure(&aim, BENCH_TOTAL_NS, single, around, 1);
    add(a, &aim);
}

static void add_rss(struct aims *a, const struct bench_results *res)
{
    for (unsigned i = 0; i < res->n_rss_jobs; i++) {
        const struct bench_job *job = &res->rss_jobs[i];
        struct bench_aim aim = {.unit = "MiB", .limit = 3};

        if (strcmp(job->handler->name, around_name) != 0)
            continue;
        (void)snprintf(aim.what, sizeof(aim.what), "handler RSS beyond the file, %llu MiB guest",
                       (unsigned long long)(res->options->rss_size_bytes / MIB));
        set_figure(&aim, BENCH_RSS, job, NULL, (double)MIB);
        add(a, &aim);
    }
}

unsigned bench_aims(const struct bench_results *res, struct bench_aim aims[BENCH_AIMS_MAX])
{
    static const enum bench_place places[] = {BENCH_SAME, BENCH_SPLIT};
    struct aims a = {.list = aims};

    if (res->options->page_bytes != 4096)
        return 0;
    add_latency(&a, res, BENCH_SAME, 1.8);
    add_latency(&a, res, BENCH_SPLIT, 1.2);
    for (unsigned i = 0; i < ARRAY_LEN(places); i++)
        add_cpu(&a, res, places[i]);
    for (unsigned i = 0; i < ARRAY_LEN(places); i++)
        add_around(&a, res, places[i]);
    add_rss(&a, res);
    return a.n;
}
