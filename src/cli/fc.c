/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fc.c - `thaw fc`: one request to a Firecracker, looked at before it is sent
 *
 * What Firecracker knows is in vmm/fc_schema.def and nowhere here: a new endpoint or field works without a change.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "vmm/fc_check.h"
#include "vmm/fc_client.h"

#define VERB           "fc"
#define DEFAULT_SOCKET "/run/firecracker.socket" /* Firecracker's own default */
#define DEFAULT_S      30
#define MAX_S          86400
#define BODY_MAX       (1 * MIB) /* that is read; what may be sent is less */

static const char help[] =
    "usage: thaw fc [--socket PATH] [--timeout S] [--version V] [--dry-run] METHOD PATH [JSON | "
    "@FILE | -]\n"
    "       thaw fc --list\n"
    "\n"
    "Sends one request to a Firecracker, prints its answer. What the running version does not know "
    "is refused before it\n"
    "is sent.\n"
    "\n"
    "  METHOD PATH    such as PATCH /balloon\n"
    "  JSON           the body: as it is, from a file, or from standard input\n"
    "  --socket PATH  of Firecracker's API (default: " DEFAULT_SOCKET ")\n"
    "  --timeout S    seconds for all of it (default: 30)\n"
    "  --version V    do not ask Firecracker for its version, it is this one\n"
    "  --dry-run      send nothing, print what would be sent; without --socket and --version for\n"
    "                 " THAW_FIRECRACKER_VERSION "\n"
    "  --list         print what can be asked for, when, and since which version\n"
    "  -h, --help     this text\n";

/* struct request - what is asked for */
struct request {
    const char *socket; /* NULL: the default */
    unsigned timeout_ms;
    bool dry_run;
    bool list;
    bool has_version;
    struct thaw_version version;
    const struct fc_endpoint *endpoint;
    char *id;     /* owned: the name in the path */
    json_t *body; /* owned */
};

static void request_deinit(struct request *r)
{
    free(r->id);
    json_decref(r->body);
}

/* ---- what is asked for ---------------------------------------------------------------------------------------- */

/* read_all() - (give) the text, NULL on an error, which has been printed */
static char *read_all(int fd, const char *name)
{
    char *text = malloc(BODY_MAX + 1);
    size_t len = 0;
    ssize_t n = 1;

    if (!text) {
        (void)cli_error(VERB, "no memory for the body");
        return NULL;
    }
    while (n != 0 && len <= BODY_MAX) {
        n = read(fd, text + len, BODY_MAX + 1 - len);
        if (n < 0 && errno != EINTR)
            break;
        len += n > 0 ? (size_t)n : 0;
    }
    if (n < 0)
        (void)cli_error(VERB, "cannot read %s: %s", name, strerror(errno));
    else if (len > BODY_MAX)
        (void)cli_error(VERB, "%s: the body has more than %llu bytes", name, BODY_MAX);
    if (n < 0 || len > BODY_MAX) {
        free(text);
        return NULL;
    }
    text[len] = '\0';
    return text;
}

/* read_body() - of the argument. Return: an exit status */
static int read_body(const char *argument, json_t **out)
{
    const char *name = strcmp(argument, "-") == 0 ? "standard input"
                       : argument[0] == '@'       ? argument + 1
                                                  : NULL;
    _cleanup_fd_ int fd = -1;
    char *text = NULL;
    json_error_t error;

    if (argument[0] == '@') {
        fd = open(argument + 1, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return cli_error(VERB, "cannot open %s: %s", argument + 1, strerror(errno));
    }
    if (name) {
        text = read_all(fd >= 0 ? fd : STDIN_FILENO, name);
        if (!text)
            return CLI_FAILED;
    }
    *out = json_loads(text ? text : argument, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    free(text);
    if (*out)
        return CLI_OK;
    (void)cli_error(VERB, "%s is no JSON: line %d, column %d: %s", name ? name : "the body",
                    error.line, error.column, error.text);
    return CLI_USAGE;
}

static int take_arguments(int argc, char **argv, struct request *out)
{
    if (argc < 2)
        return cli_usage_error(VERB, "METHOD and PATH expected");
    if (argc > 3)
        return cli_usage_error(VERB, "unexpected argument %s", argv[3]);
    if (fc_endpoint_find(argv[0], argv[1], &out->endpoint, &out->id) < 0) {
        (void)cli_error(VERB, "%s", err_text());
        return CLI_USAGE;
    }
    return argc == 3 ? read_body(argv[2], &out->body) : CLI_OK;
}

/* ---- what is done --------------------------------------------------------------------------------------------- */

static void print_list(void)
{
    (void)printf("%-6s %-25s %-8s %s\n", "METHOD", "PATH", "SINCE", "WHAT");
    for (size_t i = 0; i < FC_N_ENDPOINTS; i++) {
        const struct fc_endpoint *e = &fc_endpoints[i];

        (void)printf("%-6s %-25s %-8s %s", fc_method_name(e->method), e->path, e->since,
                     e->meaning);
        if (e->phase != FC_PHASE_ANY)
            (void)printf(" (%s%s%s)", fc_phase_name(e->phase),
                         e->hotplug[0] != '\0' ? "; also after it since " : "", e->hotplug);
        (void)putchar('\n');
    }
}

/* print_rest() - @json: (borrow) may be NULL. And the end of the line. Return: an exit status */
static int print_rest(json_t *json, size_t flags)
{
    if ((json && json_dumpf(json, stdout, flags | JSON_ENCODE_ANY) < 0) || putchar('\n') == EOF ||
        fflush(stdout) != 0)
        return cli_error(VERB, "cannot write: %s", strerror(errno));
    return CLI_OK;
}

/* failed() - Return: the exit status of an error that has a text; a request that was wrong is a wrong command line */
static int failed(int r)
{
    (void)cli_error(VERB, "%s", err_text());
    return r == -EINVAL ? CLI_USAGE : CLI_FAILED;
}

/* find_version() - Return: 0 or a negative errno with a text */
static int find_version(struct fc_client *c, const struct request *rq, struct thaw_version *out)
{
    if (rq->has_version) {
        *out = rq->version;
        return 0;
    }
    return c ? fc_client_version(c, out, 0) : thaw_version_parse(out, THAW_FIRECRACKER_VERSION);
}

static int try_out(const struct request *rq)
{
    const struct fc_endpoint *e = rq->endpoint;
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;
    struct thaw_version version;
    int r = 0;

    if (rq->socket && !rq->has_version)
        r = fc_client_new(&c, rq->socket, rq->timeout_ms);
    if (r == 0)
        r = find_version(c, rq, &version);
    if (r == 0)
        r = fc_check(e, &version, rq->id, rq->body);
    if (r < 0)
        return failed(r);
    (void)printf("%s %.*s%s%s", fc_method_name(e->method), (int)strcspn(e->path, "{"), e->path,
                 rq->id ? rq->id : "", rq->body ? " " : "");
    return print_rest(rq->body, JSON_COMPACT);
}

static int send_it(const struct request *rq)
{
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;
    json_t *answer = NULL;
    int status = CLI_OK;
    int r;

    r = fc_client_new(&c, rq->socket ? rq->socket : DEFAULT_SOCKET, rq->timeout_ms);
    if (r < 0)
        return failed(r);
    if (rq->has_version)
        fc_client_assume(c, &rq->version);
    r = fc_call_json(c, rq->endpoint, rq->id, rq->body, &answer, 0);
    if (r < 0)
        return failed(r);
    if (fc_client_deprecated(c))
        (void)cli_error(VERB,
                        "done; Firecracker says that something in this request is deprecated");
    if (answer)
        status = print_rest(answer, JSON_INDENT(2));
    json_decref(answer);
    return status;
}

/* take_option() - Return: an exit status, or -1: the verb has done all that it was asked for */
static int take_option(int c, struct request *rq)
{
    uint64_t s;

    switch (c) {
    case 's':
        rq->socket = optarg;
        return CLI_OK;
    case 't':
        if (cli_parse_u64(optarg, MAX_S, &s) < 0 || s == 0)
            return cli_usage_error(VERB, "--timeout: expected seconds from 1 to %d, got %s", MAX_S,
                                   optarg);
        rq->timeout_ms = (unsigned)s * 1000;
        return CLI_OK;
    case 'V':
        if (thaw_version_parse(&rq->version, optarg) < 0)
            return cli_usage_error(VERB, "--version: %s", err_text());
        rq->has_version = true;
        return CLI_OK;
    case 'n':
        rq->dry_run = true;
        return CLI_OK;
    case 'l':
        rq->list = true;
        return CLI_OK;
    case 'h':
        (void)fputs(help, stdout);
        return -1;
    default:
        return CLI_USAGE; /* getopt has said what is wrong */
    }
}

int cli_fc(int argc, char **argv)
{
    static const struct option options[] = {
        {"socket", required_argument, NULL, 's'},
        {"timeout", required_argument, NULL, 't'},
        {"version", required_argument, NULL, 'V'},
        {"dry-run", no_argument, NULL, 'n'},
        {"list", no_argument, NULL, 'l'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    _cleanup_(request_deinit) struct request rq = {.timeout_ms = DEFAULT_S * 1000};
    static char program[] = "thaw fc";
    int status;
    int c;

    argv[0] = program;
    optind = 1;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        status = take_option(c, &rq);
        if (status < 0)
            return fflush(stdout) == 0 ? CLI_OK : CLI_FAILED;
        if (status != CLI_OK)
            return status;
    }
    if (rq.list && optind == argc) {
        print_list();
        return cli_flush(VERB, CLI_OK);
    }
    if (rq.list)
        return cli_usage_error(VERB, "unexpected argument %s", argv[optind]);
    status = take_arguments(argc - optind, argv + optind, &rq);
    if (status != CLI_OK)
        return status;
    assert(rq.endpoint);
    return rq.dry_run ? try_out(&rq) : send_it(&rq);
}
