/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unpack.c - `thaw image unpack`: make a memory file of an image
 *
 * The file is made beside the one that is wanted and takes its place when it is complete and on the disk. Nobody but its owner
 * can read it: it is what a guest had in its memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "image/unpack.h"

#define VERB "image unpack"

static const char help[] =
    "usage: thaw image unpack IMAGE -o FILE [OPTIONS]\n"
    "\n"
    "Writes an image's memory as a raw file, with holes where it is zero.\n"
    "\n"
    "  -o, --output FILE  the file to write; it is replaced when the new one is complete\n"
    "      --store DIR    the store; $THAW_STORE, or /var/lib/thaw\n"
    "      --threads N    (as many as there are processors)\n"
    "  -h, --help         this text\n";

/* struct request - the command line, understood */
struct request {
    const char *store;
    const char *image;
    const char *output;
    unsigned n_threads;
    bool help;
};

static int parse_arguments(int argc, char **argv, struct request *req)
{
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'},
        {"store", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    static char program[] = "thaw image unpack";
    int r = CLI_OK;
    int c;

    argv[0] = program;
    optind = 1;
    while (r == CLI_OK && (c = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
        if (c == 'o')
            req->output = optarg;
        else if (c == 's')
            req->store = optarg;
        else if (c == 't')
            r = image_parse_threads(VERB, optarg, &req->n_threads);
        else if (c == 'h')
            req->help = true;
        else
            return CLI_USAGE; /* getopt has said what is wrong */
    }
    if (r != CLI_OK || req->help)
        return r;
    if (optind + 1 != argc)
        return cli_usage_error(VERB, "expected one image");
    req->image = argv[optind];
    return req->output ? CLI_OK : cli_usage_error(VERB, "--output is missing: the file to write");
}

/* write_beside() - a whole file under another name takes the place of @path */
static int write_beside(const struct image *img, const char *path, const struct image_job *job)
{
    char temp[PATH_MAX];
    _cleanup_fd_ int folder = folder_open(path);
    _cleanup_fd_ int fd = -1;
    int r;

    if (folder < 0)
        return err_origin_errno(folder, "cannot open the folder of %s", path);
    if (snprintf(temp, sizeof(temp), "%s.XXXXXX", path) >= (int)sizeof(temp))
        return err_origin(-ENAMETOOLONG, "file name %s is too long", path);
    fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return err_origin_errno(-errno, "cannot create a file beside %s", path);
    r = unpack_image(img, fd, path, job);
    if (r == 0 && (fsync(fd) < 0 || rename(temp, path) < 0))
        r = err_origin_errno(-errno, "cannot write %s", path);
    if (r < 0) {
        (void)unlink(temp);
        return r;
    }
    r = folder_sync(folder);
    return r < 0 ? err_origin_errno(r, "%s is written, its folder is not", path) : 0;
}

static int unpack(const struct request *req)
{
    _cleanup_(image_closep) struct image *img = NULL;
    _cleanup_(store_closep) struct store *store = NULL;
    struct image_work work;
    int r;

    image_work_begin(&work, req->n_threads);
    r = store_open(&store, image_store_path(req->store), false);
    if (r == 0)
        r = image_open(&img, store, req->image);
    if (r == 0)
        r = file_may_replace(req->output);
    if (r == 0)
        r = write_beside(img, req->output, &work.job);
    image_work_end(&work);
    return r;
}

int image_unpack(int argc, char **argv)
{
    struct request req = {0};
    int r = parse_arguments(argc, argv, &req);

    if (r != CLI_OK)
        return r;
    if (req.help) {
        (void)fputs(help, stdout);
        return CLI_OK;
    }
    return unpack(&req) < 0 ? cli_error(VERB, "%s", err_text()) : CLI_OK;
}
