/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_AHEAD_RUN_H
#define CLI_BENCH_AHEAD_RUN_H

/*
 * ahead_run.h - what the three processes of a run share
 *
 *     server                                         guest
 *     listens                                        memory mapped, handshake sent
 *     installs what comes before          RESUME ->
 *     installs the rest                              works
 *     all is installed                    OVER ->
 *                                                    ends; so the server ends, too
 */

#include <thaw/source.h>

#include "cli/bench/ahead.h"
#include "cli/bench/vmm.h"

#define AHEAD_RESUME 'r'
#define AHEAD_OVER   'o'

/** struct ahead_shared - memory that all of them see; times are clock_now_ns() */
struct ahead_shared {
    /* the server */
    uint64_t accepted_ns;
    uint64_t first_ns; /* the first news of progress, and how many bytes it was */
    uint64_t first_bytes;
    uint64_t resume_ns;
    uint64_t over_ns;
    uint64_t over_bytes;
    char stats[8192]; /* the pager's, JSON */
    char server_error[256];
    /* the guest */
    struct bench_report report;
    uint64_t attached_ns;
    uint64_t resumed_ns;
    double window_rate_bps; /* of installs while it worked */
    double discard_ns[AHEAD_N_LENGTHS];
    uint64_t n_samples;
    uint64_t present_bytes;
    bool is_done;
};

/** struct ahead_part - what a process of the run is told */
struct ahead_part {
    const struct ahead *ahead;
    const struct ahead_case *c;
    const struct bench_image *image;
    struct ahead_shared *shared;
    char socket_path[256];
    int news; /* its end of the pipe from the server to the guest */
    int cpu;
    int partner_cpu;
};

/** ahead_serve() - the server's process. Return: 0 or a negative errno with a text */
int ahead_serve(const struct ahead_part *part);

/** ahead_guest() - the guest's process. Return: 0 or a negative errno with a text */
int ahead_guest(const struct ahead_part *part);

struct ahead_slow;

/** ahead_slow_new() - a source with a delay. @out: (give, to the process's end). Return: 0 or a negative errno with a text */
int ahead_slow_new(struct ahead_slow **out, const struct bench_image *image);

extern const struct thaw_source_ops ahead_slow_ops;

#endif
