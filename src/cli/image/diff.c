/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diff.c - `thaw image diff`: make the next layer of an image from what changed
 *
 * What changed is told by a file with holes, by the whole memory, or by the VM itself. The rule for all three: data wins over
 * zero, and zero wins over the parent's page. So a page that the guest removed is zero, whatever the parent has there.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/image/pack_request.h"
#include "cli/state_find.h"
#include "image/diff_file.h"
#include "node/layer.h"
#include "node/layer_state.h"

#define VERB    "image diff"
#define NOTHING "none" /* the argument of --state that says that the guest removed nothing */

static const char help[] =
    "usage: thaw image diff --parent IMAGE FROM -o NAME [OPTIONS]\n"
    "\n"
    "Makes an image of what changed since its parent, and prints its id. A page that the guest\n"
    "removed is zero in it. FROM is one of\n"
    "\n"
    "      --sparse FILE     data where the guest wrote, holes elsewhere, as Firecracker's diff "
    "snapshots\n"
    "      --memory FILE     all of the memory\n"
    "      --pid PID         of a VMM that is paused, or of its pager: its memory is read\n"
    "\n"
    "A file of --sparse does not tell removed pages from those that nobody wrote to. This does:\n"
    "\n"
    "      --state STATE     the pager's state at that moment: a state file, or the pid of a VMM "
    "that is\n"
    "                        paused or of its pager; none: the guest removes nothing\n"
    "                        (--pid: the state file, if it is not where thaw serve puts it)\n"
    "\n"
    "  -o, --output NAME     the image's name\n"
    "      --replace         the name may lead to another image already\n"
    "      --store DIR       the store; $THAW_STORE, or /var/lib/thaw\n"
    "      --parent IMAGE    what the VM was restored from: a name, or the first digits of an "
    "id\n" PACK_REQUEST_HELP;

/* struct request - the command line, understood */
struct request {
    struct pack_request pack;
    const char *sparse;
    const char *memory;
    const char *pid;
    const char *state;
    char state_path[PATH_MAX]; /* "": without one */
};

static int take_option(struct request *req, int option, const char *value)
{
    switch (option) {
    case 'S':
        req->sparse = value;
        return CLI_OK;
    case 'M':
        req->memory = value;
        return CLI_OK;
    case 'P':
        req->pid = value;
        return CLI_OK;
    case 'T':
        req->state = value;
        return CLI_OK;
    default:
        return pack_request_option(&req->pack, option, value);
    }
}

/* check_from() - is one source named, and what belongs to it? */
static int check_from(const struct request *req)
{
    uint64_t pid;

    if (!req->pack.parent)
        return cli_usage_error(VERB, "--parent is missing: the image that the VM came from");
    if ((req->sparse != NULL) + (req->memory != NULL) + (req->pid != NULL) != 1)
        return cli_usage_error(VERB, "expected one of --sparse, --memory and --pid");
    if (req->memory && req->state)
        return cli_usage_error(VERB, "--state is not for --memory, which has all pages");
    if (req->pid && req->state && strcmp(req->state, NOTHING) == 0)
        return cli_usage_error(VERB, "--state none is for --sparse");
    if (req->pid && cli_parse_u64(req->pid, INT32_MAX, &pid) < 0)
        return cli_usage_error(VERB, "--pid %s: expected the number of a process", req->pid);
    return CLI_OK;
}

static int parse_arguments(int argc, char **argv, struct request *req)
{
    static const struct option options[] = {
        {"sparse", required_argument, NULL, 'S'},
        {"memory", required_argument, NULL, 'M'},
        {"pid", required_argument, NULL, 'P'},
        {"state", required_argument, NULL, 'T'},
        PACK_REQUEST_OPTIONS,
        {NULL, 0, NULL, 0},
    };
    static char program[] = "thaw " VERB;
    int r = CLI_OK;
    int c;

    argv[0] = program;
    optind = 1;
    while (r == CLI_OK && (c = getopt_long(argc, argv, "o:h", options, NULL)) != -1)
        r = take_option(req, c, optarg);
    if (r != CLI_OK || req->pack.help)
        return r;
    if (optind != argc)
        return cli_usage_error(VERB, "unexpected argument %s", argv[optind]);
    r = check_from(req);
    return r == CLI_OK ? pack_request_check(&req->pack) : r;
}

/* find_state() - the state file, if one is needed */
static int find_state(struct request *req)
{
    const char *which = req->state ? req->state : req->pid;

    if (!which || strcmp(which, NOTHING) == 0)
        return CLI_OK;
    return cli_find_state(VERB, which, NULL, req->state_path, sizeof(req->state_path));
}

/* ---- the three sources ---------------------------------------------------------------------------------------- */

/* read_hints() - what the state says of holes; @hints: NULL without a state */
static int read_hints(const struct request *req, const struct image *parent, uint8_t **hints)
{
    _cleanup_(state_freep) struct state_copy *copy = NULL;
    struct layer_state meaning;
    int r;

    if (req->state_path[0] == '\0')
        return 0;
    r = layer_state_read(req->state_path, &copy);
    if (r == 0)
        r = layer_state_init(&meaning, &copy->block, req->state_path, parent);
    return r == 0 ? layer_state_hints(hints, &meaning, parent->manifest->image_bytes) : r;
}

static int diff_sparse(const struct request *req, struct store *store,
                       const struct pack_options *opts, struct pack_result *done)
{
    struct diff_file file = {.file = {.fd = -1}};
    struct page_source src;
    uint8_t *hints = NULL;
    int r = read_hints(req, opts->parent, &hints);

    if (r == 0)
        r = diff_file_open(&file, req->sparse, opts->parent->manifest, hints);
    if (r == 0) {
        src = diff_file_source(&file);
        r = pack_pages(store, &src, opts, done);
    }
    diff_file_close(&file);
    free(hints);
    return r;
}

static int make(void *ctx, struct store *store, const struct pack_options *opts,
                struct pack_result *done)
{
    const struct request *req = ctx;

    if (req->memory)
        return pack_memory(store, req->memory, opts, done);
    return req->sparse ? diff_sparse(req, store, opts, done)
                       : layer_make(store, req->state_path, opts->parent, NULL, opts, done);
}

int image_diff(int argc, char **argv)
{
    struct request req = {.pack = pack_request_default(VERB)};
    int r = parse_arguments(argc, argv, &req);

    if (r == CLI_OK && req.pack.help) {
        (void)fputs(help, stdout);
        return CLI_OK;
    }
    if (r == CLI_OK)
        r = find_state(&req);
    if (r != CLI_OK)
        return r;
    if (req.sparse && !req.state)
        (void)fprintf(stderr, "thaw " VERB ": warning: without --state a page that the guest "
                              "removed becomes its parent's again\n");
    return pack_request_run(&req.pack, make, &req);
}
