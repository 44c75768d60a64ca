/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ready.c - `thaw ready`: tell a pager that its guest has come as far as its working set is to be recorded
 *
 * A signal, because that is what a pager under another user, in another container, can be told with by whoever may kill
 * it. It goes to the process that holds the state file, and to no other that may have its number by now.
 */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>

#include "base/err.h"
#include "cli/cli.h"
#include "node/state_copy.h"
#include "cli/state_find.h"

#define VERB "ready"

static const char help[] =
    "usage: thaw ready [PID | STATEFILE] [--state DIR]\n"
    "\n"
    "Tells a pager that records a working set (thaw serve --record) that the guest is ready: the "
    "record ends here and is\n"
    "written.\n"
    "\n"
    "  PID          of the pager or of the VMM; without it the only pager that runs is taken\n"
    "  STATEFILE    a pager's state file, for pagers with another state directory\n"
    "  --state DIR  where state files are (default: as thaw serve)\n";

static int tell(const char *path)
{
    _cleanup_(state_freep) struct state_copy *s = NULL;

    if (state_read(path, &s) < 0 || state_tell_ready(s, path) < 0)
        return cli_error(VERB, "%s", err_text());
    return CLI_OK;
}

int cli_ready(int argc, char **argv)
{
    static const struct option options[] = {
        {"state", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *dir = NULL;
    char path[PATH_MAX];
    int option;
    int r;

    opterr = 0;
    optind = 1;
    while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        if (option == 'h') {
            (void)fputs(help, stdout);
            return CLI_OK;
        }
        if (option == ':')
            return cli_usage_error(VERB, "%s needs a value", argv[optind - 1]);
        if (option != 's')
            return cli_usage_error(VERB, "unknown option %s", argv[optind - 1]);
        dir = optarg;
    }
    if (argc - optind > 1)
        return cli_usage_error(VERB, "unexpected argument %s", argv[optind + 1]);
    r = cli_find_state(VERB, argv[optind], dir, path, sizeof(path));
    return r == CLI_OK ? tell(path) : r;
}
