/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_JSON_H
#define CLI_BENCH_JSON_H

/*
 * json.h - the figures for programs
 */

#include "cli/bench/job.h"

/**
 * bench_json_write() - everything in @res, each single run too, into the file @path. Return: 0 or a
 * negative errno
 */
int bench_json_write(const struct bench_results *res, const char *path);

#endif
