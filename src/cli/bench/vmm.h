/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_VMM_H
#define CLI_BENCH_VMM_H

/*
 * vmm.h - the faulting process of a run: the VMM's part, or a baseline's
 *
 * It goes from step to step and waits for its parent between them:
 *
 *     child                                               parent
 *     memory mapped, handshake sent, handler answers
 *                                           READY ->
 *                                                      <- GO     reads the handler's CPU time
 *     touches, timed                        DONE ->
 *                                                      <- GO     reads CPU time and memory
 *     compares every page that is there     CHECKED ->
 */

#include <sys/types.h>

#include "cli/bench/job.h"
#include "cli/bench/image.h"
#include "cli/bench/sample.h"

/** struct bench_task - what the process is to do; all pointers (borrow until it has ended) */
struct bench_task {
    enum bench_kind kind;
    const struct bench_image *image;
    const struct bench_plan *plan;
    const struct bench_clock *clock;
    const char *socket_path; /* BENCH_HANDLER */
    bool no_events;          /* the handler is not told of discards */
    uint64_t page_bytes;
    unsigned n_threads;
    unsigned n_round_trips; /* BENCH_PING_PONG */
    int cpu;                /* for its threads, -1: any */
    int partner_cpu;        /* BENCH_PING_PONG: for the other end */
};

/** struct bench_progress - how far one thread is; a cache line of its own */
struct bench_progress {
    _Atomic uint64_t n_touched;
    char pad[56];
};

/** struct bench_report - what the process tells; in memory shared with the parent */
struct bench_report {
    struct bench_summary touch;
    double total_ns;
    uint64_t n_touched;
    uint64_t n_faults;
    uint64_t n_present;   /* 4 KiB pages that are there in the end, without the reserved bytes */
    uint64_t n_wrong;     /* 4 KiB pages with a wrong byte */
    uint64_t first_wrong; /* number of the first */
    int first_wrong_byte; /* in it; -1: the page was right when it was compared later */
    char error[512];      /* the step that failed, "" if none */
    struct bench_progress threads[BENCH_THREADS_MAX];
};

/** enum bench_step - messages on the process's channel, one byte each */
enum bench_step {
    BENCH_READY = 'r',
    BENCH_DONE = 'd',
    BENCH_CHECKED = 'c',
    BENCH_ERROR = 'e',
    BENCH_GO = 'g',
};

/** struct bench_vmm - the process; pid 0: none */
struct bench_vmm {
    pid_t pid;
    int channel;
    struct bench_report *report;
};

/**
 * bench_reserved_bytes() - the guest's last bytes, which no plan may contain: they are touched to
 * warm up
 */
uint64_t bench_reserved_bytes(uint64_t page_bytes);

/**
 * bench_vmm_attach() - guest memory in the hands of the task's handler
 * @out: (give, to the process's end) as are its fds
 *
 * Return: 0 or a negative errno with a text.
 */
int bench_vmm_attach(const struct bench_task *t, char **out);

/**
 * bench_vmm_compare() - all pages that are present, and those of the plan, with the file
 * @rep: n_wrong, first_wrong, first_wrong_byte
 */
int bench_vmm_compare(const struct bench_task *t, char *memory, struct bench_report *rep);

/**
 * bench_vmm_start() - fork it. @v: becomes valid on success. Return: 0 or a negative errno with a
 * text
 */
int bench_vmm_start(struct bench_vmm *v, const struct bench_task *task);

/** bench_vmm_go() - let it take its next step */
void bench_vmm_go(struct bench_vmm *v);

/**
 * bench_vmm_stop() - kill it if it lives; it is gone on return. The report is valid until the next
 * start
 */
void bench_vmm_stop(struct bench_vmm *v);

/** bench_vmm_free_report() - once, after the last run */
void bench_vmm_free_report(struct bench_vmm *v);

#endif
