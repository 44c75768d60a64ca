/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_RUN_H
#define CLI_BENCH_RUN_H

/*
 * run.h - one run: a handler, a faulting process, and what they did
 */

#include "cli/bench/job.h"
#include "cli/bench/image.h"
#include "cli/bench/sample.h"
#include "cli/bench/vmm.h"

/** struct bench_ground - what all runs stand on */
struct bench_ground {
    const struct bench_options *options;
    struct bench_clock clock;
    struct bench_vmm vmm; /* idle between runs */
    char dir[200];        /* temporary, removed at the end */
    char self[512];       /* this program's path */
    int cpus[2];          /* [1] is -1 where there is one core only */
    unsigned n_runs;
    unsigned n_busy_runs; /* begun while others used the machine */
};

/**
 * bench_run_interrupt() - make a run in progress, and all later ones, fail soon. Async-signal-safe.
 */
void bench_run_interrupt(void);

/**
 * bench_run() - run @job once
 * @plan:    which pages; unused by BENCH_PING_PONG
 * @figures: set on success
 *
 * Whatever it started is gone when it returns. Return: 0, or a negative errno with a text when the
 * handler served wrong bytes, died or hung, or something else stood in the way.
 */
int bench_run(struct bench_ground *g, const struct bench_job *job, const struct bench_image *image,
              const struct bench_plan *plan, double figures[BENCH_N_FIGURES]);

#endif
