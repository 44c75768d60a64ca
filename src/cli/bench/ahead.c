/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ahead.c - `thaw bench ahead NAME`: one measurement
 *
 *     options -> cases and files -> shuffled rounds of runs -> medians -> table, aims, JSON
 *
 * As `thaw bench fault` does it: whatever changes on the machine meanwhile hits all cases alike, what a case is compared with is
 * measured beside it, and the first run that fails ends the benchmark.
 */

#include "cli/bench/ahead.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "cli/bench/ground.h"
#include "cli/cli.h"

#define MEASUREMENT "bench ahead"
#define SIZE_UNIT   (2 * MIB)
#define SIZE_MIN    (4 * MIB)
#define SIZE_MAX_   (64 * GIB)

static const char help[] =
    "usage: thaw bench ahead NAME [OPTIONS]\n"
    "\n"
    "Measures what is installed ahead of the guest, in shuffled rounds, and compares every byte.\n"
    "\n"
    "  bulk          how fast pages are installed, against a bare loop of ioctls\n"
    "  scattered     a guest that touches its working set: with replay, without, from a file\n"
    "  latency       faults and discards while pages are installed, by size of a slice\n"
    "  throughput    faults a second, 1 to 8 threads\n"
    "  huge          pages of 2 MiB against 4 KiB, on the same working set\n"
    "  remove        how long a discard takes, by length\n"
    "\n"
    "  --size BYTES         the guest's memory; latency and remove: a quarter of it (256M)\n"
    "  --faults N           single pages touched in a run, at most (8192)\n"
    "  --case WORDS         only the cases whose names contain WORDS\n"
    "  --rounds N           runs of each case (5)\n"
    "  --seed N             for the working set and the order of the runs\n"
    "  --deadline SECONDS   a run that takes longer has hung (120)\n"
    "  --idle-wait SECONDS  how long a run waits for an idle machine (0)\n"
    "  --dir DIR            where the memory files are made ($TMPDIR or /tmp)\n"
    "  --json FILE          write all figures of all runs\n"
    "\n"
    "Exit status: 0; 1 if a run failed; 2 for wrong usage.\n";

static volatile sig_atomic_t interrupted;

const char *ahead_name(enum ahead_measurement what)
{
    static const char *const names[] = {
        [AHEAD_BULK] = "bulk",       [AHEAD_SCATTERED] = "scattered",
        [AHEAD_LATENCY] = "latency", [AHEAD_THROUGHPUT] = "throughput",
        [AHEAD_HUGE] = "huge",       [AHEAD_REMOVE] = "remove",
    };

    assert(what < AHEAD_N_MEASUREMENTS);
    return names[what];
}

/* ---- options -------------------------------------------------------------------------------------------------- */

enum {
    OPT_SIZE = 256,
    OPT_FAULTS,
    OPT_CASE,
    OPT_ROUNDS,
    OPT_SEED,
    OPT_DEADLINE,
    OPT_IDLE_WAIT,
    OPT_DIR,
    OPT_JSON,
};

static const struct option long_options[] = {
    {"size", required_argument, NULL, OPT_SIZE},
    {"faults", required_argument, NULL, OPT_FAULTS},
    {"case", required_argument, NULL, OPT_CASE},
    {"rounds", required_argument, NULL, OPT_ROUNDS},
    {"seed", required_argument, NULL, OPT_SEED},
    {"deadline", required_argument, NULL, OPT_DEADLINE},
    {"idle-wait", required_argument, NULL, OPT_IDLE_WAIT},
    {"dir", required_argument, NULL, OPT_DIR},
    {"json", required_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int usage(const char *what, const char *value)
{
    return cli_usage_error(MEASUREMENT, "%s: \"%s\"", what, value);
}

static int parse_number(const char *what, const char *text, uint64_t min, uint64_t max,
                        unsigned *out)
{
    uint64_t n;

    if (cli_parse_u64(text, max, &n) < 0 || n < min)
        return usage(what, text);
    *out = (unsigned)n;
    return CLI_OK;
}

static int parse_one(struct ahead *a, int option, const char *arg)
{
    switch (option) {
    case OPT_SIZE:
        if (cli_parse_size(arg, &a->size_bytes) < 0 || a->size_bytes % SIZE_UNIT != 0 ||
            a->size_bytes < SIZE_MIN || a->size_bytes > SIZE_MAX_)
            return usage("--size wants a multiple of 2M, 4M at least", arg);
        return CLI_OK;
    case OPT_FAULTS:
        return parse_number("--faults", arg, 1, 1u << 28, &a->n_faults);
    case OPT_CASE:
        a->case_words = arg;
        return CLI_OK;
    case OPT_ROUNDS:
        return parse_number("--rounds", arg, 1, BENCH_ROUNDS_MAX, &a->n_rounds);
    case OPT_SEED:
        return cli_parse_u64(arg, UINT64_MAX, &a->seed) < 0 ? usage("--seed", arg) : CLI_OK;
    case OPT_DEADLINE:
        return parse_number("--deadline", arg, 1, 86400, &a->deadline_s);
    case OPT_IDLE_WAIT:
        return parse_number("--idle-wait", arg, 0, 86400, &a->idle_wait_s);
    case OPT_DIR:
        a->dir_path = arg;
        return CLI_OK;
    default:
        a->json_path = arg;
        return CLI_OK;
    }
}

static int parse_name(struct ahead *a, const char *name)
{
    for (unsigned i = 0; i < AHEAD_N_MEASUREMENTS; i++) {
        if (strcmp(name, ahead_name((enum ahead_measurement)i)) == 0) {
            a->what = (enum ahead_measurement)i;
            return CLI_OK;
        }
    }
    return usage("unknown measurement", name);
}

/* parse() - Return: CLI_OK, CLI_USAGE; with help: it was asked for and printed */
static int parse(struct ahead *a, int argc, char **argv, bool *asked_help)
{
    int option;

    opterr = 0;
    optind = 0; /* the program's own getopt may have run already */
    while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help, stdout);
            *asked_help = true;
            return CLI_OK;
        }
        if (option == '?')
            return usage("unknown option, or its value is missing", argv[optind - 1]);
        if (parse_one(a, option, optarg) != CLI_OK)
            return CLI_USAGE;
    }
    if (optind == argc)
        return cli_usage_error(MEASUREMENT, "what is to be measured?");
    if (optind + 1 < argc)
        return usage("an argument too many", argv[optind + 1]);
    return parse_name(a, argv[optind]);
}

/* ---- rounds --------------------------------------------------------------------------------------------------- */

static void show_progress(const struct ahead *a, bool is_over)
{
    if (!isatty(STDERR_FILENO))
        return;
    if (is_over)
        fprintf(stderr, "\r%30s\r", "");
    else
        fprintf(stderr, "\rrun %u of %u ", a->n_runs + 1, a->n_rounds * a->n_cases);
}

static int run_rounds(struct ahead *a)
{
    unsigned order[AHEAD_CASES_MAX];
    uint64_t random = (a->seed << 1) | 1;
    int r = 0;

    for (unsigned i = 0; i < a->n_cases; i++) {
        order[i] = i;
        a->cases[i].runs = calloc(a->n_rounds, sizeof(*a->cases[i].runs));
        if (!a->cases[i].runs)
            return err_origin(-ENOMEM, "no memory for %u rounds", a->n_rounds);
    }
    for (unsigned round = 0; r == 0 && round < a->n_rounds; round++) {
        bench_shuffle(order, a->n_cases, &random);
        for (unsigned i = 0; r == 0 && i < a->n_cases; i++) {
            struct ahead_case *c = &a->cases[order[i]];

            show_progress(a, false);
            r = ahead_run(a, c, c->runs[c->n_runs], &interrupted);
            c->n_runs += r == 0;
        }
    }
    show_progress(a, true);
    return r;
}

static void take_medians(struct ahead_case *c)
{
    for (unsigned f = 0; f < AHEAD_N_FIGURES; f++) {
        double values[BENCH_ROUNDS_MAX];
        unsigned n = 0;

        for (unsigned i = 0; i < c->n_runs; i++) {
            if (!isnan(c->runs[i][f]))
                values[n++] = c->runs[i][f];
        }
        c->median[f] = n > 0 ? bench_median(values, n) : NAN;
    }
}

static int measure(struct ahead *a)
{
    int r = bench_make_dir(a->dir, sizeof(a->dir), a->dir_path);

    if (r < 0)
        return r;
    bench_choose_cores(a->cpus);
    bench_clock_init(&a->clock);
    r = ahead_make_cases(a);
    if (r == 0)
        r = run_rounds(a);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < a->n_cases; i++)
        take_medians(&a->cases[i]);
    ahead_print(a);
    return a->json_path ? ahead_write_json(a, a->json_path) : 0;
}

static void on_signal(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

int bench_ahead(int argc, char **argv)
{
    const struct sigaction action = {.sa_handler = on_signal};
    const char *tmp = getenv("TMPDIR");
    static struct ahead a = {
        .size_bytes = 256 * MIB,
        .n_faults = 8192,
        .n_rounds = 5,
        .deadline_s = 120,
        .seed = 1,
    };
    bool asked_help = false;
    int r;

    a.dir_path = tmp && tmp[0] ? tmp : "/tmp";
    r = parse(&a, argc, argv, &asked_help);
    if (r != CLI_OK || asked_help)
        return r;
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    r = measure(&a);
    if (r < 0)
        (void)cli_error(MEASUREMENT, "%s", err_text());
    for (unsigned i = 0; i < a.n_cases; i++)
        free(a.cases[i].runs);
    bench_plan_deinit(&a.plan);
    bench_remove_dir(a.dir);
    return r < 0 ? CLI_FAILED : CLI_OK;
}
