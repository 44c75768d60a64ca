/* SPDX-License-Identifier: Apache-2.0 */
/* image.c - `thaw image`: finds the verb and hands over */
#include "cli/image/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

#define DEFAULT_STORE "/var/lib/thaw"

static const struct cli_verb verbs[] = {
    {"pack", image_pack, "make an image of a memory file"},
    {"diff", image_diff, "make the next layer of an image from what changed"},
    {"unpack", image_unpack, "make a memory file of an image"},
    {"ls", image_ls, "list the images of a store"},
    {"inspect", image_inspect, "say what is in an image, and draw it"},
    {"verify", image_verify, "compare images with their checksums"},
    {"rm", image_rm, "remove images"},
    {"gc", image_gc, "free what no image needs"},
    {"fill", image_fill, NULL}, /* for thaw serve, not for people */
};

int cli_image(int argc, char **argv)
{
    static const struct cli_group group = {
        .name = "image",
        .intro = "Images: the memory of snapshots, compressed, without what is zero or the "
                 "parent's, in a store.\n",
        .example = "pack or ls",
        .verbs = verbs,
        .n_verbs = ARRAY_LEN(verbs),
    };

    return cli_group_run(&group, argc, argv);
}

const char *image_store_path(const char *given)
{
    const char *set = getenv("THAW_STORE");

    if (given)
        return given;
    return set && set[0] != '\0' ? set : DEFAULT_STORE;
}

int image_store_named(const char *verb, const char *path)
{
    if (strcmp(path, DEFAULT_STORE) == 0 || access(path, F_OK) == 0)
        return CLI_OK;
    return cli_error(verb, "cannot open the store %s: %s", path, strerror(errno));
}

int image_parse_threads(const char *verb, const char *text, unsigned *n_threads)
{
    uint64_t n;

    if (cli_parse_u64(text, PARALLEL_THREADS_MAX, &n) < 0 || n == 0)
        return cli_usage_error(verb, "--threads %s: expected a number from 1 to %u", text,
                               PARALLEL_THREADS_MAX);
    *n_threads = (unsigned)n;
    return CLI_OK;
}
