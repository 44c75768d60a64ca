/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ls.c - `thaw image ls`: list the images of a store
 *
 * An image that cannot be read gets a line on stderr, and the others are listed all the same.
 */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "cli/map/size_text.h"

#define VERB      "image ls"
#define ID_DIGITS 12 /* of an id, in a line for people */

static const char help[] = "usage: thaw image ls [--json] [--store DIR]\n"
                           "\n"
                           "Lists the images of a store by their names.\n"
                           "\n"
                           "      --json       one JSON object an image, a line each\n"
                           "      --store DIR  the store; $THAW_STORE, or /var/lib/thaw\n"
                           "  -h, --help       this text\n";

/* name_of() - of the image with @id; NULL if it has none or is not there */
static const char *name_of(const struct store_list *list, const uint8_t id[IMAGE_ID_BYTES])
{
    for (size_t i = 0; i < list->n; i++) {
        if (list->entries[i].name && memcmp(list->entries[i].id, id, IMAGE_ID_BYTES) == 0)
            return list->entries[i].name;
    }
    return NULL;
}

static uint64_t all_pack_bytes(const struct manifest *m)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < m->n_packs; i++)
        bytes += m->packs[i].bytes;
    return bytes;
}

static void print_line(const struct store_list *list, const struct store_entry *e,
                       const struct manifest *m)
{
    const char *parent = m->n_parents > 0 ? name_of(list, m->parents[0]) : "-";
    char id[IMAGE_ID_TEXT];
    char parent_id[IMAGE_ID_TEXT];
    char when[32];

    if (!parent) {
        (void)image_id_text(m->parents[0], parent_id);
        parent_id[ID_DIGITS] = '\0';
        parent = parent_id;
    }
    (void)printf("%-24s %.*s %12s %12s %-16s %s\n", e->name ? e->name : "(no name)", ID_DIGITS,
                 image_id_text(e->id, id), size_text(m->image_bytes),
                 size_text(m->has_own_pack ? m->packs[0].bytes : 0),
                 cli_when(m->created_s, when, sizeof(when)), parent);
}

static json_t *parents_json(const struct manifest *m)
{
    json_t *parents = json_array();
    char id[IMAGE_ID_TEXT];

    for (uint32_t i = 0; i < m->n_parents; i++)
        (void)json_array_append_new(parents, json_string(image_id_text(m->parents[i], id)));
    return parents;
}

static int print_json(const struct store_entry *e, const struct manifest *m)
{
    char id[IMAGE_ID_TEXT];
    json_t *top = json_pack("{s:s?, s:s, s:I, s:I, s:I, s:I, s:o}", "name", e->name, "id",
                            image_id_text(e->id, id), "image_bytes", (json_int_t)m->image_bytes,
                            "own_pack_bytes", (json_int_t)(m->has_own_pack ? m->packs[0].bytes : 0),
                            "all_pack_bytes", (json_int_t)all_pack_bytes(m), "created_s",
                            (json_int_t)m->created_s, "parents", parents_json(m));
    int r = top ? json_dumpf(top, stdout, JSON_COMPACT) : -1;

    (void)putchar('\n');
    json_decref(top);
    return r < 0 ? cli_error(VERB, "cannot write JSON") : CLI_OK;
}

static int print_all(struct store *store, const struct store_list *list, bool json)
{
    int status = CLI_OK;

    if (!json && list->n > 0)
        (void)printf("%-24s %-*s %12s %12s %-16s %s\n", "NAME", ID_DIGITS, "ID", "MEMORY", "STORED",
                     "WHEN", "PARENT");
    for (size_t i = 0; i < list->n; i++) {
        _cleanup_(manifest_freep) struct manifest *m = NULL;

        if (store_read_manifest(store, list->entries[i].id, &m, NULL) < 0)
            status = cli_error(VERB, "%s%s%s", list->entries[i].name ? list->entries[i].name : "",
                               list->entries[i].name ? ": " : "", err_text());
        else if (!json)
            print_line(list, &list->entries[i], m);
        else if (print_json(&list->entries[i], m) != CLI_OK)
            return CLI_FAILED;
    }
    return status;
}

static int list_images(const char *path, bool json)
{
    _cleanup_(store_closep) struct store *store = NULL;
    struct store_list list = {0};
    int status;

    if (store_open(&store, path, false) < 0 || store_list(store, &list) < 0)
        return cli_error(VERB, "%s", err_text());
    status = print_all(store, &list, json);
    store_list_deinit(&list);
    return cli_flush(VERB, status);
}

int image_ls(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},
        {"store", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    static char program[] = "thaw image ls";
    const char *path = NULL;
    bool json = false;
    int c;

    argv[0] = program;
    optind = 1;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 'j') {
            json = true;
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
    return list_images(image_store_path(path), json);
}
