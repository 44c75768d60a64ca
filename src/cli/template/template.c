/* SPDX-License-Identifier: Apache-2.0 */
/* template.c - `thaw template`: finds the verb and hands over */
#include "cli/template/template.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/image/image.h"

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} verbs[] = {
    {"build", template_cli_build, "boot a guest, wait until it is ready, keep it frozen"},
    {"show", template_cli_show, "say all that is known of a template"},
    {"ls", template_cli_ls, "list the templates of a store"},
    {"check", template_cli_check, "say whether it can be resumed on this host"},
    {"rm", template_cli_rm, "remove templates"},
};

static void print_help(void)
{
    (void)printf(
        "usage: thaw template VERB [ARGUMENTS]\n\n"
        "Templates: virtual machines that were booted once and are resumed many times.\n\n");
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        (void)printf("  %-8s %s\n", verbs[i].name, verbs[i].what);
    (void)printf(
        "\n  -h, --help  this text\n\nthaw template VERB --help and thaw-template(1) say more.\n");
}

int cli_template(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(name, verbs[i].name) == 0)
            return verbs[i].run(argc - 1, argv + 1);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_help();
        return CLI_OK;
    }
    if (argc < 2)
        return cli_usage_error("template", "expected what to do, such as build or ls");
    return cli_usage_error("template", "no such thing to do: %s", name);
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

const char *template_when(uint64_t seconds, char *buf, size_t len)
{
    time_t t = (time_t)seconds;
    struct tm tm;

    if (seconds == 0 || !localtime_r(&t, &tm) || strftime(buf, len, "%Y-%m-%d %H:%M", &tm) == 0)
        (void)snprintf(buf, len, "-");
    return buf;
}

int template_flush(const char *verb)
{
    return fflush(stdout) == 0 && !ferror(stdout)
               ? CLI_OK
               : cli_error(verb, "cannot write: %s", strerror(errno));
}
