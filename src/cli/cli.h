/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

/*
 * cli.h - the verbs of the command line: one verb, one file or one folder
 *
 * Each takes its own part of the arguments (argv[0] is the verb) and returns the exit status: 0, CLI_FAILED when it
 * could not do what was asked, CLI_USAGE when it was asked wrongly.
 */

#include "base/base.h"

enum {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
};

int cli_serve(int argc, char **argv);
int cli_map(int argc, char **argv);
int cli_doctor(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_ready(int argc, char **argv);
int cli_workingset(int argc, char **argv);
int cli_image(int argc, char **argv);
int cli_template(int argc, char **argv);
int cli_fc(int argc, char **argv);

/* of sandboxes: src/cli/sandbox/ */
int cli_run(int argc, char **argv);
int cli_ps(int argc, char **argv);
int cli_logs(int argc, char **argv);
int cli_exec(int argc, char **argv);
int cli_pause(int argc, char **argv);
int cli_resume(int argc, char **argv);
int cli_fork(int argc, char **argv);
int cli_kill(int argc, char **argv);
int cli_rm(int argc, char **argv);
int cli_balloon(int argc, char **argv);

/** cli_error() - print "thaw VERB: " and the message as one line to stderr. Return: CLI_FAILED */
int cli_error(const char *verb, const char *fmt, ...) PRINTF_LIKE(2, 3);

/** cli_usage_error() - the same, with a hint at --help. Return: CLI_USAGE */
int cli_usage_error(const char *verb, const char *fmt, ...) PRINTF_LIKE(2, 3);

/** cli_when() - "2026-11-26 10:31", local time; "-" for 0. @seconds: since 1970. Return: @buf */
const char *cli_when(uint64_t seconds, char *buf, size_t len);

/** struct cli_verb - one of a verb's own verbs, such as `thaw image pack`; @what: NULL: not for people */
struct cli_verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
};

/**
 * struct cli_group - a verb that has verbs of its own, and the manual page of its name
 * @intro:   a line or two of help, with their line ends
 * @example: of what may be done, for whoever has not said it
 */
struct cli_group {
    const char *name;
    const char *intro;
    const char *example;
    const struct cli_verb *verbs;
    size_t n_verbs;
};

/** cli_group_run() - find the verb and hand over, or print the help. Return: the exit status */
int cli_group_run(const struct cli_group *g, int argc, char **argv);

/** cli_flush() - Return: @status, or CLI_FAILED and a line on stderr if stdout could not be written */
int cli_flush(const char *verb, int status);

/**
 * cli_parse_size() - "4096", "64K", "2M", "1G" (powers of 1024) as bytes
 *
 * Return: 0, or -EINVAL when @text is something else or too large for 64 bits.
 */
int cli_parse_size(const char *text, uint64_t *bytes);

/** cli_parse_u64() - a decimal number without sign, at most @max. Return: 0 or -EINVAL */
int cli_parse_u64(const char *text, uint64_t max, uint64_t *value);

#endif
