/* SPDX-License-Identifier: Apache-2.0 */
/* pack.c - `thaw image pack`: make an image of a memory file */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/image/pack_request.h"

#define VERB "image pack"

static const char help[] =
    "usage: thaw image pack MEMFILE -o NAME [OPTIONS]\n"
    "\n"
    "Makes an image of a snapshot's memory file, and prints its id. What is zero costs nothing, "
    "what\n"
    "is equal to the parent is not stored again.\n"
    "\n"
    "  -o, --output NAME     the image's name\n"
    "      --replace         the name may lead to another image already\n"
    "      --store DIR       the store; $THAW_STORE, or /var/lib/thaw; made if it is not there\n"
    "      --parent IMAGE    an image that this one comes from: a name, or the first digits of an "
    "id\n" PACK_REQUEST_HELP;

/* parse_arguments() - @memory_path: the one that is no option */
static int parse_arguments(int argc, char **argv, struct pack_request *req,
                           const char **memory_path)
{
    static const struct option options[] = {
        PACK_REQUEST_OPTIONS,
        {NULL, 0, NULL, 0},
    };
    static char program[] = "thaw " VERB;
    int r = CLI_OK;
    int c;

    argv[0] = program;
    optind = 1;
    while (r == CLI_OK && (c = getopt_long(argc, argv, "o:h", options, NULL)) != -1)
        r = pack_request_option(req, c, optarg);
    if (r != CLI_OK || req->help)
        return r;
    if (optind + 1 != argc)
        return cli_usage_error(VERB, "expected one memory file");
    *memory_path = argv[optind];
    return pack_request_check(req);
}

static int make(void *ctx, struct store *store, const struct pack_options *opts,
                struct pack_result *done)
{
    return pack_memory(store, ctx, opts, done);
}

int image_pack(int argc, char **argv)
{
    struct pack_request req = pack_request_default(VERB);
    const char *memory_path = NULL;
    int r = parse_arguments(argc, argv, &req, &memory_path);

    if (r != CLI_OK)
        return r;
    if (req.help) {
        (void)fputs(help, stdout);
        return CLI_OK;
    }
    return pack_request_run(&req, make, (void *)memory_path);
}
