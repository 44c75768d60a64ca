/* SPDX-License-Identifier: Apache-2.0 */
/*
 * build.c - `thaw template build`: make a template
 *
 * Options are the fields of a recipe (node/template_recipe.h), so there is one list of them and one check. A recipe's file is
 * read first, wherever --recipe stands: what is said by options wins.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "cli/template/template.h"
#include "node/template_build.h"

#define VERB "template build"

static const char help[] =
    "usage: thaw template build NAME --vmm firecracker|qemu --kernel FILE [OPTIONS]\n"
    "       thaw template build NAME --recipe FILE [OPTIONS]\n"
    "\n"
    "Boots a guest, waits until it is ready, has it give back memory that it does not use, and\n"
    "keeps it frozen: its memory as an image, with what it touches first when it is resumed.\n"
    "\n"
    "      --vmm firecracker|qemu      what runs the guest\n"
    "      --kernel FILE               what it boots\n"
    "      --initrd FILE\n"
    "      --rootfs FILE               its disk; the template has a copy of its own\n"
    "      --rootfs-read-only          the guest may not write to it\n"
    "      --memory MIB                (256)\n"
    "      --vcpus N                   (1)\n"
    "      --hugepages                 its memory is in pages of 2 MiB\n"
    "      --cmdline TEXT              the kernel's command line\n"
    "      --vsock                     it has a vsock (Firecracker)\n"
    "      --ready MARKER              it is ready when it writes this to its console; without it\n"
    "                                  when a shell answers there\n"
    "      --ready-vsock PORT          it is ready when somebody listens there; gives it a vsock\n"
    "      --start-cmd COMMAND         then its shell runs this, and its end is waited for\n"
    "      --no-shell                  there is no shell at its console: type nothing\n"
    "      --free-page-reporting auto|on|off\n"
    "                                  the guest tells what it does not use; auto: if the VMM's\n"
    "                                  version has it\n"
    "      --free-page-hinting auto|on|off\n"
    "                                  it is asked once; auto: no\n"
    "      --firecracker-version V     the version that is meant: another one is refused\n"
    "      --vmm-program FILE          the VMM (firecracker, qemu-system-x86_64)\n"
    "      --machine pc|q35|microvm    of QEMU (pc)\n"
    "      --accel tcg|kvm             of QEMU (kvm where QEMU starts with it)\n"
    "      --cpu MODEL                 of QEMU: the processor that the guest sees (the host's own\n"
    "                                  with kvm, else all that can be emulated)\n"
    "      --timeout SECS              for each thing that is waited for (120)\n"
    "      --record-seconds SECS       how long it is watched when restored, without a shell (5)\n"
    "      --recipe FILE               all this from a JSON file, thaw-template(5)\n"
    "      --store DIR                 the store; $THAW_STORE, or /var/lib/thaw\n"
    "      --threads N                 for packing (as many as there are processors)\n"
    "  -h, --help                      this text\n";

enum {
    OPT_FIELD = 256, /* of the recipe, by the option's name */
    OPT_FLAG,
    OPT_RECIPE,
    OPT_STORE,
    OPT_THREADS,
};

static const struct option options[] = {
    {"vmm", required_argument, NULL, OPT_FIELD},
    {"kernel", required_argument, NULL, OPT_FIELD},
    {"initrd", required_argument, NULL, OPT_FIELD},
    {"rootfs", required_argument, NULL, OPT_FIELD},
    {"rootfs-read-only", no_argument, NULL, OPT_FLAG},
    {"memory", required_argument, NULL, OPT_FIELD},
    {"vcpus", required_argument, NULL, OPT_FIELD},
    {"hugepages", no_argument, NULL, OPT_FLAG},
    {"cmdline", required_argument, NULL, OPT_FIELD},
    {"ready", required_argument, NULL, OPT_FIELD},
    {"ready-vsock", required_argument, NULL, OPT_FIELD},
    {"vsock", no_argument, NULL, OPT_FLAG},
    {"start-cmd", required_argument, NULL, OPT_FIELD},
    {"no-shell", no_argument, NULL, OPT_FLAG},
    {"free-page-reporting", required_argument, NULL, OPT_FIELD},
    {"free-page-hinting", required_argument, NULL, OPT_FIELD},
    {"firecracker-version", required_argument, NULL, OPT_FIELD},
    {"vmm-program", required_argument, NULL, OPT_FIELD},
    {"machine", required_argument, NULL, OPT_FIELD},
    {"accel", required_argument, NULL, OPT_FIELD},
    {"cpu", required_argument, NULL, OPT_FIELD},
    {"timeout", required_argument, NULL, OPT_FIELD},
    {"record-seconds", required_argument, NULL, OPT_FIELD},
    {"recipe", required_argument, NULL, OPT_RECIPE},
    {"store", required_argument, NULL, OPT_STORE},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* struct request - the command line, understood */
struct request {
    struct template_recipe recipe;
    const char *recipe_path;
    const char *store;
    const char *name;
    unsigned n_threads;
    bool help;
};

/* find_recipe() - its file and --help, before anything else; errors come up when all options are taken */
static void find_recipe(struct request *req, int argc, char **argv)
{
    int c;

    opterr = 0;
    optind = 1;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == OPT_RECIPE)
            req->recipe_path = optarg;
        req->help |= c == 'h';
    }
    opterr = 1;
}

static int take_option(struct request *req, int c, int index)
{
    switch (c) {
    case OPT_FIELD:
    case OPT_FLAG:
        if (template_recipe_set(&req->recipe, options[index].name,
                                c == OPT_FLAG ? "true" : optarg) < 0)
            return cli_usage_error(VERB, "%s", err_text());
        return CLI_OK;
    case OPT_STORE:
        req->store = optarg;
        return CLI_OK;
    case OPT_THREADS:
        return image_parse_threads(VERB, optarg, &req->n_threads);
    case OPT_RECIPE:
        return CLI_OK;
    default:
        return CLI_USAGE; /* getopt has said what is wrong */
    }
}

static int parse_arguments(int argc, char **argv, struct request *req)
{
    static char program[] = "thaw " VERB;
    int index = 0;
    int r = CLI_OK;
    int c;

    argv[0] = program;
    find_recipe(req, argc, argv);
    if (req->help)
        return CLI_OK;
    if (req->recipe_path && template_recipe_read(&req->recipe, req->recipe_path) < 0)
        return cli_error(VERB, "%s", err_text());
    optind = 1;
    while (r == CLI_OK && (c = getopt_long(argc, argv, "h", options, &index)) != -1)
        r = take_option(req, c, index);
    if (r != CLI_OK)
        return r;
    if (optind + 1 != argc)
        return cli_usage_error(VERB, "expected one name, of the template");
    req->name = argv[optind];
    if (store_check_name(req->name) < 0 || template_recipe_check(&req->recipe) < 0)
        return cli_usage_error(VERB, "%s", err_text());
    return CLI_OK;
}

/* ---- steps, for people ---------------------------------------------------------------------------------------- */

/* struct steps - on a terminal: what it is at, and how long each step took */
struct steps {
    struct image_work work;
    const char *name;
    char current[96];
    uint64_t since_ns;
};

/* end_step() - it is over, and its line stays */
static void end_step(struct steps *s)
{
    if (s->current[0] == '\0' || !isatty(STDERR_FILENO))
        return;
    progress_clear(&s->work.progress);
    (void)fprintf(stderr, "\r%6.1f s  %s\n", (double)(clock_now_ns() - s->since_ns) / 1e9,
                  s->current);
    s->current[0] = '\0';
}

static void show_step(void *ctx, const char *what)
{
    struct steps *s = ctx;

    end_step(s);
    (void)snprintf(s->current, sizeof(s->current), "%s", what);
    s->since_ns = clock_now_ns();
    if (isatty(STDERR_FILENO))
        (void)fprintf(stderr, "%10s%s", "", what);
}

static int stopped(void *ctx)
{
    (void)ctx;
    return image_work_stopped();
}

static int build(struct request *req)
{
    struct steps steps = {.name = req->name};
    struct template_watch watch = {.step = show_step, .stopped = stopped, .ctx = &steps};
    int r;

    image_work_begin(&steps.work, req->n_threads);
    watch.job = steps.work.job;
    r = template_build(&req->recipe, image_store_path(req->store), req->name, &watch);
    image_work_end(&steps.work);
    if (r == 0)
        end_step(&steps);
    else if (steps.current[0] != '\0' && isatty(STDERR_FILENO))
        (void)fputc('\n', stderr);
    return r < 0 ? cli_error(VERB, "%s", err_text()) : CLI_OK;
}

int template_cli_build(int argc, char **argv)
{
    struct request req = {0};
    int r;

    template_recipe_init(&req.recipe);
    r = parse_arguments(argc, argv, &req);
    if (r == CLI_OK && req.help)
        (void)fputs(help, stdout);
    else if (r == CLI_OK)
        r = build(&req);
    template_recipe_deinit(&req.recipe);
    return r;
}
