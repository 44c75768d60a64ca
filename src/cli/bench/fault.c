/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault.c - `thaw bench fault`: what a page fault costs, and compared with what
 *
 *     options -> jobs -> rounds of runs -> medians -> table, aims, JSON
 *
 * Jobs are handlers times patterns times thread counts times placements, and the baselines in the
 * same ways. Each round runs all jobs in a fresh random order: whatever changes on the machine in
 * the meantime hits all alike. A figure is the median over the rounds of each run's own figure.
 *
 * The memory of handlers is measured last, on a larger guest that is touched from end to end.
 *
 * The first failing run ends the benchmark: figures beside wrong bytes are worth nothing.
 */

#include "cli/bench/fault.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/procfs.h"
#include "cli/bench/job.h"
#include "cli/bench/ground.h"
#include "cli/bench/json.h"
#include "cli/bench/options.h"
#include "cli/bench/run.h"
#include "cli/bench/sample.h"
#include "cli/bench/table.h"
#include "cli/cli.h"

#define MEASUREMENT    "bench fault"
#define RSS_ROUNDS_MAX 3u /* touching all of a large guest takes seconds */

/* All that is allocated or made on disk. */
struct bench {
    struct bench_options options;
    struct bench_ground ground;
    struct bench_image image;
    struct bench_image rss_image;
    struct bench_plan plans[BENCH_N_PATTERNS];
    struct bench_plan rss_plan;
    struct bench_results results;
};

static struct bench_job *add_job(struct bench_results *res, const struct bench_job *job)
{
    struct bench_job *added = &res->jobs[res->n_jobs];

    *added = *job;
    added->runs = calloc(res->options->n_rounds, sizeof(*added->runs));
    if (!added->runs)
        return NULL;
    res->n_jobs++;
    return added;
}

/* The handlers and the kernel's own faults, in one pattern, by so many threads, in one placement.
 */
static int add_jobs_of(struct bench_results *res, struct bench_job job)
{
    static const enum bench_kind kinds[] = {BENCH_ANON, BENCH_FILE, BENCH_FILE_WRITE};
    const struct bench_options *o = res->options;

    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        job.kind = kinds[i];
        /* a mapped file has no 2 MiB pages to compare with */
        if (kinds[i] != BENCH_ANON && o->page_bytes != 4096)
            continue;
        if (!add_job(res, &job))
            return -ENOMEM;
    }
    for (unsigned i = 0; i < o->n_handlers; i++) {
        job.kind = BENCH_HANDLER;
        job.handler = &o->handlers[i];
        if (!add_job(res, &job))
            return -ENOMEM;
    }
    return 0;
}

static int add_jobs_in_place(struct bench_results *res, enum bench_place place)
{
    const struct bench_options *o = res->options;
    int r = 0;

    if (!add_job(res, &(struct bench_job){.kind = BENCH_PING_PONG, .place = place, .n_threads = 1}))
        return -ENOMEM;
    for (unsigned t = 0; t < o->n_threads; t++) {
        for (unsigned p = 0; r == 0 && p < BENCH_N_PATTERNS; p++) {
            if (o->patterns[p])
                r = add_jobs_of(res, (struct bench_job){.place = place,
                                                        .pattern = (enum bench_pattern)p,
                                                        .n_threads = o->threads[t]});
        }
    }
    return r;
}

static int make_jobs(struct bench *b)
{
    struct bench_results *res = &b->results;
    const struct bench_options *o = &b->options;
    unsigned per_place = 1 + o->n_threads * BENCH_N_PATTERNS * (o->n_handlers + 3);
    int r = 0;

    res->jobs = calloc((size_t)BENCH_N_PLACES * per_place, sizeof(*res->jobs));
    res->rss_jobs = calloc(o->n_handlers, sizeof(*res->rss_jobs));
    if (!res->jobs || !res->rss_jobs)
        r = -ENOMEM;
    for (unsigned place = 0; r == 0 && place < BENCH_N_PLACES; place++) {
        bool needs_two = place == BENCH_SPLIT || place == BENCH_AWAKE;

        if (o->places[place] && (!needs_two || b->ground.cpus[1] >= 0))
            r = add_jobs_in_place(res, (enum bench_place)place);
    }
    if (r < 0)
        return err_origin(r, "no memory for the list of runs");
    if (res->n_jobs == 0)
        return err_origin(-EINVAL, "nothing to do: this placement needs two cores, there is one");
    return 0;
}

static int make_ground(struct bench *b)
{
    struct bench_ground *g = &b->ground;
    const struct bench_options *o = &b->options;
    uint64_t n_pages = (o->size_bytes - bench_reserved_bytes(o->page_bytes)) / o->page_bytes;
    ssize_t n;
    int r;

    g->options = o;
    bench_choose_cores(g->cpus);
    bench_clock_init(&g->clock);
    n = readlink("/proc/self/exe", g->self, sizeof(g->self) - 1);
    if (n < 0)
        return err_origin_errno(-errno, "/proc/self/exe");
    r = bench_make_dir(g->dir, sizeof(g->dir), o->dir_path);
    if (r == 0)
        r = bench_image_create(&b->image, g->dir, "memory", o->size_bytes, false);
    for (unsigned p = 0; r == 0 && p < BENCH_N_PATTERNS; p++)
        r = bench_plan_init(&b->plans[p], (enum bench_pattern)p, (uint32_t)n_pages, o->n_faults,
                            o->seed);
    return r;
}

static int run_job(struct bench *b, struct bench_job *job)
{
    return bench_run(&b->ground, job, &b->image, &b->plans[job->pattern], job->runs[job->n_runs++]);
}

/* A line that overwrites itself, for people only. */
static void show_progress(unsigned done, unsigned all)
{
    if (!isatty(STDERR_FILENO))
        return;
    if (done < all)
        fprintf(stderr, "\rrun %u of %u ", done + 1, all);
    else
        fprintf(stderr, "\r%30s\r", "");
}

static int run_rounds(struct bench *b)
{
    struct bench_results *res = &b->results;
    unsigned n_rounds = b->options.n_rounds;
    unsigned *order = calloc(res->n_jobs, sizeof(*order));
    uint64_t random = (b->options.seed << 1) | 1;
    int r = 0;

    if (!order)
        return err_origin(-ENOMEM, "no memory for the order of %u jobs", res->n_jobs);
    for (unsigned i = 0; i < res->n_jobs; i++)
        order[i] = i;
    for (unsigned round = 0; r == 0 && round < n_rounds; round++) {
        bench_shuffle(order, res->n_jobs, &random);
        for (unsigned i = 0; r == 0 && i < res->n_jobs; i++) {
            show_progress(round * res->n_jobs + i, n_rounds * res->n_jobs);
            r = run_job(b, &res->jobs[order[i]]);
        }
    }
    show_progress(1, 1);
    free(order);
    return r;
}

/* Room for the guest, for the file in the page cache, and for everybody else. */
static bool has_room_for_rss(struct bench *b)
{
    uint64_t available_kib;
    uint64_t bytes = b->options.rss_size_bytes;

    if (bytes == 0) {
        (void)snprintf(b->results.rss_note, sizeof(b->results.rss_note), "left out (--rss-size 0)");
        return false;
    }
    if (b->options.page_bytes != 4096) {
        (void)snprintf(b->results.rss_note, sizeof(b->results.rss_note),
                       "left out (measured with 4 KiB pages only)");
        return false;
    }
    if (procfs_field_u64("/proc/meminfo", "MemAvailable", 10, &available_kib) == 0 &&
        available_kib * KIB < 3 * bytes) {
        (void)snprintf(b->results.rss_note, sizeof(b->results.rss_note),
                       "left out: %llu MiB of memory are available, %llu are needed",
                       available_kib / KIB, 3 * bytes / MIB);
        return false;
    }
    return true;
}

static int run_rss(struct bench *b)
{
    struct bench_results *res = &b->results;
    const struct bench_options *o = &b->options;
    uint64_t n_pages = (o->rss_size_bytes - bench_reserved_bytes(4096)) / 4096;
    unsigned n_runs = (unsigned)min_u64(o->n_rounds, RSS_ROUNDS_MAX);
    int r;

    assert(n_runs > 0);
    if (!has_room_for_rss(b))
        return 0;
    r = bench_image_create(&b->rss_image, b->ground.dir, "memory-large", o->rss_size_bytes, true);
    if (r == 0)
        r = bench_plan_init(&b->rss_plan, BENCH_SEQUENTIAL, (uint32_t)n_pages, (uint32_t)n_pages,
                            o->seed);
    for (unsigned i = 0; r == 0 && i < o->n_handlers; i++) {
        struct bench_job *job = &res->rss_jobs[res->n_rss_jobs++];

        *job = (struct bench_job){
            .kind = BENCH_HANDLER,
            .handler = &o->handlers[i],
            .place = BENCH_SAME,
            .pattern = BENCH_SEQUENTIAL,
            .n_threads = 1,
            .runs = calloc(n_runs, sizeof(*job->runs)),
        };
        if (!job->runs)
            return err_origin(-ENOMEM, "no memory for %u runs", n_runs);
        while (r == 0 && job->n_runs < n_runs)
            r = bench_run(&b->ground, job, &b->rss_image, &b->rss_plan, job->runs[job->n_runs++]);
    }
    return r;
}

static int take_medians(struct bench_job *job)
{
    double *values = calloc(job->n_runs, sizeof(*values));

    if (!values)
        return err_origin(-ENOMEM, "no memory for %u runs", job->n_runs);
    for (unsigned f = 0; f < BENCH_N_FIGURES; f++) {
        unsigned n = 0;

        for (unsigned i = 0; i < job->n_runs; i++) {
            if (!isnan(job->runs[i][f]))
                values[n++] = job->runs[i][f];
        }
        job->median[f] = n ? bench_median(values, n) : NAN;
    }
    free(values);
    return 0;
}

static int measure(struct bench *b)
{
    struct bench_results *res = &b->results;
    int r;

    res->options = &b->options;
    r = make_ground(b);
    if (r == 0)
        r = make_jobs(b);
    if (r == 0)
        r = run_rounds(b);
    if (r == 0)
        r = run_rss(b);
    for (unsigned i = 0; r == 0 && i < res->n_jobs; i++)
        r = take_medians(&res->jobs[i]);
    for (unsigned i = 0; r == 0 && i < res->n_rss_jobs; i++)
        r = take_medians(&res->rss_jobs[i]);
    if (r < 0)
        return r;
    memcpy(res->cpus, b->ground.cpus, sizeof(res->cpus));
    res->n_runs = b->ground.n_runs;
    res->n_busy_runs = b->ground.n_busy_runs;
    res->clock_name = bench_clock_name(&b->ground.clock);
    res->clock_overhead_ns = b->ground.clock.overhead_ns;
    bench_table_print(res, stdout);
    return b->options.json_path ? bench_json_write(res, b->options.json_path) : 0;
}

static void release(struct bench *b)
{
    for (unsigned i = 0; i < b->results.n_jobs; i++)
        free(b->results.jobs[i].runs);
    for (unsigned i = 0; i < b->results.n_rss_jobs; i++)
        free(b->results.rss_jobs[i].runs);
    free(b->results.jobs);
    free(b->results.rss_jobs);
    for (unsigned p = 0; p < BENCH_N_PATTERNS; p++)
        bench_plan_deinit(&b->plans[p]);
    bench_plan_deinit(&b->rss_plan);
    bench_vmm_free_report(&b->ground.vmm);
    bench_remove_dir(b->ground.dir);
}

static void on_signal(int signal_number)
{
    (void)signal_number;
    bench_run_interrupt();
}

int bench_fault(int argc, char **argv)
{
    const struct sigaction action = {.sa_handler = on_signal};
    static struct bench b;
    int r;

    r = bench_options_parse(&b.options, argc, argv);
    if (r != 0)
        return r == BENCH_OPTIONS_HELP ? CLI_OK : CLI_USAGE;
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    r = measure(&b);
    if (r < 0)
        (void)cli_error(MEASUREMENT, "%s", err_text());
    release(&b);
    return r < 0 ? CLI_FAILED : CLI_OK;
}
