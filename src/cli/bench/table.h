/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_TABLE_H
#define CLI_BENCH_TABLE_H

/*
 * table.h - the figures for people
 */

#include <stdio.h>

#include "cli/bench/job.h"

/** bench_table_print() - everything in @res as text */
void bench_table_print(const struct bench_results *res, FILE *out);

#endif
