/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/image/pack_request.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/map/size_text.h"

#define LEVEL_MAX 22u

struct pack_request pack_request_default(const char *verb)
{
    return (struct pack_request){.verb = verb, .opts = pack_options_default()};
}

static int parse_codec(struct pack_request *req, const char *text)
{
    for (unsigned i = FRAME_STORED; i <= FRAME_ZSTD; i++) {
        if (strcmp(text, frame_codec_name(i)) == 0) {
            req->opts.codec = (enum frame_codec)i;
            return CLI_OK;
        }
    }
    return cli_usage_error(req->verb, "--codec %s: expected zstd, lz4 or none", text);
}

static int parse_level(struct pack_request *req, const char *text)
{
    uint64_t n;

    if (cli_parse_u64(text, LEVEL_MAX, &n) < 0 || n == 0)
        return cli_usage_error(req->verb, "--level %s: expected a number from 1 to %u", text,
                               LEVEL_MAX);
    req->opts.level = (int)n;
    return CLI_OK;
}

static int parse_frame(struct pack_request *req, const char *text)
{
    uint64_t bytes;

    if (cli_parse_size(text, &bytes) < 0 || bytes == 0 || bytes % IMAGE_PAGE != 0 ||
        bytes > FRAME_PAGES_MAX * IMAGE_PAGE)
        return cli_usage_error(req->verb, "--frame %s: expected a multiple of 4K, 2M at most",
                               text);
    req->opts.frame_pages = (unsigned)(bytes / IMAGE_PAGE);
    return CLI_OK;
}

int pack_request_option(struct pack_request *req, int option, const char *value)
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
        return parse_codec(req, value);
    case 'l':
        return parse_level(req, value);
    case 'f':
        return parse_frame(req, value);
    case 't':
        return image_parse_threads(req->verb, value, &req->n_threads);
    case 'h':
        req->help = true;
        return CLI_OK;
    default:
        return CLI_USAGE; /* getopt has said what is wrong */
    }
}

int pack_request_check(const struct pack_request *req)
{
    if (!req->opts.name)
        return cli_usage_error(req->verb, "--output is missing: the image's name");
    if (store_check_name(req->opts.name) < 0)
        return cli_usage_error(req->verb, "%s", err_text());
    if (req->opts.codec == FRAME_STORED && req->opts.level != 0)
        return cli_usage_error(req->verb, "--level is for zstd and lz4");
    if (req->opts.codec == FRAME_LZ4 && req->opts.level > 12)
        return cli_usage_error(req->verb, "--level %d: expected 12 at most for lz4",
                               req->opts.level);
    return CLI_OK;
}

/* tell() - the id for scripts, and a sentence for people */
static int tell(const struct pack_request *req, const struct pack_result *done)
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
    return cli_flush(req->verb, CLI_OK);
}

static int pack(struct pack_request *req, pack_request_make *make, void *ctx,
                struct pack_result *done)
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
        r = store_open(&store, image_store_path(req->store), req->parent == NULL);
    if (r == 0)
        r = store_hold(store);
    if (r == 0 && req->parent)
        r = image_open(&parent, store, req->parent);
    req->opts.parent = parent;
    req->opts.hot = ws;
    req->opts.job = work.job;
    if (r == 0)
        r = make(ctx, store, &req->opts, done);
    image_work_end(&work);
    return r;
}

int pack_request_run(struct pack_request *req, pack_request_make *make, void *ctx)
{
    struct pack_result done = {0};

    if (pack(req, make, ctx, &done) < 0)
        return cli_error(req->verb, "%s", err_text());
    return tell(req, &done);
}
