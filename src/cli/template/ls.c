/* SPDX-License-Identifier: Apache-2.0 */
/* ls.c - `thaw template ls`: list the templates of a store. One that cannot be read gets a line on stderr */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "cli/template/template.h"
#include "node/template.h"

#define VERB "template ls"

static const char help[] = "usage: thaw template ls [--json] [--store DIR]\n"
                           "\n"
                           "Lists the templates of a store.\n"
                           "\n"
                           "      --json       one JSON object a template, a line each\n"
                           "      --store DIR  the store; $THAW_STORE, or /var/lib/thaw\n"
                           "  -h, --help       this text\n";

static void print_line(const struct template *t)
{
    char vmm[48];
    char when[32];

    (void)snprintf(vmm, sizeof(vmm), "%s %s", template_vmm_words[t->vmm], t->vmm_version);
    (void)printf("%-24s %-24s %5u MiB %3u  %-9s %-8s %s\n", t->name, vmm, t->memory_mib, t->n_vcpus,
                 t->free_page_reporting.on ? "reporting" : "-",
                 t->free_page_hinting.on ? "hinting" : "-",
                 cli_when(t->built_s, when, sizeof(when)));
}

/* print_json() - the record, with the name */
static int print_json(const struct template *t)
{
    json_t *top = record_json(&template_form, t);
    int r = top ? json_object_set_new(top, "name", json_string(t->name)) : -1;

    if (r == 0)
        r = json_dumpf(top, stdout, JSON_COMPACT);
    (void)putchar('\n');
    json_decref(top);
    return r < 0 ? cli_error(VERB, "cannot write JSON") : CLI_OK;
}

int template_cli_ls(int argc, char **argv)
{
    struct template_request req = {.verb = VERB, .help_text = help};
    struct folder_list list = {0};
    int status = template_parse(&req, argc, argv, true);

    if (status != CLI_OK || req.help)
        return status;
    if (optind < argc)
        return cli_usage_error(VERB, "unexpected argument: %s", argv[optind]);
    status = image_store_named(VERB, req.store);
    if (status != CLI_OK)
        return status;
    if (template_list(req.store, &list) < 0)
        return cli_error(VERB, "%s", err_text());
    if (!req.json && list.n > 0)
        (void)printf("%-24s %-24s %9s %3s  %-9s %-8s %s\n", "NAME", "VMM", "MEMORY", "CPU", "PAGES",
                     "", "BUILT");
    for (size_t i = 0; i < list.n; i++) {
        struct template t = {0};

        if (template_load(&t, req.store, list.names[i]) < 0)
            status = cli_error(VERB, "%s", err_text());
        else if (!req.json)
            print_line(&t);
        else if (print_json(&t) != CLI_OK)
            status = CLI_FAILED;
        template_deinit(&t);
    }
    folder_list_deinit(&list);
    return cli_flush(VERB, status);
}
