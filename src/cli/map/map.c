/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map.c - `thaw map`: the picture of a guest's memory as its pager sees it
 *
 *     which pager?  cli/state_find.h
 *     read          the state file, once (node/state_copy.h)
 *     draw          into a file (cli/map/picture_image.h) or onto the terminal (cli/map/picture_term.h)
 *
 * The pager does not notice. A state file that a dead pager left behind is drawn and called stale.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/map/map_subject.h"
#include "cli/map/picture_image.h"
#include "cli/map/picture_term.h"
#include "cli/map/size_text.h"
#include "node/state_copy.h"
#include "cli/state_find.h"

/* struct request - the command line, understood */
struct request {
    const char *which;  /* PID or STATEFILE; NULL: the only one */
    const char *dir;    /* NULL: the default */
    const char *output; /* NULL: the terminal */
    enum image_kind kind;
    bool help;
};

static void print_help(void)
{
    printf(
        "usage: thaw map [PID | STATEFILE] [--state DIR] [-o FILE.svg | FILE.png]\n"
        "\n"
        "Draws a guest's memory, a cell a page or a group of pages, coloured by state.\n"
        "\n"
        "  PID          of the pager or of the VMM; without it the only pager that runs is taken\n"
        "  STATEFILE    a pager's state file, for pagers with another state directory\n"
        "  --state DIR  where state files are (default: as thaw serve)\n"
        "  -o FILE      write an SVG or PNG, by the name's ending, instead of the terminal\n");
}

static int parse_arguments(int argc, char **argv, struct request *req)
{
    static const struct option options[] = {
        {"state", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int c;

    opterr = 0;
    optind = 1;
    while ((c = getopt_long(argc, argv, ":o:h", options, NULL)) != -1) {
        if (c == 'h')
            req->help = true;
        else if (c == 's')
            req->dir = optarg;
        else if (c == 'o')
            req->output = optarg;
        else if (c == ':')
            return cli_usage_error("map", "%s needs a value", argv[optind - 1]);
        else
            return cli_usage_error("map", "unknown option %s", argv[optind - 1]);
    }
    if (optind < argc)
        req->which = argv[optind++];
    if (optind < argc)
        return cli_usage_error("map", "unexpected argument %s", argv[optind]);
    if (req->output && !image_kind_of(req->output, &req->kind))
        return cli_usage_error("map", "%s ends in neither .svg nor .png", req->output);
    return CLI_OK;
}

static struct picture_limits limits_of_output(const struct request *req, enum term_style *style)
{
    struct winsize window = {0};

    *style = TERM_PLAIN;
    if (req->output)
        return image_limits();
    if (isatty(STDOUT_FILENO)) {
        *style = TERM_COLOUR;
        (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &window);
    }
    return term_limits(*style, window.ws_col, window.ws_row);
}

int cli_map(int argc, char **argv)
{
    _cleanup_(state_freep) struct state_copy *s = NULL;
    _cleanup_(picture_freep) struct picture *p = NULL;
    struct map_subject subject;
    struct request req = {0};
    struct picture_limits limits;
    enum term_style style;
    struct caption caption;
    char path[PATH_MAX];
    int r;

    r = parse_arguments(argc, argv, &req);
    if (r != CLI_OK)
        return r;
    if (req.help) {
        print_help();
        return CLI_OK;
    }
    r = cli_find_state("map", req.which, req.dir, path, sizeof(path));
    if (r != CLI_OK)
        return r;
    if (state_read(path, &s) < 0)
        return cli_error("map", "%s", err_text());
    limits = limits_of_output(&req, &style);
    map_subject_init(&subject, &s->block);
    if (picture_new(&p, &subject.picture, &limits) < 0)
        return cli_error("map", "no memory for the picture");
    map_caption(&caption, &s->block, p, s->stale);
    if (!req.output) {
        term_draw(stdout, p, &caption, style);
        return fflush(stdout) == 0 ? CLI_OK : cli_error("map", "cannot write: %s", strerror(errno));
    }
    if (image_write(req.output, req.kind, p, &caption) < 0)
        return cli_error("map", "%s", err_text());
    return CLI_OK;
}
