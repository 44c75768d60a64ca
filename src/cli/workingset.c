/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workingset.c - `thaw workingset`: look at working sets, make one of several
 *
 *     show FILE                                one line an entry, in the order of the first touches
 *     stat FILE...                             numbers
 *     merge --union|--intersect -o OUT FILE... one of several
 *
 * With --json each file is one object on a line of its own. The entries of `show` are written one by one, with nothing in
 * them that JSON would have to quote: a set may have millions.
 */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/map/size_text.h"
#include "image/workingset.h"

#define VERB     "workingset"
#define MAX_SETS 64u

static const char help[] =
    "usage: thaw workingset show [--json] FILE\n"
    "       thaw workingset stat [--json] FILE...\n"
    "       thaw workingset merge --union|--intersect -o OUT FILE FILE...\n"
    "\n"
    "Working sets: which parts of a snapshot a guest touched first (thaw serve --record).\n"
    "\n"
    "  show     one line for each: offset in the memory file, when (by powers of two of a "
    "millisecond), read or write\n"
    "  stat     numbers\n"
    "  merge    one of several; the order is that of the first\n"
    "\n"
    "      --json         show, stat: one JSON object a file\n"
    "      --union        merge: what is in any of them\n"
    "      --intersect    merge: what is in all of them\n"
    "  -o, --output OUT   merge: the file to write\n"
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

static double seconds(const struct workingset *ws)
{
    return (double)ws->window_ns / 1e9;
}

static void show_text(const struct workingset *ws)
{
    char when[32];

    (void)printf("# %zu of %llu bytes each, of a memory file of %" PRIu64
                 " bytes, recorded for %.3f s%s\n",
                 ws->n, 1ull << ws->unit_shift, ws->image_bytes, seconds(ws),
                 ws->complete ? "" : ", cut off");
    for (size_t i = 0; i < ws->n && !ferror(stdout); i++) {
        const struct workingset_entry *e = &ws->entries[i];

        (void)printf("0x%012" PRIx64 " %-8s %s\n", e->unit << ws->unit_shift,
                     time_text(e->time_class, when, sizeof(when)), e->write ? "write" : "read");
    }
}

static void show_json(const struct workingset *ws)
{
    (void)printf("{\"image_bytes\":%" PRIu64 ",\"unit_bytes\":%llu,\"window_ns\":%" PRIu64
                 ",\"complete\":%s,\"entries\":[",
                 ws->image_bytes, 1ull << ws->unit_shift, ws->window_ns,
                 ws->complete ? "true" : "false");
    for (size_t i = 0; i < ws->n && !ferror(stdout); i++) {
        const struct workingset_entry *e = &ws->entries[i];

        (void)printf("%s{\"offset\":%" PRIu64 ",\"time_class\":%u,\"write\":%s}", i > 0 ? "," : "",
                     e->unit << ws->unit_shift, e->time_class, e->write ? "true" : "false");
    }
    (void)printf("]}\n");
}

static int show(const char *path, bool json)
{
    _cleanup_(workingset_freep) struct workingset *ws = NULL;

    if (workingset_read(&ws, path) < 0)
        return cli_error(VERB, "%s", err_text());
    if (json)
        show_json(ws);
    else
        show_text(ws);
    return cli_flush(VERB, CLI_OK);
}

/* share_ordered() - how many of the entries that could follow their predecessor in the memory file do */
static double share_ordered(const struct workingset *ws, const struct workingset_stat *s)
{
    return ws->n > 1 ? (double)s->n_ordered / (double)(ws->n - 1) : 0.0;
}

static void stat_text(const char *path, const struct workingset *ws,
                      const struct workingset_stat *s)
{
    char when[32];

    (void)printf("%s\n", path);
    (void)printf("  memory file    %s bytes (%s) in units of %s\n", count_text(ws->image_bytes),
                 size_text(ws->image_bytes), size_text(1ull << ws->unit_shift));
    (void)printf("  touched        %s units, %s, %.2f %%; of them written %s\n", count_text(ws->n),
                 size_text(s->bytes), 100.0 * (double)s->bytes / (double)ws->image_bytes,
                 count_text(s->n_writes));
    (void)printf("  runs           %s of neighbours; median %s, longest %s units\n",
                 count_text(s->n_runs), count_text(s->median_run), count_text(s->longest_run));
    (void)printf("  in order       %.2f %% come right after the one before them\n",
                 100.0 * share_ordered(ws, s));
    (void)printf("  recorded for   %.3f s%s\n", seconds(ws), ws->complete ? "" : ", cut off");
    for (unsigned i = 0, n = 0; i < WORKINGSET_TIME_CLASSES; i++) {
        if (s->by_time_class[i] > 0)
            (void)printf("  %-14s %-8s %s\n", n++ == 0 ? "when" : "",
                         time_text(i, when, sizeof(when)), count_text(s->by_time_class[i]));
    }
}

static json_t *times_json(const struct workingset_stat *s)
{
    json_t *times = json_object();
    char ms[32];

    for (unsigned i = 0; i < WORKINGSET_TIME_CLASSES; i++) {
        (void)snprintf(ms, sizeof(ms), "%llu", 1ull << i);
        if (s->by_time_class[i] > 0)
            (void)json_object_set_new(times, ms, json_integer((json_int_t)s->by_time_class[i]));
    }
    return times;
}

static int stat_json(const char *path, const struct workingset *ws, const struct workingset_stat *s)
{
    json_t *file = json_string(path); /* NULL: it is not UTF-8 */
    json_t *top;
    int r = -1;

    top = json_pack("{s:o, s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:f, s:f, s:b, s:o}",
                    "file", file ? file : json_null(), "image_bytes", (json_int_t)ws->image_bytes,
                    "unit_bytes", (json_int_t)(1ull << ws->unit_shift), "entries",
                    (json_int_t)ws->n, "bytes", (json_int_t)s->bytes, "share",
                    (double)s->bytes / (double)ws->image_bytes, "writes", (json_int_t)s->n_writes,
                    "runs", (json_int_t)s->n_runs, "median_run", (json_int_t)s->median_run,
                    "longest_run", (json_int_t)s->longest_run, "in_order", share_ordered(ws, s),
                    "seconds", seconds(ws), "complete", ws->complete, "by_ms", times_json(s));
    if (top) {
        r = json_dumpf(top, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
        (void)putchar('\n');
    }
    json_decref(top);
    return r;
}

static int stat_one(const char *path, bool json)
{
    _cleanup_(workingset_freep) struct workingset *ws = NULL;
    struct workingset_stat s;

    if (workingset_read(&ws, path) < 0 || workingset_stat(ws, &s) < 0)
        return cli_error(VERB, "%s", err_text());
    if (!json)
        stat_text(path, ws, &s);
    else if (stat_json(path, ws, &s) < 0)
        return cli_error(VERB, "cannot write JSON");
    return cli_flush(VERB, CLI_OK);
}

/* struct request - the command line, understood */
struct request {
    const char *output;
    bool json;
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
    if (file_may_replace(req->output) < 0)
        return cli_error(VERB, "%s", err_text());
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
        {"json", no_argument, NULL, 'j'},      {"union", no_argument, NULL, 'u'},
        {"intersect", no_argument, NULL, 'i'}, {"output", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},      {NULL, 0, NULL, 0},
    };
    char program[] = "thaw workingset";
    int c;

    argv[0] = program;
    optind = 1;
    while ((c = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
        if (c == 'j')
            req->json = true;
        else if (c == 'u')
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
    if (strcmp(what, "merge") == 0 && req.json)
        return cli_usage_error(VERB, "--json is for show and stat");
    if (strcmp(what, "merge") == 0)
        return merge(&req, argv + optind, (unsigned)(argc - optind));
    if (req.output || req.unite || req.intersect)
        return cli_usage_error(VERB, "--output, --union and --intersect are for merge");
    if (strcmp(what, "show") == 0 && optind + 1 == argc)
        return show(argv[optind], req.json);
    if (strcmp(what, "show") == 0)
        return cli_usage_error(VERB, "show takes one file");
    if (strcmp(what, "stat") != 0)
        return cli_usage_error(VERB, "no such thing to do: %s, expected show, stat or merge", what);
    for (; optind < argc && r == CLI_OK; optind++)
        r = stat_one(argv[optind], req.json);
    return r;
}
