/* SPDX-License-Identifier: Apache-2.0 */
/* rm.c - `thaw rm`: remove sandboxes */
#include <errno.h>
#include <stdio.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/sandbox/sandbox.h"

#define VERB "rm"

static const char help[] =
    "usage: thaw rm NAME... [-f] [--store DIR]\n"
    "\n"
    "Removes sandboxes with all that they have written down.\n"
    "\n"
    "  -f, --force         also one that runs, or whose record is broken\n" SANDBOX_HELP;

static int take(void *ctx, int option, const char *value)
{
    bool *force = ctx;

    (void)option;
    (void)value;
    *force = true;
    return CLI_OK;
}

/* remove_one() - a running one is found out to be dead, or half made, before it is refused */
static int remove_one(const char *store, const char *name, bool force)
{
    _cleanup_(sandbox_closep) struct sandbox *s = NULL;
    int r = sandbox_open(&s, store, name, force ? SANDBOX_AS_FOUND : SANDBOX_RECONCILED,
                         SANDBOX_LOCK_MS);

    if (r == 0) {
        r = sandbox_remove(s, force);
        s = sandbox_close(s); /* with its lock */
    }
    return r == -EINVAL && force ? sandbox_remove_broken(store, name) : r;
}

int cli_rm(int argc, char **argv)
{
    static const struct option options[] = {
        {"force", no_argument, NULL, 'f'},
        SANDBOX_OPTIONS,
    };
    bool force = false;
    struct sandbox_verb v = {.name = VERB,
                             .help = help,
                             .shorts = "fh",
                             .options = options,
                             .take = take,
                             .ctx = &force};
    int status;

    if (!sandbox_parse(&v, argc, argv, &status))
        return status;
    if (optind == argc)
        return cli_usage_error(VERB, "expected the name of a sandbox");
    for (int i = optind; i < argc; i++) {
        if (remove_one(v.store, argv[i], force) < 0)
            status = cli_error(VERB, "%s", err_text());
    }
    return status;
}
