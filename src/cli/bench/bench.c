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
#include "cli/bench/restore.h"
#include "cli/cli.h"

static const char bench_help[] =
    "usage: thaw bench fault [OPTIONS]\n"
    "       thaw bench ahead NAME [OPTIONS]\n"
    "       thaw bench restore TEMPLATE [OPTIONS]\n"
    "\n"
    "  fault   the time a page fault takes, for any handler of Firecracker's protocol\n"
    "  ahead   what installing pages ahead of the guest costs, and what it saves\n"
    "  restore how long it takes from a template to its guest's first answer\n"
    "\n"
    "`thaw bench fault --help` and so on list the options.\n";

int cli_bench(int argc, char **argv)
{
    if (argc < 2)
        return cli_usage_error("bench", "what is to be measured? `fault`, `ahead` or `restore`");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(bench_help, stdout);
        return CLI_OK;
    }
    if (strcmp(argv[1], "fault") == 0)
        return bench_fault(argc - 1, argv + 1);
    if (strcmp(argv[1], "ahead") == 0)
        return bench_ahead(argc - 1, argv + 1);
    if (strcmp(argv[1], "restore") == 0)
        return bench_restore(argc - 1, argv + 1);
    return cli_usage_error("bench", "unknown measurement \"%s\"", argv[1]);
}
