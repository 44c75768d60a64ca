/* SPDX-License-Identifier: Apache-2.0 */
/* rm.c - `thaw template rm`: remove templates and their images */
#include <getopt.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/template/template.h"
#include "node/template.h"

#define VERB "template rm"

static const char help[] = "usage: thaw template rm [--store DIR] NAME...\n"
                           "\n"
                           "Removes templates and their images, one after the other. One of which "
                           "there are sandboxes, or\n"
                           "whose image is the parent of another one, stays, and those behind it, "
                           "too. thaw image gc then\n"
                           "frees what the images stored.\n"
                           "\n"
                           "      --store DIR  the store; $THAW_STORE, or /var/lib/thaw\n"
                           "  -h, --help       this text\n";

int template_cli_rm(int argc, char **argv)
{
    struct template_request req = {.verb = VERB, .help_text = help};
    int status = template_parse(&req, argc, argv, false);
    int r = 0;

    if (status != CLI_OK || req.help)
        return status;
    if (optind == argc)
        return cli_usage_error(VERB, "expected the name of a template");
    for (int i = optind; i < argc && r == 0; i++)
        r = template_remove(req.store, argv[i]);
    return r < 0 ? cli_error(VERB, "%s", err_text()) : CLI_OK;
}
