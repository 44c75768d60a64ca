/* SPDX-License-Identifier: Apache-2.0 */
/* check.c - `thaw template check`: can it be resumed on this host, now? */
#include <getopt.h>
#include <stdio.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/template/template.h"
#include "node/template.h"

#define VERB "template check"

static const char help[] =
    "usage: thaw template check [--store DIR] NAME\n"
    "\n"
    "Says whether a template can be resumed on this host, now: a line for each reason against it,\n"
    "and exit status 1 if there is one.\n"
    "\n"
    "      --store DIR  the store; $THAW_STORE, or /var/lib/thaw\n"
    "  -h, --help       this text\n";

static int check(const char *store, const char *name)
{
    struct template t = {0};
    struct reasons why_not = {0};
    int r = template_load(&t, store, name);

    if (r == 0)
        r = template_check_here(&t, store, &why_not);
    if (r < 0)
        (void)cli_error(VERB, "%s", err_text());
    for (unsigned i = 0; i < why_not.n; i++)
        (void)printf("%s: %s\n", name, why_not.lines[i]);
    if (r == 0 && why_not.n == 0)
        (void)printf("%s: can be resumed here\n", name);
    r = r < 0 || why_not.n > 0 ? CLI_FAILED : CLI_OK;
    reasons_deinit(&why_not);
    template_deinit(&t);
    return cli_flush(VERB, r);
}

int template_cli_check(int argc, char **argv)
{
    struct template_request req = {.verb = VERB, .help_text = help};
    int status = template_parse(&req, argc, argv, false);

    if (status != CLI_OK || req.help)
        return status;
    if (optind + 1 != argc)
        return cli_usage_error(VERB, "expected the name of a template");
    return check(req.store, argv[optind]);
}
