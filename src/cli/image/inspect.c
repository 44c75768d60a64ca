/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inspect.c - `thaw image inspect`: say what is in an image, and draw it
 *
 * All of it is in the manifest; no pack is opened. A manifest does not say which image made a pack, as nobody needs that to
 * read it: so the manifests of the parents are looked at until all packs have been found to be the own one of some parent.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "cli/image/image_subject.h"
#include "cli/image/inspect.h"
#include "cli/map/picture_image.h"
#include "cli/map/picture_term.h"

#define VERB "image inspect"

static const char help[] =
    "usage: thaw image inspect NAME [OPTIONS]\n"
    "\n"
    "Says what is in an image: how much is zero, its own, its parents', in the working set; how it "
    "is\n"
    "stored. On a terminal it is drawn as well.\n"
    "\n"
    "      --json          one JSON object\n"
    "      --picture FILE  draw it into an SVG or PNG, by the name's ending; no words unless "
    "--json\n"
    "      --store DIR     the store; $THAW_STORE, or /var/lib/thaw\n"
    "  -h, --help          this text\n";

/* struct request - the command line, understood */
struct request {
    const char *store;
    const char *image;
    const char *picture;
    enum image_kind kind;
    bool json;
    bool help;
};

static int parse_arguments(int argc, char **argv, struct request *req)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},
        {"picture", required_argument, NULL, 'p'},
        {"store", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    static char program[] = "thaw image inspect";
    int c;

    argv[0] = program;
    optind = 1;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 'j')
            req->json = true;
        else if (c == 'p')
            req->picture = optarg;
        else if (c == 's')
            req->store = optarg;
        else if (c == 'h')
            req->help = true;
        else
            return CLI_USAGE; /* getopt has said what is wrong */
    }
    if (req->help)
        return CLI_OK;
    if (optind + 1 != argc)
        return cli_usage_error(VERB, "expected one image");
    req->image = argv[optind];
    if (req->picture && !image_kind_of(req->picture, &req->kind))
        return cli_usage_error(VERB, "%s ends in neither .svg nor .png", req->picture);
    return CLI_OK;
}

/* ---- finding out ---------------------------------------------------------------------------------------------- */

/* name_relatives() - by the first name that leads to each */
static int name_relatives(struct inspection *x, struct store *store)
{
    struct store_list list = {0};
    int r = store_list(store, &list);

    for (size_t i = 0; i < list.n && list.entries[i].name && r == 0; i++) {
        for (uint32_t k = 0; k <= x->manifest->n_parents; k++) {
            struct relative *rel = &x->relatives[k];

            if (rel->name || memcmp(rel->id, list.entries[i].id, IMAGE_ID_BYTES) != 0)
                continue;
            rel->name = strdup(list.entries[i].name);
            if (!rel->name)
                r = err_origin_errno(-ENOMEM, "cannot inspect image %s", x->asked);
        }
    }
    store_list_deinit(&list);
    return r;
}

/* find_made() - the packs that were made with parent @number; one that is not there has made what nobody finds */
static uint32_t find_made(struct inspection *x, struct store *store, uint32_t number)
{
    _cleanup_(manifest_freep) struct manifest *parent = NULL;
    const struct manifest *m = x->manifest;

    if (store_read_manifest(store, x->relatives[number].id, &parent, NULL) < 0 ||
        !parent->has_own_pack)
        return 0;
    for (uint32_t i = 0; i < m->n_packs; i++) {
        if (x->makers[i] == NO_MAKER &&
            memcmp(m->packs[i].sha256, parent->packs[0].sha256, IMAGE_ID_BYTES) == 0) {
            x->makers[i] = number;
            return 1;
        }
    }
    return 0;
}

static void find_makers(struct inspection *x, struct store *store)
{
    const struct manifest *m = x->manifest;
    uint32_t left = m->n_packs;

    for (uint32_t i = 0; i < m->n_packs; i++)
        x->makers[i] = NO_MAKER;
    if (m->has_own_pack) {
        x->makers[0] = 0;
        left--;
    }
    for (uint32_t k = 1; k <= m->n_parents && left > 0; k++)
        left -= find_made(x, store, k);
}

int inspect_init(struct inspection *x, struct store *store, const char *asked)
{
    uint8_t id[IMAGE_ID_BYTES];
    int r = store_find(store, asked, id);

    *x = (struct inspection){.asked = asked};
    if (r == 0)
        r = store_read_manifest(store, id, &x->manifest, NULL);
    if (r == 0)
        r = image_stat_init(&x->stat, x->manifest);
    if (r < 0)
        return r;
    assert(x->manifest);
    x->relatives = calloc((size_t)x->manifest->n_parents + 1, sizeof(*x->relatives));
    x->makers = calloc((size_t)x->manifest->n_packs + 1, sizeof(*x->makers));
    if (!x->relatives || !x->makers)
        return err_origin_errno(-ENOMEM, "cannot inspect image %s", asked);
    memcpy(x->relatives[0].id, x->manifest->id, IMAGE_ID_BYTES);
    for (uint32_t i = 0; i < x->manifest->n_parents; i++)
        memcpy(x->relatives[i + 1].id, x->manifest->parents[i], IMAGE_ID_BYTES);
    r = name_relatives(x, store);
    if (r == 0)
        find_makers(x, store);
    return r;
}

void inspect_deinit(struct inspection *x)
{
    for (uint32_t i = 0; x->relatives && i <= x->manifest->n_parents; i++)
        free(x->relatives[i].name);
    free(x->relatives);
    free(x->makers);
    image_stat_deinit(&x->stat);
    x->manifest = manifest_free(x->manifest);
}

/* ---- saying it ------------------------------------------------------------------------------------------------ */

/* draw() - into a file, or onto the terminal */
static int draw(const struct inspection *x, const struct request *req)
{
    _cleanup_(picture_freep) struct picture *p = NULL;
    struct picture_limits limits = image_limits();
    struct picture_subject subject;
    struct image_pages pages;
    struct winsize window = {0};
    struct caption caption;
    int r = image_pages_init(&pages, x->manifest);

    if (r < 0)
        return r;
    if (!req->picture) {
        (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &window);
        limits = term_limits(TERM_COLOUR, window.ws_col, window.ws_row);
    }
    subject = image_subject(&pages);
    r = picture_new(&p, &subject, &limits);
    if (r < 0) {
        r = err_origin(r, "no memory for the picture");
    } else if (req->picture) {
        inspect_caption(&caption, x, p);
        r = image_write(req->picture, req->kind, p, &caption);
    } else {
        (void)putchar('\n');
        term_draw(stdout, p, NULL, TERM_COLOUR);
    }
    image_pages_deinit(&pages);
    return r;
}

static int inspect(const struct request *req)
{
    _cleanup_(store_closep) struct store *store = NULL;
    _cleanup_(inspect_deinit) struct inspection x = {0};
    int r = store_open(&store, image_store_path(req->store), false);

    if (r == 0)
        r = inspect_init(&x, store, req->image);
    if (r == 0 && req->json)
        r = inspect_print_json(&x) < 0 ? err_origin(-EIO, "cannot write JSON") : 0;
    if (r == 0 && !req->json && !req->picture)
        inspect_print(&x);
    if (r == 0 && (req->picture || (!req->json && isatty(STDOUT_FILENO))))
        r = draw(&x, req);
    if (r == 0 && (fflush(stdout) != 0 || ferror(stdout)))
        r = err_origin_errno(-errno, "cannot write");
    return r;
}

int image_inspect(int argc, char **argv)
{
    struct request req = {0};
    int r = parse_arguments(argc, argv, &req);

    if (r != CLI_OK)
        return r;
    if (req.help) {
        (void)fputs(help, stdout);
        return CLI_OK;
    }
    return inspect(&req) < 0 ? cli_error(VERB, "%s", err_text()) : CLI_OK;
}
