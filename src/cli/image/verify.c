/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.c - `thaw image verify`: are all bytes of some images what they were?
 *
 * Each defect is a line on stderr that names file and offset, and the work goes on: an image that cannot be opened does not
 * keep the others from being looked at.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "cli/map/size_text.h"
#include "image/verify.h"

#define VERB "image verify"

static const char help[] = "usage: thaw image verify NAME... [OPTIONS]\n"
                           "       thaw image verify --all [OPTIONS]\n"
                           "\n"
                           "Reads all that images need, their parents' packs too, and compares it "
                           "with the checksums: the\n"
                           "SHA-256 of manifests (the parents' too) and packs, and the checksum of "
                           "each frame. Says all that\n"
                           "is wrong, a line each, with file and offset.\n"
                           "\n"
                           "      --all        all images of the store\n"
                           "      --store DIR  the store; $THAW_STORE, or /var/lib/thaw\n"
                           "      --threads N  (as many as there are processors)\n"
                           "  -h, --help       this text\n";

/* struct request - the command line, understood */
struct request {
    const char *store;
    char **names;
    size_t n_names;
    unsigned n_threads;
    bool all;
    bool help;
};

/* struct images - manifests and their locks */
struct images {
    struct manifest **manifests; /* owned, as are fds */
    int *fds;
    size_t n;
    uint8_t (*told)[IMAGE_ID_BYTES]; /* owned: ids of those whose manifests are broken */
    size_t n_told;
    size_t n_broken; /* that are not among them */
};

static int parse_arguments(int argc, char **argv, struct request *req)
{
    static const struct option options[] = {
        {"all", no_argument, NULL, 'a'},
        {"store", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    static char program[] = "thaw image verify";
    int r = CLI_OK;
    int c;

    argv[0] = program;
    optind = 1;
    while (r == CLI_OK && (c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 'a')
            req->all = true;
        else if (c == 's')
            req->store = optarg;
        else if (c == 't')
            r = image_parse_threads(VERB, optarg, &req->n_threads);
        else if (c == 'h')
            req->help = true;
        else
            return CLI_USAGE; /* getopt has said what is wrong */
    }
    req->names = argv + optind;
    req->n_names = (size_t)(argc - optind);
    if (r != CLI_OK || req->help)
        return r;
    if (req->all && req->n_names > 0)
        return cli_usage_error(VERB, "--all and the name %s", req->names[0]);
    if (!req->all && req->n_names == 0)
        return cli_usage_error(VERB, "expected the name of an image, or --all");
    return CLI_OK;
}

/* add() - an image; what is wrong with its manifest is told */
static void add(struct images *images, struct store *store, const char *name,
                const uint8_t id[IMAGE_ID_BYTES])
{
    assert(images->manifests && images->fds && images->told);
    if (store_read_manifest(store, id, &images->manifests[images->n], &images->fds[images->n]) <
        0) {
        (void)cli_error(VERB, "%s%s%s", name ? name : "", name ? ": " : "", err_text());
        images->n_broken++;
        memcpy(images->told[images->n_told++], id, IMAGE_ID_BYTES);
        return;
    }
    images->n++;
}

static bool images_init(struct images *images, size_t room)
{
    images->manifests = calloc(room + 1, sizeof(struct manifest *));
    images->fds = calloc(room + 1, sizeof(*images->fds));
    images->told = calloc(room + 1, sizeof(*images->told));
    return images->manifests && images->fds && images->told;
}

static void images_deinit(struct images *images)
{
    for (size_t i = 0; i < images->n; i++) {
        (void)manifest_free(images->manifests[i]);
        (void)fd_close(images->fds[i]);
    }
    free((void *)images->manifests);
    free(images->fds);
    free(images->told);
}

/* open_named() - Return: 0 or -ENOMEM with a text */
static int open_named(struct images *images, struct store *store, const struct request *req)
{
    uint8_t id[IMAGE_ID_BYTES];

    if (!images_init(images, req->n_names))
        return err_origin_errno(-ENOMEM, "cannot open %zu images", req->n_names);
    for (size_t i = 0; i < req->n_names; i++) {
        if (store_find(store, req->names[i], id) == 0) {
            add(images, store, req->names[i], id);
        } else {
            (void)cli_error(VERB, "%s", err_text());
            images->n_broken++;
        }
    }
    return 0;
}

/* open_all() - those of the store, each once, whatever names lead to it */
static int open_all(struct images *images, struct store *store)
{
    struct store_list list = {0};
    int r = store_list(store, &list);

    if (r == 0 && !images_init(images, list.n))
        r = err_origin_errno(-ENOMEM, "cannot open %zu images", list.n);
    for (size_t i = 0; i < list.n && r == 0; i++) {
        bool again = false;

        for (size_t k = 0; k < images->n && !again; k++)
            again = memcmp(images->manifests[k]->id, list.entries[i].id, IMAGE_ID_BYTES) == 0;
        if (!again)
            add(images, store, list.entries[i].name, list.entries[i].id);
    }
    store_list_deinit(&list);
    return r;
}

/* tell_defect() - on stderr, where the bar may be */
static void tell_defect(void *ctx, const char *text)
{
    image_work_end(ctx);
    (void)cli_error(VERB, "%s", text);
}

/* verify() - Return: the exit status */
static int verify(struct images *images, struct store *store, struct image_work *work)
{
    const struct verify_subject what = {
        .manifests = images->manifests,
        .n = images->n,
        .told = (const uint8_t(*)[IMAGE_ID_BYTES])images->told,
        .n_told = images->n_told,
    };
    struct verify_result done = {0};
    uint64_t n_defects;
    int r = 0;

    if (images->n > 0)
        r = verify_images(store, &what, &work->job, tell_defect, work, &done);
    image_work_end(work);
    if (r < 0)
        return cli_error(VERB, "%s", err_text());
    n_defects = done.n_defects + images->n_broken;
    (void)printf("%s image%s, %s pack%s of %s, %s frame%s: %s defect%s\n", count_text(images->n),
                 images->n == 1 ? "" : "s", count_text(done.n_packs), done.n_packs == 1 ? "" : "s",
                 size_text(done.pack_bytes), count_text(done.n_frames),
                 done.n_frames == 1 ? "" : "s", n_defects ? count_text(n_defects) : "no",
                 n_defects == 1 ? "" : "s");
    return cli_flush(VERB, n_defects == 0 ? CLI_OK : CLI_FAILED);
}

int image_verify(int argc, char **argv)
{
    _cleanup_(store_closep) struct store *store = NULL;
    struct request req = {0};
    struct images images = {0};
    struct image_work work;
    int r = parse_arguments(argc, argv, &req);

    if (r != CLI_OK)
        return r;
    if (req.help) {
        (void)fputs(help, stdout);
        return CLI_OK;
    }
    image_work_begin(&work, req.n_threads);
    r = store_open(&store, image_store_path(req.store), false);
    if (r == 0)
        r = req.all ? open_all(&images, store) : open_named(&images, store, &req);
    r = r < 0 ? cli_error(VERB, "%s", err_text()) : verify(&images, store, &work);
    images_deinit(&images);
    return r;
}
