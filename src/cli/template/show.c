/* SPDX-License-Identifier: Apache-2.0 */
/* show.c - `thaw template show`: all that is known of a template */
#include <getopt.h>
#include <stdio.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/map/size_text.h"
#include "cli/template/template.h"
#include "node/template.h"

#define VERB "template show"

static const char help[] = "usage: thaw template show [--json] [--store DIR] NAME\n"
                           "\n"
                           "Says all that is known of a template.\n"
                           "\n"
                           "      --json       its record\n"
                           "      --store DIR  the store; $THAW_STORE, or /var/lib/thaw\n"
                           "  -h, --help       this text\n";

/* print_feature() - what it has, and why. @why_not: it is off when nothing was said */
static void print_feature(const char *name, const struct template_feature *f, const char *why_not)
{
    const char *why = f->asked == THAW_CHOICE_AUTO
                          ? (f->on ? "by itself: the version has it" : why_not)
                          : "as asked for";

    (void)printf("%-20s %s (%s)\n", name, f->on ? "on" : "off", why);
}

static void print_guest(const struct template *t)
{
    (void)printf("%-20s %u MiB in pages of %s\n", "memory", t->memory_mib,
                 t->huge_pages ? "2 MiB" : "4 KiB");
    (void)printf("%-20s %u\n", "processors", t->n_vcpus);
    (void)printf("%-20s kernel%s%s\n", "files", t->has_initrd ? " initrd" : "",
                 !t->has_rootfs ? "" : (t->rootfs_read_only ? " rootfs (read only)" : " rootfs"));
    (void)printf("%-20s %s\n", "devices", t->devices);
    if (t->cmdline)
        (void)printf("%-20s %s\n", "command line", t->cmdline);
    if (t->ready)
        (void)printf("%-20s it writes '%s'\n", "ready when", t->ready);
    if (t->ready_vsock > 0)
        (void)printf("%-20s somebody listens at vsock port %u\n", "ready when", t->ready_vsock);
    if (!t->ready && t->ready_vsock == 0)
        (void)printf("%-20s its shell answers\n", "ready when");
    if (t->start_cmd)
        (void)printf("%-20s %s\n", "start command", t->start_cmd);
    (void)printf("%-20s %s\n", "shell", t->has_shell ? "yes, at the serial console" : "no");
}

static void print_text(const struct template *t)
{
    char when[32];

    (void)printf("%-20s %s\n", "template", t->name);
    (void)printf("%-20s %s\n", "built", cli_when(t->built_s, when, sizeof(when)));
    (void)printf("%-20s %s %s%s%s\n", "VMM", template_vmm_words[t->vmm], t->vmm_version,
                 t->program ? ", " : "", t->program ? t->program : "");
    if (t->machine)
        (void)printf("%-20s %s, %s%s%s\n", "machine", t->machine, t->accel ? t->accel : "-",
                     t->cpu ? ", " : "", t->cpu ? t->cpu : "");
    (void)printf("%-20s %s\n", "snapshot format", t->snapshot_format);
    print_guest(t);
    print_feature("free page reporting", &t->free_page_reporting, "the version does not have it");
    print_feature("free page hinting", &t->free_page_hinting, "nobody asked for it");
    (void)printf("%-20s %s, %s\n", "image", t->image, size_text(t->image_bytes));
    (void)printf("%-20s %s\n", "working set", t->has_working_set ? "first in the image" : "none");
    (void)printf("%-20s %s, Linux %s, %s\n", "host", t->host.arch, t->host.kernel, t->host.cpu);
}

static int show(const struct template_request *req, const char *name)
{
    struct template t = {0};
    json_t *top = NULL;
    int r = template_load(&t, req->store, name);

    if (r < 0)
        return cli_error(VERB, "%s", err_text());
    if (!req->json) {
        print_text(&t);
    } else {
        top = record_json(&template_form, &t);
        r = top ? json_dumpf(top, stdout, JSON_INDENT(2)) : -1;
        (void)putchar('\n');
        json_decref(top);
    }
    template_deinit(&t);
    return r < 0 ? cli_error(VERB, "cannot write JSON") : cli_flush(VERB, CLI_OK);
}

int template_cli_show(int argc, char **argv)
{
    struct template_request req = {.verb = VERB, .help_text = help};
    int status = template_parse(&req, argc, argv, true);

    if (status != CLI_OK || req.help)
        return status;
    if (optind + 1 != argc)
        return cli_usage_error(VERB, "expected the name of a template");
    return show(&req, argv[optind]);
}
