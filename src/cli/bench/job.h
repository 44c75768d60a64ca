/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_JOB_H
#define CLI_BENCH_JOB_H

/*
 * job.h - the words in which `thaw bench fault` speaks of its work
 *
 * A *job* is one kind of run: who serves, in which pattern, by how many threads, on which cores.
 * Each round runs all jobs once, in a shuffled order; a figure of a job is the median over its
 * runs.
 */

#include "base/base.h"
#include "cli/bench/handler.h"
#include "cli/bench/plan.h"

enum {
    BENCH_HANDLERS_MAX = 16,
    BENCH_THREAD_COUNTS_MAX = 8, /* different values of --threads */
    BENCH_THREADS_MAX = 64,      /* threads of one run */
    BENCH_ROUNDS_MAX = 1000,
};

/** enum bench_kind - who answers the touches of a run: a handler, or what it is compared with */
enum bench_kind {
    BENCH_HANDLER,    /* a handler in another process, through userfaultfd */
    BENCH_PING_PONG,  /* no memory at all: a byte to another process and back, both sleep in read(2)
                       */
    BENCH_ANON,       /* the kernel: first write to anonymous memory */
    BENCH_FILE,       /* the kernel: first read of a private mapping of the memory file */
    BENCH_FILE_WRITE, /* the kernel: first write to one, which gives the private copy a handler's
                         COPY gives */
};

/** enum bench_place - on which cores the faulting threads and the handler run */
enum bench_place {
    BENCH_SAME,  /* all on one core: a fault is two context switches */
    BENCH_SPLIT, /* one core each, and each sleeps while the other works: a fault is two wake-ups
                    across cores */
    BENCH_AWAKE, /* as split, with /dev/cpu_dma_latency held at 0, so that an idle core does not
                    halt */
    BENCH_FREE,  /* wherever the scheduler puts them */
    BENCH_N_PLACES,
};

/** enum bench_figure - what is known of one run; NAN where it does not apply */
enum bench_figure {
    BENCH_P50_NS, /* of the touched pages' times */
    BENCH_P90_NS,
    BENCH_P99_NS,
    BENCH_TOTAL_NS,     /* from the first touch to the last thread's end */
    BENCH_TOUCHED,      /* pages touched */
    BENCH_FAULTS,       /* faults that the touching threads took */
    BENCH_CPU_NS,       /* CPU time of the handler, a fault */
    BENCH_START_CPU_NS, /* CPU time of the handler before the first timed touch */
    BENCH_RSS,          /* bytes resident in the handler beyond the memory file's mapping */
    BENCH_ANONYMOUS,    /* bytes of these that are anonymous */
    BENCH_PAGETABLES,   /* bytes of page tables of the handler */
    BENCH_GUEST,        /* bytes of guest memory that are there after the touches, touched or not */
    BENCH_N_FIGURES,
};

/** struct bench_options - the command line */
struct bench_options {
    struct bench_handler_spec handlers[BENCH_HANDLERS_MAX];
    unsigned n_handlers;
    bool patterns[BENCH_N_PATTERNS];
    bool places[BENCH_N_PLACES];
    unsigned threads[BENCH_THREAD_COUNTS_MAX];
    unsigned n_threads;
    unsigned n_rounds;
    unsigned n_faults;       /* touches of a run, at most */
    uint64_t size_bytes;     /* of the guest */
    uint64_t page_bytes;     /* 4096 or 2097152 */
    uint64_t rss_size_bytes; /* of the guest for the memory figures, 0: not measured */
    uint64_t seed;
    unsigned deadline_s;  /* for one run */
    unsigned idle_wait_s; /* for the machine to be idle before a run */
    bool no_thaw;
    bool wakeups;          /* each way to make wake-ups cheap, beside the plain one */
    const char *json_path; /* NULL: none */
    const char *dir_path;  /* where the temporary directory is made */
};

/** struct bench_job - one kind of run, and what its runs gave */
struct bench_job {
    enum bench_kind kind;
    const struct bench_handler_spec *handler; /* BENCH_HANDLER only */
    enum bench_place place;
    enum bench_pattern pattern;
    unsigned n_threads;
    double (*runs)[BENCH_N_FIGURES]; /* n_runs of them */
    unsigned n_runs;
    double median[BENCH_N_FIGURES]; /* over the runs */
};

/** struct bench_results - everything that the table and the JSON file show */
struct bench_results {
    const struct bench_options *options;
    struct bench_job *jobs;
    unsigned n_jobs;
    struct bench_job *rss_jobs; /* one a handler, on the guest of rss_size_bytes */
    unsigned n_rss_jobs;
    int cpus[2]; /* the faulting threads' and the handler's core; [1] is -1 on a machine with one */
    unsigned n_runs;          /* in all */
    unsigned n_busy_runs;     /* of these, begun while others used the machine */
    const char *clock_name;   /* how touches are timed */
    double clock_overhead_ns; /* contained in each */
    char rss_note[160];       /* why there are no rss_jobs, "" otherwise */
};

/** bench_find_job() - the job with these properties, or NULL. @handler_name: NULL for the baselines
 */
const struct bench_job *bench_find_job(const struct bench_results *res, enum bench_kind kind,
                                       const char *handler_name, enum bench_place place,
                                       enum bench_pattern pattern, unsigned n_threads);

const char *bench_place_name(enum bench_place place);

/** bench_job_name() - the handler's name or the baseline's */
const char *bench_job_name(const struct bench_job *job);

/** bench_figure_name() - as the JSON file calls it */
const char *bench_figure_name(enum bench_figure figure);

#endif
