/* SPDX-License-Identifier: Apache-2.0 */
/* pager.c - the smallest pager: example-pager SOCKET MEMFILE */
#include <signal.h>
#include <stdio.h>

#include <thaw/thaw.h>

static struct thaw_pager *pager;

static void on_term(int signal)
{
    (void)signal;
    thaw_pager_request(pager, THAW_REQUEST_STOP);
}

static void print_log(void *ctx, enum thaw_log_level level, const char *line)
{
    (void)ctx;
    if (level <= THAW_LOG_INFO)
        fprintf(stderr, "%s\n", line);
}

static void print_stats(void *ctx, const char *json)
{
    (void)ctx;
    puts(json);
}

int main(int argc, char **argv)
{
    struct thaw_pager_options opts = {.log = print_log,
                                      .fault_around_bytes = THAW_FAULT_AROUND_DEFAULT};
    int r;

    if (argc != 3) {
        fprintf(stderr, "usage: %s SOCKET MEMFILE\n", argv[0]);
        return 2;
    }
    opts.socket_path = argv[1];
    opts.memory_path = argv[2];
    r = thaw_pager_new(&pager, &opts);
    if (r == 0) {
        signal(SIGTERM, on_term);
        thaw_pager_on_stats(pager, print_stats, NULL);
        r = thaw_pager_accept(pager); /* 1: asked to stop before a VMM came */
        if (r == 0)
            r = thaw_pager_run(pager); /* until the VMM is gone */
    }
    if (r < 0)
        fprintf(stderr, "%s\n", thaw_last_error());
    signal(SIGTERM, SIG_IGN); /* from here on there is nobody to ask */
    thaw_pager_free(pager);
    return r < 0;
}
