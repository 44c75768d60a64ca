/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_TEMPLATE_TEMPLATE_H
#define CLI_TEMPLATE_TEMPLATE_H

/*
 * template.h - the verbs of `thaw template`, and what they share
 *
 * Each takes its own part of the arguments (argv[0] is the verb) and returns the exit status.
 */

#include "base/base.h"

int template_cli_build(int argc, char **argv);
int template_cli_check(int argc, char **argv);
int template_cli_ls(int argc, char **argv);
int template_cli_rm(int argc, char **argv);
int template_cli_show(int argc, char **argv);

/** struct template_request - the options that most of them have */
struct template_request {
    const char *verb;
    const char *help_text;
    const char *store;
    bool json;
    bool help;
};

/**
 * template_parse() - take --store, --json and --help; what is left are names, from argv[optind] on
 * @has_json: whether the verb has it
 *
 * Return: CLI_OK, also when help was printed (@req->help), or CLI_USAGE and a line on stderr
 */
int template_parse(struct template_request *req, int argc, char **argv, bool has_json);

#endif
