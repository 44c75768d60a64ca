/* SPDX-License-Identifier: Apache-2.0 */
/* gc.c - `thaw image gc`: free what no image needs */
#include <getopt.h>
#include <stdio.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "cli/map/size_text.h"

#define VERB "image gc"

static const char help[] = "usage: thaw image gc [--dry-run] [--store DIR]\n"
                           "\n"
                           "Removes packs that no image has, images to which no name leads and of "
                           "which no other comes, and\n"
                           "what interrupted work left behind.\n"
                           "\n"
                           "      --dry-run    only say what would be removed\n"
                           "      --store DIR  the store; $THAW_STORE, or /var/lib/thaw\n"
                           "  -h, --help       this text\n";

static int tell(const struct store_freed *f, bool dry_run)
{
    (void)printf("%s %s: images without a name %s, packs %s, unfinished files %s\n",
                 dry_run ? "would free" : "freed",
                 size_text(f->manifest_bytes + f->pack_bytes + f->temp_bytes),
                 count_text(f->n_manifests), count_text(f->n_packs), count_text(f->n_temps));
    if (f->n_in_use > 0)
        (void)printf("%s without a name %s in use and %s\n", count_text(f->n_in_use),
                     f->n_in_use == 1 ? "is" : "are", f->n_in_use == 1 ? "stays" : "stay");
    return cli_flush(VERB, CLI_OK);
}

int image_gc(int argc, char **argv)
{
    static const struct option options[] = {
        {"dry-run", no_argument, NULL, 'n'},
        {"store", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    _cleanup_(store_closep) struct store *store = NULL;
    struct store_freed freed = {0};
    static char program[] = "thaw image gc";
    const char *path = NULL;
    bool dry_run = false;
    int c;

    argv[0] = program;
    optind = 1;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 'n') {
            dry_run = true;
        } else if (c == 's') {
            path = optarg;
        } else if (c == 'h') {
            (void)fputs(help, stdout);
            return CLI_OK;
        } else {
            return CLI_USAGE; /* getopt has said what is wrong */
        }
    }
    if (optind < argc)
        return cli_usage_error(VERB, "unexpected argument: %s", argv[optind]);
    if (store_open(&store, image_store_path(path), false) < 0 ||
        store_gc(store, dry_run, &freed) < 0)
        return cli_error(VERB, "%s", err_text());
    return tell(&freed, dry_run);
}
