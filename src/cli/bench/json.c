/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.c - the figures for programs
 *
 *     { "bench": "fault", "version", "host": {...}, "options": {...},
 *       "jobs": [ { "kind", "handler", "placement", "pattern", "threads",
 *                   "median": {FIGURE: number}, "runs": [ {FIGURE: number} ] } ],
 *       "memory": [ the same, on the guest of rss_size_bytes ],
 *       "aims": [ { "what", "figure", "low", "high", "unit", "limit", "at_least", "verdict" } ] }
 *
 * Figures are named by bench_figure_name(); one that does not apply is left out.
 */

#include "cli/bench/json.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/err.h"
#include "cli/bench/aims.h"

static json_t *figures_json(const double figures[BENCH_N_FIGURES])
{
    json_t *o = json_object();

    for (unsigned f = 0; f < BENCH_N_FIGURES; f++) {
        if (!isnan(figures[f]))
            (void)json_object_set_new(o, bench_figure_name((enum bench_figure)f),
                                      json_real(figures[f]));
    }
    return o;
}

static json_t *job_json(const struct bench_job *job)
{
    json_t *runs = json_array();
    bool has_pattern = job->kind != BENCH_PING_PONG;

    for (unsigned i = 0; i < job->n_runs; i++)
        (void)json_array_append_new(runs, figures_json(job->runs[i]));
    return json_pack("{s:s, s:s, s:s, s:s?, s:i, s:o, s:o}", "kind",
                     job->kind == BENCH_HANDLER ? "handler" : "baseline", "handler",
                     bench_job_name(job), "placement", bench_place_name(job->place), "pattern",
                     has_pattern ? bench_pattern_name(job->pattern) : NULL, "threads",
                     (int)job->n_threads, "median", figures_json(job->median), "runs", runs);
}

static json_t *jobs_json(const struct bench_job *jobs, unsigned n)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < n; i++)
        (void)json_array_append_new(list, job_json(&jobs[i]));
    return list;
}

static json_t *aims_json(const struct bench_results *res)
{
    struct bench_aim aims[BENCH_AIMS_MAX];
    unsigned n = bench_aims(res, aims);
    json_t *list = json_array();

    for (unsigned i = 0; i < n; i++)
        (void)json_array_append_new(
            list,
            json_pack("{s:s, s:f, s:f, s:f, s:s, s:f, s:b, s:s}", "what", aims[i].what, "figure",
                      aims[i].figure, "low", aims[i].low, "high", aims[i].high, "unit",
                      aims[i].unit, "limit", aims[i].limit, "at_least", aims[i].at_least, "verdict",
                      bench_verdict_name(bench_aim_verdict(&aims[i]))));
    return list;
}

static json_t *options_json(const struct bench_options *o)
{
    json_t *handlers = json_object();

    for (unsigned i = 0; i < o->n_handlers; i++)
        (void)json_object_set_new(handlers, o->handlers[i].name,
                                  json_string(o->handlers[i].command));
    return json_pack("{s:I, s:I, s:i, s:i, s:I, s:I, s:o}", "size_bytes", (json_int_t)o->size_bytes,
                     "page_bytes", (json_int_t)o->page_bytes, "faults", (int)o->n_faults, "rounds",
                     (int)o->n_rounds, "rss_size_bytes", (json_int_t)o->rss_size_bytes, "seed",
                     (json_int_t)o->seed, "handlers", handlers);
}

static json_t *host_json(const struct bench_results *res)
{
    struct utsname host;

    if (uname(&host) < 0)
        memset(&host, 0, sizeof(host));
    return json_pack("{s:s, s:s, s:i, s:i, s:s, s:f, s:i, s:i}", "kernel", host.release, "machine",
                     host.machine, "faulting_core", res->cpus[0], "handler_core", res->cpus[1],
                     "clock", res->clock_name, "clock_overhead_ns", res->clock_overhead_ns, "runs",
                     (int)res->n_runs, "busy_runs", (int)res->n_busy_runs);
}

int bench_json_write(const struct bench_results *res, const char *path)
{
    json_t *root =
        json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "bench", "fault", "version", THAW_VERSION,
                  "host", host_json(res), "options", options_json(res->options), "jobs",
                  jobs_json(res->jobs, res->n_jobs), "memory",
                  jobs_json(res->rss_jobs, res->n_rss_jobs), "aims", aims_json(res));
    int r = 0;

    if (!root)
        return err_origin(-ENOMEM, "no memory for the JSON file");
    errno = 0;
    if (json_dump_file(root, path, JSON_INDENT(1)) < 0)
        r = err_origin_errno(errno ? -errno : -EIO, "cannot write %s", path);
    json_decref(root);
    return r;
}
