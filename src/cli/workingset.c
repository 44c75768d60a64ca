/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workingset.c - `thaw workingset`: look at working sets, make one of several
 *
 *     show FILE                                one line an entry, in the order of the first touches
 *     stat FILE...                             one line of JSON a file
 *     merge --union|--intersect -o OUT FILE... one of several
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/cli.h"
#include "image/workingset.h"

#define VERB     "workingset"
#define MAX_SETS 64u

static const char help[] =
    "usage: thaw workingset show FILE\n"
    "       thaw workingset stat FILE...\n"
    "       thaw workingset merge --union|--intersect -o OUT FILE FILE...\n"
    "\n"
    "Working sets: which parts of a snapshot a guest touched first (thaw serve --record).\n"
    "\n"
    "  show     one line for each: offset in the memory file, when (by powers of two of a "
    "millisecond), read or write\n"
    "  stat     numbers, one JSON object a file\n"
    "  merge    one of several; the order is that of the first\n"
    "\n"
    "      --union        what is in any of them\n"
    "      --intersect    what is in all of them\n"
    "  -o, --output OUT   the file to write\n"
    "  -h, --help         this text\n";

/* time_text() - what a time class stands for */
static const char *time_text(unsigned time_class, char *buf, size_t len)
{
    uint64_t ms = 1ull << time_class;

    if (ms < 10000)
        (void)snprintf(buf, len, "<%" PRIu64 "ms", ms);
    else
        (void)snprintf(buf, len, "<%" PRIu64 "s", ms / 1000 + 1);
    return buf;
}

static int show(const char *path)
{
    _cleanup_(workingset_freep) struct workingset *ws = NULL;
    char when[32];

    if (workingset_read(&ws, path) < 0)
        return cli_error(VERB, "%s", err_text());
    (void)printf("# %zu of %llu bytes each, of a memory file of %" PRIu64
                 " bytes, recorded for %.3f s%s\n",
                 ws->n, 1ull << ws->unit_shift, ws->image_bytes, (double)ws->window_ns / 1e9,
                 ws->complete ? "" : ", cut off");
    for (size_t i = 0; i < ws->n; i++) {
        const struct workingset_entry *e = &ws->entries[i];

        (void)printf("0x%012" PRIx64 " %-8s %s\n", e->unit << ws->unit_shift,
                     time_text(e->time_class, when, sizeof(when)), e->write ? "write" : "read");
    }
    return fflush(stdout) == 0 ? CLI_OK : cli_error(VERB, "cannot write: %s", strerror(errno));
}

static int stat_one(const char *path)
{
    _cleanup_(workingset_freep) struct workingset *ws = NULL;
    struct workingset_stat s;

    if (workingset_read(&ws, path) < 0 || workingset_stat(ws, &s) < 0)
        return cli_error(VERB, "%s", err_text());
    (void)printf("{\"image_bytes\":%" PRIu64
                 ",\"unit_bytes\":%llu,\"entries\":%zu,\"bytes\":%" PRIu64
                 ",\"share\":%.4f,\"writes\":%" PRIu64 ",\"runs\":%" PRIu64
                 ",\"median_run\":%" PRIu64 ",\"longest_run\":%" PRIu64
                 ",\"in_order\":%.4f,\"seconds\":%.3f,\"complete\":%s,\"by_ms\":{",
                 ws->image_bytes, 1ull << ws->unit_shift, ws->n, s.bytes,
                 (double)s.bytes / (double)ws->image_bytes, s.n_writes, s.n_runs, s.median_run,
                 s.longest_run, ws->n > 1 ? (double)s.n_ordered / (double)(ws->n - 1) : 0.0,
                 (double)ws->window_ns / 1e9, ws->complete ? "true" : "false");
    for (unsigned i = 0, n = 0; i < 64; i++) {
        if (s.by_time_class[i] > 0)
            (void)printf("%s\"%llu\":%" PRIu64, n++ > 0 ? "," : "", 1ull << i, s.by_time_class[i]);
    }
    (void)printf("}}\n");
    return fflush(stdout) == 0 ? CLI_OK : cli_error(VERB, "cannot write: %s", strerror(errno));
}

/* struct request - the command line, understood */
struct request {
    const char *output;
    bool unite;
    bool intersect;
    bool help;
};

static int merge(const struct request *req, char **paths, unsigned n)
{
    const struct workingset *sets[MAX_SETS] = {NULL};
    struct workingset *read[MAX_SETS] = {NULL};
    struct workingset *all = NULL;
    int r = 0;

    if (n < 2 || n > MAX_SETS)
        return cli_usage_error(VERB, "merge of %u files, expected 2 to %u", n, MAX_SETS);
    if (req->unite == req->intersect)
        return cli_usage_error(VERB, "merge: expected --union or --intersect, one of them");
    if (!req->output)
        return cli_usage_error(VERB, "merge: --output is missing");
    for (unsigned i = 0; i < n && r == 0; i++) {
        r = workingset_read(&read[i], paths[i]);
        sets[i] = read[i];
    }
    if (r == 0)
        r = workingset_merge(&all, sets, n,
                             req->unite ? WORKINGSET_UNION : WORKINGSET_INTERSECTION);
    if (r == 0)
        r = workingset_write(all, req->output);
    for (unsigned i = 0; i < n; i++)
        (void)workingset_free(read[i]);
    (void)workingset_free(all);
    return r < 0 ? cli_error(VERB, "%s", err_text()) : CLI_OK;
}

static int parse_arguments(int argc, char **argv, struct request *req)
{
    static const struct option options[] = {
        {"union", no_argument, NULL, 'u'},
        {"intersect", no_argument, NULL, 'i'},
        {"output", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    char program[] = "thaw workingset";
    int c;

    argv[0] = program;
    optind = 1;
    while ((c = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
        if (c == 'u')
            req->unite = true;
        else if (c == 'i')
            req->intersect = true;
        else if (c == 'o')
            req->output = optarg;
        else if (c == 'h')
            req->help = true;
        else
            return CLI_USAGE; /* getopt has said what is wrong */
    }
    return CLI_OK;
}

int cli_workingset(int argc, char **argv)
{
    struct request req = {0};
    const char *what;
    int r = parse_arguments(argc, argv, &req);

    if (r != CLI_OK)
        return r;
    if (req.help) {
        (void)fputs(help, stdout);
        return CLI_OK;
    }
    if (optind + 1 >= argc)
        return cli_usage_error(VERB, "expected show, stat or merge, and a file");
    what = argv[optind++];
    if (strcmp(what, "merge") == 0)
        return merge(&req, argv + optind, (unsigned)(argc - optind));
    if (req.output || req.unite || req.intersect)
        return cli_usage_error(VERB, "--output, --union and --intersect are for merge");
    if (strcmp(what, "show") == 0 && optind + 1 == argc)
        return show(argv[optind]);
    if (strcmp(what, "show") == 0)
        return cli_usage_error(VERB, "show takes one file");
    if (strcmp(what, "stat") != 0)
        return cli_usage_error(VERB, "no such thing to do: %s, expected show, stat or merge", what);
    for (; optind < argc && r == CLI_OK; optind++)
        r = stat_one(argv[optind]);
    return r;
}
