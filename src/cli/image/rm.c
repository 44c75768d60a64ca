/* SPDX-License-Identifier: Apache-2.0 */
/* rm.c - `thaw image rm`: remove images */
#include <getopt.h>
#include <stdio.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/image/image.h"

#define VERB "image rm"

static const char help[] =
    "usage: thaw image rm [--store DIR] NAME...\n"
    "\n"
    "Removes images, one after the other; an image that is in use or has a child stays, and those\n"
    "behind it, too. thaw image gc then frees what they stored and no other image needs.\n"
    "\n"
    "      --store DIR  the store; $THAW_STORE, or /var/lib/thaw\n"
    "  -h, --help       this text\n";

int image_rm(int argc, char **argv)
{
    static const struct option options[] = {
        {"store", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    _cleanup_(store_closep) struct store *store = NULL;
    static char program[] = "thaw image rm";
    const char *path = NULL;
    int r;
    int c;

    argv[0] = program;
    optind = 1;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 's') {
            path = optarg;
        } else if (c == 'h') {
            (void)fputs(help, stdout);
            return CLI_OK;
        } else {
            return CLI_USAGE; /* getopt has said what is wrong */
        }
    }
    if (optind == argc)
        return cli_usage_error(VERB, "expected the name of an image");
    r = store_open(&store, image_store_path(path), false);
    for (int i = optind; i < argc && r == 0; i++)
        r = store_remove(store, argv[i]);
    return r < 0 ? cli_error(VERB, "%s", err_text()) : CLI_OK;
}
