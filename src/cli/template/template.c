/* SPDX-License-Identifier: Apache-2.0 */
/* template.c - `thaw template`: finds the verb and hands over */
#include "cli/template/template.h"

#include <getopt.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/image/image.h"

static const struct cli_verb verbs[] = {
    {"build", template_cli_build, "boot a guest, wait until it is ready, keep it frozen"},
    {"show", template_cli_show, "say all that is known of a template"},
    {"ls", template_cli_ls, "list the templates of a store"},
    {"check", template_cli_check, "say whether it can be resumed on this host"},
    {"rm", template_cli_rm, "remove templates"},
};

int cli_template(int argc, char **argv)
{
    static const struct cli_group group = {
        .name = "template",
        .intro = "Templates: virtual machines that were booted once and are resumed many times.\n",
        .example = "build or ls",
        .verbs = verbs,
        .n_verbs = ARRAY_LEN(verbs),
    };

    return cli_group_run(&group, argc, argv);
}

int template_parse(struct template_request *req, int argc, char **argv, bool has_json)
{
    static const struct option options[] = {
        {"store", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {"json", no_argument, NULL, 'j'},
        {NULL, 0, NULL, 0},
    };
    static const struct option without[] = {
        {"store", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    static char program[64];
    int c;

    (void)snprintf(program, sizeof(program), "thaw %s", req->verb);
    argv[0] = program;
    optind = 1;
    while ((c = getopt_long(argc, argv, "h", has_json ? options : without, NULL)) != -1) {
        if (c == 's') {
            req->store = optarg;
        } else if (c == 'j') {
            req->json = true;
        } else if (c == 'h') {
            req->help = true;
            (void)fputs(req->help_text, stdout);
            return CLI_OK;
        } else {
            return CLI_USAGE; /* getopt has said what is wrong */
        }
    }
    req->store = image_store_path(req->store);
    return CLI_OK;
}
