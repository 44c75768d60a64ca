/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_GROUND_H
#define CLI_BENCH_GROUND_H

/*
 * ground.h - what any measurement needs of the machine: cores, quiet, a folder
 */

#include <signal.h>

#include "base/base.h"

/** bench_choose_cores() - two cores that this process may use, on different physical cores if there are such; -1: none */
void bench_choose_cores(int cpus[2]);

/**
 * bench_wait_for_quiet() - until nothing else runs, for at most @idle_wait_s
 * @interrupted: not 0: give up (borrow)
 *
 * Return: whether it is quiet.
 */
bool bench_wait_for_quiet(unsigned idle_wait_s, const volatile sig_atomic_t *interrupted);

/** bench_make_dir() - a temporary folder in @parent. Return: 0 or a negative errno with a text, and then @dir is "" */
int bench_make_dir(char *dir, size_t len, const char *parent);

/** bench_remove_dir() - with the files in it; handlers may have left some. "": nothing */
void bench_remove_dir(const char *path);

#endif
