/* SPDX-License-Identifier: Apache-2.0 */
/* pause.c - `thaw pause`: sandboxes become files */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/image/image.h"
#include "cli/sandbox/sandbox.h"

#define VERB "pause"

static const char help[] =
    "usage: thaw pause NAME... [OPTIONS]\n"
    "\n"
    "Writes sandboxes down and ends their processes. Their memory becomes a layer on what they "
    "were\n"
    "resumed from; pages that the guest has given back are zero in it. When that fails, or is\n"
    "stopped by a signal, the guest goes on.\n"
    "\n"
    "      --threads N     to pack with; as many as there are processors\n" SANDBOX_HELP;

static int take(void *ctx, int option, const char *value)
{
    (void)option;
    return image_parse_threads(VERB, value, ctx);
}

static int pause_one(void *ctx, struct sandbox *s)
{
    struct image_work *work = ctx;
    int r = sandbox_pause(s, &work->job);

    image_work_end(work);
    return r;
}

int cli_pause(int argc, char **argv)
{
    static const struct option options[] = {
        {"threads", required_argument, NULL, 't'},
        SANDBOX_OPTIONS,
    };
    struct image_work work;
    unsigned n_threads = 0;
    struct sandbox_verb v = {.name = VERB,
                             .help = help,
                             .shorts = "h",
                             .options = options,
                             .take = take,
                             .ctx = &n_threads};
    int status;

    if (!sandbox_parse(&v, argc, argv, &status))
        return status;
    image_work_begin(&work, n_threads);
    return sandbox_each(&v, argv + optind, SANDBOX_RECONCILED, pause_one, &work);
}
