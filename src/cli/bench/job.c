/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/bench/job.h"

#include <string.h>

const char *bench_place_name(enum bench_place place)
{
    static const char *const names[] = {
        [BENCH_SAME] = "same",
        [BENCH_SPLIT] = "split",
        [BENCH_AWAKE] = "awake",
        [BENCH_FREE] = "free",
    };

    assert(place < BENCH_N_PLACES);
    return names[place];
}

const char *bench_job_name(const struct bench_job *job)
{
    switch (job->kind) {
    case BENCH_HANDLER:
        return job->handler->name;
    case BENCH_PING_PONG:
        return "[ping-pong]";
    case BENCH_ANON:
        return "[anonymous]";
    case BENCH_FILE:
        return "[file]";
    case BENCH_FILE_WRITE:
        return "[file-write]";
    }
    return "?";
}

const char *bench_figure_name(enum bench_figure figure)
{
    static const char *const names[] = {
        [BENCH_P50_NS] = "p50_ns",
        [BENCH_P90_NS] = "p90_ns",
        [BENCH_P99_NS] = "p99_ns",
        [BENCH_TOTAL_NS] = "total_ns",
        [BENCH_TOUCHED] = "touched",
        [BENCH_FAULTS] = "faults",
        [BENCH_CPU_NS] = "handler_cpu_ns_per_fault",
        [BENCH_START_CPU_NS] = "handler_start_cpu_ns",
        [BENCH_RSS] = "handler_rss_beyond_file_bytes",
        [BENCH_ANONYMOUS] = "handler_anonymous_bytes",
        [BENCH_PAGETABLES] = "handler_page_table_bytes",
        [BENCH_GUEST] = "guest_present_bytes",
    };

    assert(figure < BENCH_N_FIGURES);
    return names[figure];
}

const struct bench_job *bench_find_job(const struct bench_results *res, enum bench_kind kind,
                                       const char *handler_name, enum bench_place place,
                                       enum bench_pattern pattern, unsigned n_threads)
{
    for (unsigned i = 0; i < res->n_jobs; i++) {
        const struct bench_job *job = &res->jobs[i];

        if (job->kind != kind || job->place != place)
            continue;
        if (kind == BENCH_PING_PONG)
            return job;
        if (job->pattern != pattern || job->n_threads != n_threads)
            continue;
        if (kind != BENCH_HANDLER || strcmp(job->handler->name, handler_name) == 0)
            return job;
    }
    return NULL;
}
