/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_BASE_H
#define CLI_BENCH_BASE_H

/*
 * base.h - what a handler is compared with
 */

#include "cli/bench/vmm.h"

/** struct bench_ping - two pipes and the process at their other end */
struct bench_ping {
    int to[2];
    int from[2];
    pid_t partner;
};

/** bench_ping_start() - fork the partner and warm up. Return: 0 or a negative errno with a text */
int bench_ping_start(struct bench_ping *p, const struct bench_task *t);

/**
 * bench_ping_measure() - send a byte to and fro, each trip timed
 * @rep: its touch, total_ns and n_touched
 *
 * Return: 0 or a negative errno with a text.
 */
int bench_ping_measure(struct bench_ping *p, const struct bench_task *t, struct bench_report *rep);

/** bench_ping_stop() - end the partner */
void bench_ping_stop(struct bench_ping *p);

/**
 * bench_base_map() - the memory of BENCH_ANON, BENCH_FILE and BENCH_FILE_WRITE
 * @out: (give, to the process's end) image->size_bytes, nothing of it touched
 */
int bench_base_map(const struct bench_task *t, char **out);

/**
 * bench_memory_wake() - touch and free @bytes of memory
 *
 * A hypervisor may have taken free pages back; the first use of such a page costs ten times a page
 * fault. Memory that was in use a moment ago is there.
 */
int bench_memory_wake(uint64_t bytes, uint64_t page_bytes);

#endif
