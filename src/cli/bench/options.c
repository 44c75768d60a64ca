/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.c - the command line of `thaw bench fault`
 *
 * The defaults take about two minutes and measure everything that the aims ask for. Handlers are
 * given as NAME=COMMAND; `thaw` itself is measured twice, one page a fault and with its default
 * fault-around, as if it had been given so.
 */

#include "cli/bench/options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

#define MEASUREMENT "bench fault"
#define SIZE_MIN    (4 * MIB)
#define SIZE_MAX_   (1024 * GIB)
#define HUGE_BYTES  (2 * MIB)

static const char help[] =
    "usage: thaw bench fault [OPTIONS]\n"
    "\n"
    "Plays the VMM against page-fault handlers that speak Firecracker's protocol, in\n"
    "shuffled rounds, compares every byte, and prints what a touched page costs.\n"
    "\n"
    "  --handler NAME=COMMAND  one more handler; {socket} and {memory} in COMMAND stand for\n"
    "                          the paths. Words are split at blanks, there is no shell\n"
    "  --no-thaw               only the handlers given by --handler\n"
    "  --wakeups               thaw with each way to make wake-ups cheap by itself, with all of\n"
    "                          them, and plain\n"
    "  --size BYTES            the guest's memory (256M)\n"
    "  --page-size 4K|2M       2M: hugetlb, needs free 2 MiB pages (4K)\n"
    "  --faults N              pages touched in a run, at most (8192)\n"
    "  --rounds N              runs of each kind (5)\n"
    "  --pattern LIST          sequential,random,scattered,ascending,jumbled (the first three)\n"
    "  --threads LIST          faulting threads (1,4)\n"
    "  --placement LIST        same: all on one core; split: one core each; awake: as split,\n"
    "                          idle cores do not halt; free: not bound (same,split)\n"
    "  --rss-size BYTES        guest for the handlers' memory, 0: leave out (1G)\n"
    "  --seed N                for the patterns and the order of the runs\n"
    "  --deadline SECONDS      a run that takes longer has hung (60)\n"
    "  --idle-wait SECONDS     how long a run waits for an idle machine (0)\n"
    "  --dir DIR               where the memory files are made ($TMPDIR or /tmp)\n"
    "  --json FILE             write all figures of all runs\n"
    "\n"
    "Exit status: 0; 1 if a handler served wrong bytes, died or hung; 2 for wrong usage.\n";

enum {
    OPT_HANDLER = 256,
    OPT_NO_THAW,
    OPT_WAKEUPS,
    OPT_SIZE,
    OPT_PAGE_SIZE,
    OPT_FAULTS,
    OPT_ROUNDS,
    OPT_PATTERN,
    OPT_THREADS,
    OPT_PLACEMENT,
    OPT_RSS_SIZE,
    OPT_SEED,
    OPT_DEADLINE,
    OPT_IDLE_WAIT,
    OPT_DIR,
    OPT_JSON,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"handler", required_argument, NULL, OPT_HANDLER},
    {"no-thaw", no_argument, NULL, OPT_NO_THAW},
    {"wakeups", no_argument, NULL, OPT_WAKEUPS},
    {"size", required_argument, NULL, OPT_SIZE},
    {"page-size", required_argument, NULL, OPT_PAGE_SIZE},
    {"faults", required_argument, NULL, OPT_FAULTS},
    {"rounds", required_argument, NULL, OPT_ROUNDS},
    {"pattern", required_argument, NULL, OPT_PATTERN},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"placement", required_argument, NULL, OPT_PLACEMENT},
    {"rss-size", required_argument, NULL, OPT_RSS_SIZE},
    {"seed", required_argument, NULL, OPT_SEED},
    {"deadline", required_argument, NULL, OPT_DEADLINE},
    {"idle-wait", required_argument, NULL, OPT_IDLE_WAIT},
    {"dir", required_argument, NULL, OPT_DIR},
    {"json", required_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static int usage(const char *what, const char *value)
{
    (void)cli_usage_error(MEASUREMENT, "%s: \"%s\"", what, value);
    return BENCH_OPTIONS_WRONG;
}

/* Takes the next element of a comma-separated list. Returns the list's rest, NULL after the last.
 */
static const char *next_element(const char *list, char *element, size_t len)
{
    size_t n = strcspn(list, ",");

    (void)snprintf(element, len, "%.*s", (int)n, list);
    return list[n] ? list + n + 1 : NULL;
}

/* Sets chosen[i] for each of the names in @list that name_of(i) gives. */
static int parse_names(const char *what, const char *list, bool *chosen, unsigned n,
                       const char *(*name_of)(unsigned))
{
    char name[32];

    memset(chosen, 0, n * sizeof(*chosen));
    for (const char *at = list; at;) {
        bool found = false;

        at = next_element(at, name, sizeof(name));
        for (unsigned i = 0; i < n; i++) {
            if (strcmp(name, name_of(i)) == 0)
                chosen[i] = found = true;
        }
        if (!found)
            return usage(what, name);
    }
    return 0;
}

static const char *pattern_name(unsigned i)
{
    return bench_pattern_name((enum bench_pattern)i);
}

static const char *place_name(unsigned i)
{
    return bench_place_name((enum bench_place)i);
}

static int parse_threads(struct bench_options *o, const char *list)
{
    char text[16];

    o->n_threads = 0;
    for (const char *at = list; at;) {
        uint64_t n;

        at = next_element(at, text, sizeof(text));
        if (cli_parse_u64(text, BENCH_THREADS_MAX, &n) < 0 || n == 0 ||
            o->n_threads == BENCH_THREAD_COUNTS_MAX)
            return usage("--threads wants up to 8 numbers of 1 to 64", list);
        o->threads[o->n_threads++] = (unsigned)n;
    }
    return 0;
}

static int parse_number(const char *what, const char *text, unsigned min, unsigned max,
                        unsigned *out)
{
    uint64_t n;

    if (cli_parse_u64(text, max, &n) < 0 || n < min)
        return usage(what, text);
    *out = (unsigned)n;
    return 0;
}

static int parse_bytes(const char *what, const char *text, bool may_be_0, uint64_t *out)
{
    uint64_t n;

    if (cli_parse_size(text, &n) < 0 || n % HUGE_BYTES != 0 || n > SIZE_MAX_ ||
        (n < SIZE_MIN && !(may_be_0 && n == 0)))
        return usage(what, text);
    *out = n;
    return 0;
}

static int add_handler(struct bench_options *o, const char *name, size_t name_len,
                       const char *command)
{
    struct bench_handler_spec *spec = &o->handlers[o->n_handlers];

    if (o->n_handlers == BENCH_HANDLERS_MAX)
        return usage("too many handlers, one too many is", name);
    if (name_len == 0 || name_len >= sizeof(spec->name) || memchr(name, '/', name_len))
        return usage("--handler wants NAME=COMMAND", name);
    (void)snprintf(spec->name, sizeof(spec->name), "%.*s", (int)name_len, name);
    for (unsigned i = 0; i < o->n_handlers; i++) {
        if (strcmp(o->handlers[i].name, spec->name) == 0)
            return usage("two handlers have the same name", spec->name);
    }
    spec->command = command;
    spec->roams = false;
    o->n_handlers++;
    return 0;
}

static int parse_handler(struct bench_options *o, const char *text)
{
    size_t name_len = strcspn(text, "=");

    if (text[name_len] != '=' || !text[name_len + 1])
        return usage("--handler wants NAME=COMMAND", text);
    return add_handler(o, text, name_len, text + name_len + 1);
}

static int parse_page_size(struct bench_options *o, const char *text)
{
    if (cli_parse_size(text, &o->page_bytes) < 0 ||
        (o->page_bytes != 4096 && o->page_bytes != HUGE_BYTES))
        return usage("--page-size wants 4K or 2M", text);
    return 0;
}

static int parse_one(struct bench_options *o, int option, const char *arg)
{
    uint64_t seed;

    switch (option) {
    case OPT_HANDLER:
        return parse_handler(o, arg);
    case OPT_NO_THAW:
        o->no_thaw = true;
        return 0;
    case OPT_WAKEUPS:
        o->wakeups = true;
        return 0;
    case OPT_SIZE:
        return parse_bytes("--size wants a multiple of 2M, 4M at least", arg, false,
                           &o->size_bytes);
    case OPT_PAGE_SIZE:
        return parse_page_size(o, arg);
    case OPT_FAULTS:
        return parse_number("--faults", arg, 1, 1u << 28, &o->n_faults);
    case OPT_ROUNDS:
        return parse_number("--rounds", arg, 1, BENCH_ROUNDS_MAX, &o->n_rounds);
    case OPT_PATTERN:
        return parse_names("--pattern", arg, o->patterns, BENCH_N_PATTERNS, pattern_name);
    case OPT_THREADS:
        return parse_threads(o, arg);
    case OPT_PLACEMENT:
        return parse_names("--placement", arg, o->places, BENCH_N_PLACES, place_name);
    case OPT_RSS_SIZE:
        return parse_bytes("--rss-size wants a multiple of 2M, or 0", arg, true,
                           &o->rss_size_bytes);
    case OPT_SEED:
        if (cli_parse_u64(arg, UINT64_MAX, &seed) < 0)
            return usage("--seed", arg);
        o->seed = seed;
        return 0;
    case OPT_DEADLINE:
        return parse_number("--deadline", arg, 1, 86400, &o->deadline_s);
    case OPT_IDLE_WAIT:
        return parse_number("--idle-wait", arg, 0, 86400, &o->idle_wait_s);
    case OPT_DIR:
        o->dir_path = arg;
        return 0;
    case OPT_JSON:
        o->json_path = arg;
        return 0;
    case 'h':
    case OPT_HELP:
        fputs(help, stdout);
        return BENCH_OPTIONS_HELP;
    default:
        return BENCH_OPTIONS_WRONG;
    }
}

static void set_defaults(struct bench_options *o)
{
    const char *tmp = getenv("TMPDIR");

    *o = (struct bench_options){
        .patterns = {[BENCH_SEQUENTIAL] = true, [BENCH_RANDOM] = true, [BENCH_SCATTERED] = true},
        .places = {[BENCH_SAME] = true, [BENCH_SPLIT] = true},
        .threads = {1, 4},
        .n_threads = 2,
        .n_rounds = 5,
        .n_faults = 8192,
        .size_bytes = 256 * MIB,
        .page_bytes = 4096,
        .rss_size_bytes = GIB,
        .seed = 1,
        .deadline_s = 60,
        .dir_path = tmp && tmp[0] ? tmp : "/tmp",
    };
}

#define SINGLE "{self} serve {socket} {memory} --state {dir} --fault-around 0"

/* Adds the ways to make wake-ups cheap, one page a fault as "thaw". Those that follow the guest choose their core. */
static int add_wakeups(struct bench_options *o)
{
    static const struct {
        const char *name;
        const char *command;
        bool roams;
    } ways[] = {
        {"thaw-plain", SINGLE " --latency-qos off --cpu any --spin off", false},
        {"thaw-qos", SINGLE " --latency-qos on --cpu any --spin off", false},
        {"thaw-spin", SINGLE " --latency-qos off --cpu any --spin auto", false},
        {"thaw-qos-spin", SINGLE " --latency-qos on --cpu any --spin auto", false},
        {"thaw-follow", SINGLE " --latency-qos off --cpu follow --spin off", true},
        {"thaw-all", SINGLE " --latency-qos on --cpu follow --spin auto", true},
    };
    int r = 0;

    for (unsigned i = 0; r == 0 && i < ARRAY_LEN(ways); i++) {
        r = add_handler(o, ways[i].name, strlen(ways[i].name), ways[i].command);
        if (r == 0)
            o->handlers[o->n_handlers - 1].roams = ways[i].roams;
    }
    return r;
}

/* Puts this program's two ways of serving before the handlers that were given. */
static int add_thaw(struct bench_options *o)
{
    static const char around[] = "{self} serve {socket} {memory} --state {dir}";
    static const char single[] = SINGLE;
    struct bench_handler_spec given[BENCH_HANDLERS_MAX];
    unsigned n_given = o->n_handlers;
    int r;

    memcpy(given, o->handlers, sizeof(given));
    o->n_handlers = 0;
    r = add_handler(o, "thaw", strlen("thaw"), single);
    if (r == 0)
        r = add_handler(o, "thaw-around", strlen("thaw-around"), around);
    for (unsigned i = 0; r == 0 && i < n_given; i++) {
        r = add_handler(o, given[i].name, strlen(given[i].name), given[i].command);
        o->handlers[o->n_handlers - 1].roams = given[i].roams;
    }
    return r;
}

int bench_options_parse(struct bench_options *o, int argc, char **argv)
{
    int option;

    set_defaults(o);
    opterr = 0;
    optind = 0; /* the program's own getopt may have run already */
    while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        int r;

        if (option == '?')
            return usage("unknown option, or its value is missing", argv[optind - 1]);
        r = parse_one(o, option, optarg);
        if (r != 0)
            return r;
    }
    if (optind < argc)
        return usage("an argument too many", argv[optind]);
    if (o->wakeups && add_wakeups(o) != 0)
        return BENCH_OPTIONS_WRONG;
    if (!o->no_thaw)
        return add_thaw(o);
    if (o->n_handlers == 0)
        return usage("--no-thaw wants at least one of --wakeups and", "--handler");
    return 0;
}
