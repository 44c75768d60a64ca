/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SANDBOX_SANDBOX_H
#define CLI_SANDBOX_SANDBOX_H

/*
 * sandbox.h - what the verbs about sandboxes share: run, ps, logs, pause, resume, fork, kill, rm, exec, balloon
 */

#include <getopt.h>

#include "node/sandbox.h"

/* What every verb takes. A verb's own options come before it in its table. */
#define SANDBOX_OPTIONS                                                        \
    {"store", required_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'}, \
    {                                                                          \
        NULL, 0, NULL, 0                                                       \
    }

#define SANDBOX_HELP                                                   \
    "      --store DIR     the store; $THAW_STORE, or /var/lib/thaw\n" \
    "  -h, --help          this text\n"

/**
 * struct sandbox_verb - a verb's command line
 * @name, @help, @options, @shorts: of getopt_long(3)
 * @take:  an option of the verb's own. Return: CLI_OK, or CLI_USAGE and a line on stderr. NULL: it has none
 * @store: set by sandbox_parse()
 */
struct sandbox_verb {
    const char *name;
    const char *help;
    const char *shorts;
    const struct option *options;
    int (*take)(void *ctx, int option, const char *value);
    void *ctx;
    const char *store;
};

/**
 * sandbox_parse() - the options. What follows them is argv[optind] and on
 * @status: the exit status if it is over already
 *
 * Return: is there anything left to do?
 */
bool sandbox_parse(struct sandbox_verb *v, int argc, char **argv, int *status);

/** sandbox_each() - do it to each of the named ones; each failure is a line on stderr. Return: the exit status */
int sandbox_each(const struct sandbox_verb *v, char *const *names, enum sandbox_how how,
                 int (*act)(void *ctx, struct sandbox *s), void *ctx);

/** sandbox_parse_seconds() - a decimal number of seconds, up to an hour. Return: CLI_OK, or CLI_USAGE and a line on stderr */
int sandbox_parse_seconds(const char *verb, const char *option, const char *text, unsigned *ms);

#define SANDBOX_COUNT_MAX 1000u

/** struct sandbox_many - how several are named, and how long each may take */
struct sandbox_many {
    const char *verb;
    const char *name; /* NULL: names are invented */
    unsigned count;
    bool wait; /* until their guests answer */
    struct sandbox_wishes wishes;
};

#define SANDBOX_MANY_OPTIONS                                                         \
    {"name", required_argument, NULL, 'n'}, {"count", required_argument, NULL, 'c'}, \
        {"wait", no_argument, NULL, 'w'}, {"timeout", required_argument, NULL, 't'}, \
    {                                                                                \
        "state", required_argument, NULL, 'S'                                        \
    }

/** sandbox_many_take() - one of SANDBOX_MANY_OPTIONS. Return: CLI_OK, or CLI_USAGE and a line on stderr */
int sandbox_many_take(struct sandbox_many *m, int option, const char *value);

/** sandbox_many_name() - NAME, or NAME-1, NAME-2, ...; NULL: one is to be invented. @i: from 0 on. Return: @buf or NULL */
const char *sandbox_many_name(const struct sandbox_many *m, unsigned i,
                              char buf[SANDBOX_NAME_MAX + 1]);

/** sandbox_many_check() - would all of the names do? Return: CLI_OK, or CLI_USAGE and a line on stderr */
int sandbox_many_check(const struct sandbox_many *m);

/**
 * sandbox_tell_running() - its guest runs: its name, for scripts; how long it took, for people
 * @s:       (take)
 * @wait_ms: until the shell at its console answers; 0: that is not waited for
 *
 * Return: 0 or a negative errno with a text
 */
int sandbox_tell_running(struct sandbox *s, uint64_t since_ns, unsigned wait_ms);

#endif
