/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench.c - `thaw bench`: picks the measurement
 *
 * One measurement, one file. A benchmark tells figures and passes no judgement: its exit status is
 * about whether it could measure, not about whether the figures please.
 */

#include <stdio.h>
#include <string.h>

#include "cli/bench/ahead.h"
#include "cli/bench/fault.h"
#include "cli/cli.h"

static const char bench_help[] =
    "usage: thaw bench fault [OPTIONS]\n"
    "       thaw bench ahead NAME [OPTIONS]\n"
    "\n"
    "  fault   the time a page fault takes, for any handler of Firecracker's protocol\n"
    "  ahead   what installing pages ahead of the guest costs, and what it saves\n"
    "\n"
    "`thaw bench fault --help` and `thaw bench ahead --help` list the options.\n";

int cli_bench(int argc, char **argv)
{
    if (argc < 2)
        return cli_usage_error("bench", "what is to be measured? `fault` or `ahead`");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(bench_help, stdout);
        return CLI_OK;
    }
    if (strcmp(argv[1], "fault") == 0)
        return bench_fault(argc - 1, argv + 1);
    if (strcmp(argv[1], "ahead") == 0)
        return bench_ahead(argc - 1, argv + 1);
    return cli_usage_error("bench", "unknown measurement \"%s\"", argv[1]);
}
