/* SPDX-License-Identifier: Apache-2.0 */
/* pack.c - `thaw image pack`: make an image of a memory file */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "cli/map/size_text.h"
#include "image/pack.h"

#define VERB          "image pack"
#define DEFAULT_FRAME (32 * KIB) /* docs/decisions/0015-frames-of-an-image.md */
#define LEVEL_MAX     22u

static const char help[] =
    "usage: thaw image pack MEMFILE -o NAME [OPTIONS]\n"
    "\n"
    "Makes an image of a snapshot's memory file, and prints its id. What is zero costs nothing, "
    "what\n"
    "is equal to the parent is not stored again.\n"
    "\n"
    "  -o, --output NAME     the image's name\n"
    "      --replace         the name may lead to another image already\n"
    "      --store DIR       the store; $THAW_STORE, or /var/lib/thaw; made if it is not there\n"
    "      --parent IMAGE    an image that this one comes from: a name, or the first digits of an "
    "id\n"
    "      --working-set WS  a file of thaw serve --record: its pages come first\n"
    "      --codec CODEC     zstd, lz4, none (zstd)\n"
    "      --level N         of the codec, 1 to 22 for zstd, 1 to 12 for lz4 (quick)\n"
    "      --frame SIZE      how much is compressed together, 4K to 2M (32K)\n"
    "      --threads N       (as many as there are processors)\n"
    "  -h, --help            this text\n";

/* struct request - the command line, understood */
struct request {
    const char *store;
    const char *parent;
    const char *working_set;
    const char *memory_path;
    struct pack_options opts;
    unsigned n_threads;
    bool help;
};

static int parse_codec(const char *text, enum frame_codec *codec)
{
    for (unsigned i = FRAME_STORED; i <= FRAME_ZSTD; i++) {
        if (strcmp(text, frame_codec_name(i)) == 0) {
            *codec = (enum frame_codec)i;
            return CLI_OK;
        }
    }
    return cli_usage_error(VERB, "--codec %s: expected zstd, lz4 or none", text);
}

static int parse_level(const char *text, int *level)
{
    uint64_t n;

    if (cli_parse_u64(text, LEVEL_MAX, &n) < 0 || n == 0)
        return cli_usage_error(VERB, "--level %s: expected a number from 1 to %u", text, LEVEL_MAX);
    *level = (int)n;
    return CLI_OK;
}

static int parse_frame(const char *text, unsigned *frame_pages)
{
    uint64_t bytes;

    if (cli_parse_size(text, &bytes) < 0 || bytes == 0 || bytes % IMAGE_PAGE != 0 ||
        bytes > FRAME_PAGES_MAX * IMAGE_PAGE)
        return cli_usage_error(VERB, "--frame %s: expected a multiple of 4K, 2M at most", text);
    *frame_pages = (unsigned)(bytes / IMAGE_PAGE);
    return CLI_OK;
}

static int take_option(struct request *req, int option, const char *value)
{
    switch (option) {
    case 'o':
        req->opts.name = value;
        return CLI_OK;
    case 'r':
        req->opts.replace = true;
        return CLI_OK;
    case 's':
        req->store = value;
        return CLI_OK;
    case 'p':
        req->parent = value;
        return CLI_OK;
    case 'w':
        req->working_set = value;
        return CLI_OK;
    case 'c':
        return parse_codec(value, &req->opts.codec);
    case 'l':
        return parse_level(value, &req->opts.level);
    case 'f':
        return parse_frame(value, &req->opts.frame_pages);
    case 't':
        return image_parse_threads(VERB, value, &req->n_threads);
    case 'h':
        req->help = true;
        return CLI_OK;
    default:
        return CLI_USAGE; /* getopt has said what is wrong */
    }
}

static int parse_arguments(int argc, char **argv, struct request *req)
{
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'},
        {"replace", no_argument, NULL, 'r'},
        {"store", required_argument, NULL, 's'},
        {"parent", required_argument, NULL, 'p'},
        {"working-set", required_argument, NULL, 'w'},
        {"codec", required_argument, NULL, 'c'},
        {"level", required_argument, NULL, 'l'},
        {"frame", required_argument, NULL, 'f'},
        {"threads", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    static char program[] = "thaw image pack";
    int r = CLI_OK;
    int c;

    argv[0] = program;
    optind = 1;
    while (r == CLI_OK && (c = getopt_long(argc, argv, "o:h", options, NULL)) != -1)
        r = take_option(req, c, optarg);
    if (r != CLI_OK || req->help)
        return r;
    if (optind + 1 != argc)
        return cli_usage_error(VERB, "expected one memory file");
    req->memory_path = argv[optind];
    if (!req->opts.name)
        return cli_usage_error(VERB, "--output is missing: the image's name");
    if (store_check_name(req->opts.name) < 0)
        return cli_usage_error(VERB, "%s", err_text());
    if (req->opts.codec == FRAME_STORED && req->opts.level != 0)
        return cli_usage_error(VERB, "--level is for zstd and lz4");
    if (req->opts.codec == FRAME_LZ4 && req->opts.level > 12)
        return cli_usage_error(VERB, "--level %d: expected 12 at most for lz4", req->opts.level);
    return CLI_OK;
}

/* tell() - the id for scripts, and a sentence for people */
static int tell(const struct request *req, const struct pack_result *done)
{
    char text[IMAGE_ID_TEXT];

    (void)printf("%s\n", image_id_text(done->id, text));
    if (isatty(STDERR_FILENO)) {
        (void)fprintf(stderr, "%s: %s of memory, %s stored in %s, %s of the parent's, %s zero\n",
                      req->opts.name, size_text(done->n_pages * IMAGE_PAGE),
                      size_text(done->n_own * IMAGE_PAGE), size_text(done->pack_bytes),
                      size_text(done->n_parent * IMAGE_PAGE),
                      size_text((done->n_pages - done->n_own - done->n_parent) * IMAGE_PAGE));
    }
    return fflush(stdout) == 0 && !ferror(stdout)
               ? CLI_OK
               : cli_error(VERB, "cannot write: %s", strerror(errno));
}

static int pack(struct request *req, struct pack_result *done)
{
    _cleanup_(workingset_freep) struct workingset *ws = NULL;
    _cleanup_(image_closep) struct image *parent = NULL;
    _cleanup_(store_closep) struct store *store = NULL;
    struct image_work work;
    int r = 0;

    if (req->working_set)
        r = workingset_read(&ws, req->working_set);
    image_work_begin(&work, req->n_threads);
    if (r == 0)
        r = store_open(&store, image_store_path(req->store), true);
    if (r == 0)
        r = store_hold(store);
    if (r == 0 && req->parent)
        r = image_open(&parent, store, req->parent);
    req->opts.parent = parent;
    req->opts.hot = ws;
    req->opts.job = work.job;
    if (r == 0)
        r = pack_memory(store, req->memory_path, &req->opts, done);
    image_work_end(&work);
    return r;
}

int image_pack(int argc, char **argv)
{
    struct request req = {
        .opts = {.codec = FRAME_ZSTD, .frame_pages = (unsigned)(DEFAULT_FRAME / IMAGE_PAGE)}};
    struct pack_result done = {0};
    int r = parse_arguments(argc, argv, &req);

    if (r != CLI_OK)
        return r;
    if (req.help) {
        (void)fputs(help, stdout);
        return CLI_OK;
    }
    if (pack(&req, &done) < 0)
        return cli_error(VERB, "%s", err_text());
    return tell(&req, &done);
}
