/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_OPTIONS_H
#define CLI_BENCH_OPTIONS_H

/*
 * options.h - the command line of `thaw bench fault`
 */

#include "cli/bench/job.h"

/** enum bench_options_outcome - positive results of bench_options_parse() */
enum bench_options_outcome {
    BENCH_OPTIONS_HELP = 1,  /* help was asked for and has been printed */
    BENCH_OPTIONS_WRONG = 2, /* a usage error has been printed */
};

/**
 * bench_options_parse() - read the command line; what is not given has its default
 * @o: becomes valid on 0; strings in it are borrowed from @argv for good
 *
 * Return: 0 or one of enum bench_options_outcome.
 */
int bench_options_parse(struct bench_options *o, int argc, char **argv);

#endif
