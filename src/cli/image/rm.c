/* SPDX-License-Identifier: Apache-2.0 */
/* rm.c - `thaw image rm`: remove images */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "node/places.h"
#include "node/sandbox_record.h"
#include "node/template.h"

#define VERB "image rm"

static const char help[] =
    "usage: thaw image rm [--store DIR] NAME...\n"
    "\n"
    "Removes images, one after the other; an image that is in use, has a child, or is the memory "
    "of\n"
    "a template or a sandbox stays, and those behind it, too. thaw image gc then frees what they\n"
    "stored and no other image needs.\n"
    "\n"
    "      --store DIR  the store; $THAW_STORE, or /var/lib/thaw\n"
    "  -h, --help       this text\n";

/* check_template() - is it that of one? What cannot be read has no image that it could need */
static int check_template(const char *path, const char *name, const char *id)
{
    _cleanup_(template_deinit) struct template t = {0};

    if (template_load(&t, path, name) < 0 || strcmp(t.image, id) != 0)
        return 0;
    return err_origin(-EBUSY,
                      "image %s is the memory of the template %s: thaw template rm removes both",
                      name, name);
}

/* check_sandbox() - the same. Layers before the last pause are parents, which stay anyway */
static int check_sandbox(const char *path, const char *name, const char *id)
{
    struct sandbox_record record = {0};
    char sandbox[SANDBOX_NAME_MAX + 1];
    char *folder = NULL;
    int end = 0;
    int r = 0;

    if (sscanf(name, "sandbox.%64[^.].%*u%n", sandbox, &end) != 1 || end == 0 || name[end] != '\0')
        return 0;
    if (asprintf(&folder, "%s/" SANDBOXES_FOLDER "/%s", path, sandbox) < 0)
        return err_origin_errno(-ENOMEM, "cannot look for the sandbox %s", sandbox);
    if (sandbox_record_read(&record, folder, sandbox) == 0 && strcmp(record.image, id) == 0)
        r = err_origin(-EBUSY, "image %s is the memory of the sandbox %s: thaw rm removes both",
                       name, sandbox);
    sandbox_record_deinit(&record);
    free(folder);
    return r;
}

/* remove_one() - if it is not all that is left of something else */
static int remove_one(struct store *store, const char *path, const char *name)
{
    char text[IMAGE_ID_TEXT];
    uint8_t id[IMAGE_ID_BYTES];
    int r = store_find_name(store, name, id);

    if (r == 0)
        r = check_template(path, name, image_id_text(id, text));
    if (r == 0)
        r = check_sandbox(path, name, image_id_text(id, text));
    return r == 0 ? store_remove(store, name) : r;
}

int image_rm(int argc, char **argv)
{
    static const struct option options[] = {
        {"store", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    _cleanup_(store_closep) struct store *store = NULL;
    static char program[] = "thaw image rm";
    const char *path = NULL;
    int r;
    int c;

    argv[0] = program;
    optind = 1;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 's') {
            path = optarg;
        } else if (c == 'h') {
            (void)fputs(help, stdout);
            return CLI_OK;
        } else {
            return CLI_USAGE; /* getopt has said what is wrong */
        }
    }
    if (optind == argc)
        return cli_usage_error(VERB, "expected the name of an image");
    path = image_store_path(path);
    r = store_open(&store, path, false);
    for (int i = optind; i < argc && r == 0; i++)
        r = remove_one(store, path, argv[i]);
    return r < 0 ? cli_error(VERB, "%s", err_text()) : CLI_OK;
}
