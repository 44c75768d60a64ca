/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_IMAGE_PACK_REQUEST_H
#define CLI_IMAGE_PACK_REQUEST_H

/*
 * pack_request.h - what the verbs that make images have in common: options, the store and the parent, what is said in the end
 */

#include <getopt.h>

#include "cli/image/image.h"
#include "image/pack.h"

/** struct pack_request - a command line, understood */
struct pack_request {
    const char *verb;
    const char *store;
    const char *parent;
    const char *working_set;
    struct pack_options opts;
    unsigned n_threads;
    bool help;
};

/* In a table of options for getopt_long(3): those that pack_request_option() takes */
#define PACK_REQUEST_OPTIONS                                                                    \
    {"output", required_argument, NULL, 'o'}, {"replace", no_argument, NULL, 'r'},              \
        {"store", required_argument, NULL, 's'}, {"parent", required_argument, NULL, 'p'},      \
        {"working-set", required_argument, NULL, 'w'}, {"codec", required_argument, NULL, 'c'}, \
        {"level", required_argument, NULL, 'l'}, {"frame", required_argument, NULL, 'f'},       \
        {"threads", required_argument, NULL, 't'},                                              \
    {                                                                                           \
        "help", no_argument, NULL, 'h'                                                          \
    }

/* How they are compressed, for the text of --help */
#define PACK_REQUEST_HELP                                                               \
    "      --working-set WS  a file of thaw serve --record: its pages come first\n"     \
    "      --codec CODEC     zstd, lz4, none (zstd)\n"                                  \
    "      --level N         of the codec, 1 to 22 for zstd, 1 to 12 for lz4 (quick)\n" \
    "      --frame SIZE      how much is compressed together, 4K to 2M (32K)\n"         \
    "      --threads N       (as many as there are processors)\n"                       \
    "  -h, --help            this text\n"

/** pack_request_default() - of a command line that says nothing */
struct pack_request pack_request_default(const char *verb);

/** pack_request_option() - an option of PACK_REQUEST_OPTIONS. Return: CLI_OK, or CLI_USAGE after a line on stderr */
int pack_request_option(struct pack_request *req, int option, const char *value);

/** pack_request_check() - are they complete, and do they agree? Return: the same */
int pack_request_check(const struct pack_request *req);

/** pack_request_make - makes the image. Return: 0 or a negative errno with a text */
typedef int pack_request_make(void *ctx, struct store *store, const struct pack_options *opts,
                              struct pack_result *done);

/** pack_request_run() - from the store that is opened to the id that is printed. Return: the exit status */
int pack_request_run(struct pack_request *req, pack_request_make *make, void *ctx);

#endif
