/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_TOUCH_H
#define CLI_BENCH_TOUCH_H

/*
 * touch.h - touch the pages of a plan, each timed by itself
 */

#include "cli/bench/vmm.h"

/**
 * bench_touch() - let the task's threads touch their shares of the plan in @memory
 * @rep: its touch, total_ns, n_touched, n_faults, threads; n_wrong if a word was wrong
 *
 * Return: 0 or a negative errno with a text. Does not return while a touch is not answered.
 */
int bench_touch(const struct bench_task *t, char *memory, struct bench_report *rep);

/** bench_cpu_bind() - bind the calling thread, and those it starts, to @cpu (-1: nothing) */
int bench_cpu_bind(int cpu);

#endif
