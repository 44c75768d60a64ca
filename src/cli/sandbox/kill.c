/* SPDX-License-Identifier: Apache-2.0 */
/* kill.c - `thaw kill`: end sandboxes' processes */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/sandbox/sandbox.h"

#define VERB "kill"

static const char help[] = "usage: thaw kill NAME... [--store DIR]\n"
                           "\n"
                           "Kills the VMMs of sandboxes. What a sandbox has done since its last "
                           "pause is lost; thaw resume\n"
                           "goes back to that, thaw rm removes the rest.\n"
                           "\n" SANDBOX_HELP;

static int kill_one(void *ctx, struct sandbox *s)
{
    (void)ctx;
    return sandbox_kill(s);
}

int cli_kill(int argc, char **argv)
{
    static const struct option options[] = {SANDBOX_OPTIONS};
    struct sandbox_verb v = {.name = VERB, .help = help, .shorts = "h", .options = options};
    int status;

    if (!sandbox_parse(&v, argc, argv, &status))
        return status;
    return sandbox_each(&v, argv + optind, SANDBOX_AS_FOUND, kill_one, NULL);
}
