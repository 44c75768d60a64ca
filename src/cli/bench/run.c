/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - one run
 *
 * The parent sleeps while the two processes work: it waits, with a deadline, for the faulting
 * process's next step or for the handler's end, whichever comes first. So a handler that dies, one
 * that kills its VMM, and one that does nothing are three different messages, and none of them
 * stops the benchmark for longer than the deadline.
 *
 * Other work on the machine changes what a fault costs, wake-ups most of all. Before each run the
 * machine's own account of busy time is looked at over a short while; with --idle-wait the run
 * waits for quiet, and in any case the runs that began in noise are counted.
 */

#include "cli/bench/run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "cli/bench/ground.h"

#define VMM_END_MS    300
#define LAST_WORDS_MS 1000u
#define PATIENCE_MS   2000u /* for a handler to end after its VMM */

static volatile sig_atomic_t interrupted;

/* All that belongs to one run. */
struct run {
    struct bench_ground *ground;
    const struct bench_job *job;
    const struct bench_image *image;
    struct bench_task task;
    struct bench_handler handler; /* pid 0 in a baseline's run */
    int handler_cpu;              /* to which it is bound; -1: none */
    int latency_fd;               /* holds /dev/cpu_dma_latency; -1 */
    char socket_path[256];
    uint64_t deadline_ns;
    uint64_t
        cpu_begin_ns; /* the handler's CPU time before the touches, UINT64_MAX if not counted */
    uint64_t cpu_end_ns;
    struct bench_weight weight;
};

void bench_run_interrupt(void)
{
    interrupted = 1;
}

/* Waits for a quiet moment, and counts runs that must begin without one. */
static void wait_for_quiet(struct bench_ground *g)
{
    g->n_runs++;
    g->n_busy_runs += !bench_wait_for_quiet(g->options->idle_wait_s, &interrupted);
}

static int hold_latency(struct run *run)
{
    const int32_t zero = 0;

    if (run->job->place != BENCH_AWAKE)
        return 0;
    run->latency_fd = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);
    if (run->latency_fd < 0 || write(run->latency_fd, &zero, sizeof(zero)) != sizeof(zero))
        return err_origin_errno(-errno, "cannot keep the cores awake: /dev/cpu_dma_latency");
    return 0;
}

static int handler_failed(struct run *run, int neg_errno, const char *what)
{
    char words[256];

    bench_handler_last_words(&run->handler, words, sizeof(words));
    return err_origin(neg_errno, "handler %s %s (%s, %u thread%s, %s)%s%s",
                      bench_job_name(run->job), what, bench_pattern_name(run->job->pattern),
                      run->job->n_threads, run->job->n_threads == 1 ? "" : "s",
                      bench_place_name(run->job->place), words[0] ? "; it said: " : "", words);
}

static uint64_t count_touched(const struct run *run)
{
    const struct bench_report *rep = run->ground->vmm.report;
    uint64_t n = 0;

    for (unsigned i = 0; i < run->task.n_threads; i++)
        n += rep->threads[i].n_touched;
    return n;
}

static int run_is_late(struct run *run)
{
    char what[160];

    if (run->job->kind != BENCH_HANDLER)
        return err_origin(-ETIMEDOUT, "the baseline %s did not end within %u s",
                          bench_job_name(run->job), run->ground->options->deadline_s);
    (void)snprintf(what, sizeof(what), "hung: after %u s, %" PRIu64 " of %u pages were there",
                   run->ground->options->deadline_s, count_touched(run), run->task.plan->n);
    return handler_failed(run, -ETIMEDOUT, what);
}

/* The faulting process sent something else than the step, or (0) ended. */
static int step_failed(struct run *run, char got)
{
    const struct bench_vmm *vmm = &run->ground->vmm;
    char how[64], what[96];

    if (got == BENCH_ERROR)
        return err_origin(-EIO, "%s: %s", bench_job_name(run->job), vmm->report->error);
    bench_process_ended(vmm->pid, how, sizeof(how));
    if (run->job->kind != BENCH_HANDLER)
        return err_origin(-ECHILD, "the process of %s ended: %s", bench_job_name(run->job), how);
    /* if it was the handler that ended its VMM, it may have something to say about that */
    bench_handler_wait(&run->handler, LAST_WORDS_MS);
    (void)snprintf(what, sizeof(what), "lost its VMM: %s", how);
    return handler_failed(run, -ECHILD, what);
}

/* The handler ended. If it killed its VMM before that, the VMM's end of the channel closes soon. */
static int handler_ended(struct run *run)
{
    struct pollfd pfd = {.fd = run->ground->vmm.channel, .events = POLLIN};
    char how[64], what[96], got;

    if (poll(&pfd, 1, VMM_END_MS) > 0 && read(pfd.fd, &got, 1) <= 0)
        return step_failed(run, 0);
    bench_process_ended(run->handler.pid, how, sizeof(how));
    (void)snprintf(what, sizeof(what), "died with its VMM running: %s", how);
    return handler_failed(run, -ECHILD, what);
}

/* Waits for one message of the faulting process. What it has sent counts even if the handler is
 * gone by then. */
static int expect(struct run *run, enum bench_step step)
{
    const struct bench_vmm *vmm = &run->ground->vmm;
    struct pollfd pfds[2] = {
        {.fd = vmm->channel, .events = POLLIN},
        {.fd = run->handler.pid ? run->handler.pidfd : -1, .events = POLLIN},
    };
    char got = 0;

    for (;;) {
        uint64_t now_ns = clock_now_ns();
        int n;

        if (interrupted)
            return err_origin(-EINTR, "interrupted");
        if (now_ns >= run->deadline_ns)
            return run_is_late(run);
        n = poll(pfds, 2, (int)((run->deadline_ns - now_ns) / NS_PER_MS) + 1);
        if (n < 0 && errno != EINTR)
            return err_origin_errno(-errno, "poll");
        if (n <= 0)
            continue;
        if (pfds[0].revents) {
            if (read(vmm->channel, &got, 1) == 1 && got == (char)step)
                return 0;
            return step_failed(run, got);
        }
        return handler_ended(run);
    }
}

static void fill_task(struct run *run, const struct bench_plan *plan)
{
    const struct bench_ground *g = run->ground;
    const struct bench_options *o = g->options;
    bool is_free = run->job->place == BENCH_FREE;
    int other = run->job->place == BENCH_SAME ? g->cpus[0] : g->cpus[1];

    (void)snprintf(run->socket_path, sizeof(run->socket_path), "%s/socket", g->dir);
    run->task = (struct bench_task){
        .kind = run->job->kind,
        .image = run->image,
        .plan = plan,
        .clock = &g->clock,
        .socket_path = run->socket_path,
        .page_bytes = o->page_bytes,
        .n_threads = run->job->n_threads,
        .n_round_trips = o->n_faults,
        .cpu = is_free ? -1 : g->cpus[0],
        .partner_cpu = is_free ? -1 : other,
    };
    run->handler_cpu = run->job->handler && run->job->handler->roams ? -1 : run->task.partner_cpu;
}

static int start_both(struct run *run)
{
    struct bench_ground *g = run->ground;
    const struct bench_paths paths = {
        .self = g->self,
        .socket = run->socket_path,
        .memory = run->image->path,
        .dir = g->dir,
    };
    int r = 0;

    (void)unlink(run->socket_path);
    if (run->job->kind == BENCH_HANDLER)
        r = bench_handler_start(&run->handler, run->job->handler, &paths, run->handler_cpu);
    return r < 0 ? r : bench_vmm_start(&g->vmm, &run->task);
}

/* The three steps, and the handler's account before and after the touches. */
static int take_steps(struct run *run)
{
    struct bench_vmm *vmm = &run->ground->vmm;
    bool has_handler = run->job->kind == BENCH_HANDLER;
    int r;

    r = expect(run, BENCH_READY);
    if (r < 0)
        return r;
    if (has_handler) {
        if (bench_handler_pin(&run->handler, run->handler_cpu) < 0)
            return err_origin(-EPERM, "cannot bind the threads of handler %s to a core",
                              bench_job_name(run->job));
        if (bench_handler_cpu(&run->handler, &run->cpu_begin_ns) < 0)
            run->cpu_begin_ns = UINT64_MAX;
    }
    bench_vmm_go(vmm);
    r = expect(run, BENCH_DONE);
    if (r < 0)
        return r;
    if (has_handler) {
        if (bench_handler_cpu(&run->handler, &run->cpu_end_ns) < 0)
            run->cpu_begin_ns = UINT64_MAX;
        r = bench_handler_weigh(&run->handler, run->image->path, &run->weight);
        if (r < 0)
            return err_origin_errno(r, "cannot read smaps of handler %s", bench_job_name(run->job));
    }
    bench_vmm_go(vmm);
    return expect(run, BENCH_CHECKED);
}

static int judge_bytes(struct run *run)
{
    const struct bench_report *rep = run->ground->vmm.report;
    char what[160];

    if (rep->n_wrong == 0)
        return 0;
    (void)snprintf(what, sizeof(what),
                   "served wrong bytes: %" PRIu64 " wrong page%s, the first at offset 0x%" PRIx64,
                   rep->n_wrong, rep->n_wrong == 1 ? "" : "s",
                   rep->first_wrong * 4096 + (uint64_t)rep->first_wrong_byte);
    if (run->job->kind != BENCH_HANDLER)
        return err_origin(-EBADMSG, "the baseline %s %s", bench_job_name(run->job), what);
    return handler_failed(run, -EBADMSG, what);
}

static void fill_figures(const struct run *run, double figures[BENCH_N_FIGURES])
{
    const struct bench_report *rep = run->ground->vmm.report;

    for (unsigned i = 0; i < BENCH_N_FIGURES; i++)
        figures[i] = NAN;
    figures[BENCH_P50_NS] = rep->touch.p50_ns;
    figures[BENCH_P90_NS] = rep->touch.p90_ns;
    figures[BENCH_P99_NS] = rep->touch.p99_ns;
    figures[BENCH_TOTAL_NS] = rep->total_ns;
    figures[BENCH_TOUCHED] = (double)rep->n_touched;
    if (run->job->kind != BENCH_PING_PONG)
        figures[BENCH_FAULTS] = (double)rep->n_faults;
    if (run->job->kind != BENCH_HANDLER)
        return;
    if (run->cpu_begin_ns != UINT64_MAX && rep->n_faults > 0)
        figures[BENCH_CPU_NS] =
            (double)(run->cpu_end_ns - run->cpu_begin_ns) / (double)rep->n_faults;
    if (run->cpu_begin_ns != UINT64_MAX)
        figures[BENCH_START_CPU_NS] = (double)run->cpu_begin_ns;
    figures[BENCH_GUEST] = (double)rep->n_present * 4096;
    figures[BENCH_RSS] = (double)run->weight.rss_beyond;
    figures[BENCH_ANONYMOUS] = (double)run->weight.anonymous;
    figures[BENCH_PAGETABLES] = (double)run->weight.page_tables;
}

int bench_run(struct bench_ground *g, const struct bench_job *job, const struct bench_image *image,
              const struct bench_plan *plan, double figures[BENCH_N_FIGURES])
{
    struct run run = {.ground = g, .job = job, .image = image, .latency_fd = -1};
    int r;

    r = bench_image_warm(image);
    if (r < 0)
        return r;
    wait_for_quiet(g);
    fill_task(&run, plan);
    run.deadline_ns = clock_now_ns() + g->options->deadline_s * NS_PER_S;
    r = hold_latency(&run);
    if (r == 0)
        r = start_both(&run);
    if (r == 0)
        r = take_steps(&run);
    if (r == 0)
        r = judge_bytes(&run);
    bench_vmm_stop(&g->vmm);
    bench_handler_stop(&run.handler, r == 0 ? PATIENCE_MS : 0);
    run.latency_fd = fd_close(run.latency_fd);
    if (r == 0)
        fill_figures(&run, figures);
    return r;
}
