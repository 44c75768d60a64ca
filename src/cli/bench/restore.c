/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore.c - `thaw bench restore`: options, rounds, and what came out
 *
 * A figure is the median over all VMs of all rounds of a case; "last" is the median over the rounds of the VM that was ready last. A
 * ratio is taken within a round, between the two kinds with the same files cached and the same number of VMs, and the median of
 * the rounds' ratios is printed: what the machine does meanwhile meets both.
 *
 * JSON: { "bench": "restore", "version", "template": {...}, "seed", "cases": [ { "from", "cold", "vms", "median": {MARK: ms},
 *         "last_ready_ms", "ratio_to_file", "rounds": [ [ {MARK: ms, "faults", "pages_ahead"} ] ] } ] }
 * What was not measured has no key.
 */
#include "cli/bench/restore.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <thaw/thaw.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "cli/bench/plan.h"
#include "cli/bench/sample.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "node/reasons.h"

#define VERB        "bench restore"
#define COUNTS_MAX  8u
#define NS_PER_MS_F 1e6

static const char help[] =
    "usage: thaw bench restore TEMPLATE [OPTIONS]\n"
    "\n"
    "Restores VMs of a template until their guests answer, in shuffled rounds, and prints how\n"
    "long each step takes: with the memory from Thaw, and with the VMM's own mapping of a raw\n"
    "memory file.\n"
    "\n"
    "      --vms LIST         how many at the same time (1,4,16)\n"
    "      --rounds N         runs of each case (5)\n"
    "      --cold, --warm     only with no file in the page cache, or only with all; else both\n"
    "      --no-file          only Thaw\n"
    "      --no-prefetch      the working set is not installed ahead: all pages come by faults\n"
    "      --store DIR        the store; $THAW_STORE, or /var/lib/thaw\n"
    "      --dir DIR          where the VMs and the raw memory file are made ($TMPDIR or /tmp)\n"
    "      --timeout SECONDS  how long a step may take (60)\n"
    "      --seed N           for the order of the cases\n"
    "      --json FILE        write all figures of all runs\n"
    "  -h, --help             this text\n"
    "\n"
    "Exit status: 0; 1 if a VM could not be restored; 2 for wrong usage.\n";

/* struct restore_case - what is measured, and each VM of each round */
struct restore_case {
    enum restore_kind kind;
    bool cold;
    unsigned n_vms;
    struct restore_times *times; /* owned: rounds x n_vms */
};

struct restore_bench {
    const char *template_name;
    const char *store;
    const char *dir;
    const char *json;
    unsigned n_counts;
    unsigned counts[COUNTS_MAX];
    unsigned n_rounds;
    bool warm, cold, files;
    bool no_prefetch;
    unsigned timeout_ms;
    uint64_t seed;
    bool help;
    unsigned n_cases;
    struct restore_case cases[COUNTS_MAX * 2 * RESTORE_N_KINDS];
};

static const char *const kind_names[] = {[RESTORE_THAW] = "thaw", [RESTORE_FILE] = "file"};

/* struct mark_word - how a mark is called */
static const struct mark_word {
    const char *head; /* in the table */
    const char *key;  /* in JSON */
} mark_words[] = {
    [RESTORE_LISTENING] = {"pager", "pager_listens_ms"},
    [RESTORE_STARTED] = {"VMM up", "vmm_answers_ms"},
    [RESTORE_FAULTED] = {"1st fault", "first_fault_ms"},
    [RESTORE_LOADED] = {"loaded", "loaded_ms"},
    [RESTORE_READY] = {"ready", "ready_ms"},
};

/* ---- options -------------------------------------------------------------------------------------------------- */

enum {
    OPT_VMS = 256,
    OPT_ROUNDS,
    OPT_COLD,
    OPT_WARM,
    OPT_NO_FILE,
    OPT_NO_PREFETCH,
    OPT_STORE,
    OPT_DIR,
    OPT_TIMEOUT,
    OPT_SEED,
    OPT_JSON,
};

static const struct option long_options[] = {
    {"vms", required_argument, NULL, OPT_VMS},
    {"rounds", required_argument, NULL, OPT_ROUNDS},
    {"cold", no_argument, NULL, OPT_COLD},
    {"warm", no_argument, NULL, OPT_WARM},
    {"no-file", no_argument, NULL, OPT_NO_FILE},
    {"no-prefetch", no_argument, NULL, OPT_NO_PREFETCH},
    {"store", required_argument, NULL, OPT_STORE},
    {"dir", required_argument, NULL, OPT_DIR},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"seed", required_argument, NULL, OPT_SEED},
    {"json", required_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int take_counts(struct restore_bench *b, const char *list)
{
    char *words = strdup(list);
    char *rest = words;
    char *word;
    int r = words ? CLI_OK : cli_error(VERB, "no memory for the options");

    b->n_counts = 0;
    while (r == CLI_OK && (word = strsep(&rest, ","))) {
        uint64_t n = 0;

        if (b->n_counts == COUNTS_MAX || cli_parse_u64(word, RESTORE_VMS_MAX, &n) < 0 || n == 0)
            r = cli_usage_error(VERB, "--vms %s: expected up to %u numbers from 1 to %u", list,
                                COUNTS_MAX, RESTORE_VMS_MAX);
        else
            b->counts[b->n_counts++] = (unsigned)n;
    }
    free(words);
    return r;
}

static int take_number(const char *option, const char *text, uint64_t max, uint64_t *out)
{
    if (cli_parse_u64(text, max, out) == 0 && *out > 0)
        return CLI_OK;
    return cli_usage_error(VERB, "%s %s: expected a number from 1 to %llu", option, text,
                           (unsigned long long)max);
}

static int take_option(struct restore_bench *b, int option, const char *value)
{
    uint64_t n = 0;
    int r = CLI_OK;

    if (option == OPT_VMS)
        return take_counts(b, value);
    if (option == OPT_ROUNDS) {
        r = take_number("--rounds", value, RESTORE_ROUNDS_MAX, &n);
        b->n_rounds = (unsigned)n;
    } else if (option == OPT_TIMEOUT) {
        r = take_number("--timeout", value, 86400, &n);
        b->timeout_ms = (unsigned)n * 1000;
    } else if (option == OPT_SEED) {
        if (cli_parse_u64(value, UINT64_MAX, &b->seed) < 0)
            r = cli_usage_error(VERB, "--seed %s: expected a number", value);
    } else if (option == OPT_COLD) {
        b->warm = false;
    } else if (option == OPT_WARM) {
        b->cold = false;
    } else if (option == OPT_NO_FILE) {
        b->files = false;
    } else if (option == OPT_NO_PREFETCH) {
        b->no_prefetch = true;
    } else if (option == OPT_STORE) {
        b->store = value;
    } else if (option == OPT_DIR) {
        b->dir = value;
    } else if (option == OPT_JSON) {
        b->json = value;
    } else if (option == 'h') {
        b->help = true;
    } else {
        r = CLI_USAGE; /* getopt has said what is wrong */
    }
    return r;
}

static int parse_arguments(int argc, char **argv, struct restore_bench *b)
{
    static char program[] = "thaw " VERB;
    int r = CLI_OK;
    int c;

    argv[0] = program;
    optind = 1;
    while (r == CLI_OK && !b->help && (c = getopt_long(argc, argv, "h", long_options, NULL)) != -1)
        r = take_option(b, c, optarg);
    if (r != CLI_OK || b->help)
        return r;
    if (optind + 1 != argc)
        return cli_usage_error(VERB, "expected one template");
    if (!b->warm && !b->cold)
        return cli_usage_error(VERB, "--cold and --warm: expected one of them");
    b->template_name = argv[optind];
    return CLI_OK;
}

/* ---- rounds --------------------------------------------------------------------------------------------------- */

static int make_cases(struct restore_bench *b)
{
    for (unsigned i = 0; i < b->n_counts; i++) {
        for (unsigned cold = !b->warm; cold <= (unsigned)b->cold; cold++) {
            for (unsigned kind = 0; kind < (b->files ? RESTORE_N_KINDS : RESTORE_FILE); kind++) {
                struct restore_case *c = &b->cases[b->n_cases++];

                c->kind = (enum restore_kind)kind;
                c->cold = cold;
                c->n_vms = b->counts[i];
                c->times = calloc((size_t)b->n_rounds * c->n_vms, sizeof(*c->times));
                if (!c->times)
                    return err_origin_errno(-ENOMEM, "no memory for the figures");
            }
        }
    }
    return 0;
}

static int run_case(const struct restore_ground *g, const struct restore_case *c, unsigned round)
{
    int r = restore_cache(g, c->kind, c->cold);

    if (r == 0)
        r = restore_group(g, c->kind, c->n_vms, c->times + (size_t)round * c->n_vms);
    return r;
}

static int run_rounds(struct restore_bench *b, const struct restore_ground *g)
{
    unsigned order[ARRAY_LEN(b->cases)];
    uint64_t random = (b->seed << 1) | 1;
    int r = 0;

    for (unsigned i = 0; i < b->n_cases; i++)
        order[i] = i;
    for (unsigned round = 0; round < b->n_rounds && r == 0; round++) {
        bench_shuffle(order, b->n_cases, &random);
        for (unsigned i = 0; i < b->n_cases && r == 0; i++)
            r = run_case(g, &b->cases[order[i]], round);
    }
    return r;
}

/* ---- figures -------------------------------------------------------------------------------------------------- */

/* median_ms() - of a mark, over all VMs that have it. Return: NAN: none has */
static double median_ms(const struct restore_bench *b, const struct restore_case *c,
                        enum restore_mark mark)
{
    size_t n_all = (size_t)b->n_rounds * c->n_vms;
    double *values = calloc(n_all, sizeof(*values));
    double median = NAN;
    size_t n = 0;

    for (size_t i = 0; values && i < n_all; i++) {
        if (c->times[i].ns[mark] > 0)
            values[n++] = (double)c->times[i].ns[mark] / NS_PER_MS_F;
    }
    if (n > 0)
        median = bench_median(values, n);
    free(values);
    return median;
}

/* last_ready_ns() - of the VM of a round that was ready last */
static double last_ready_ns(const struct restore_case *c, unsigned round)
{
    uint64_t last = 0;

    for (unsigned i = 0; i < c->n_vms; i++)
        last = max_u64(last, c->times[(size_t)round * c->n_vms + i].ns[RESTORE_READY]);
    return (double)last;
}

static double median_last_ms(const struct restore_bench *b, const struct restore_case *c)
{
    double values[RESTORE_ROUNDS_MAX];

    for (unsigned i = 0; i < b->n_rounds; i++)
        values[i] = last_ready_ns(c, i) / NS_PER_MS_F;
    return bench_median(values, b->n_rounds);
}

static double median_faults(const struct restore_bench *b, const struct restore_case *c)
{
    size_t n = (size_t)b->n_rounds * c->n_vms;
    double *values = calloc(n, sizeof(*values));
    double median = NAN;

    for (size_t i = 0; values && i < n; i++)
        values[i] = (double)c->times[i].n_faults;
    if (values)
        median = bench_median(values, n);
    free(values);
    return median;
}

/* find_file() - the case that this one of Thaw's is compared with; NULL: none */
static const struct restore_case *find_file(const struct restore_bench *b,
                                            const struct restore_case *c)
{
    for (unsigned i = 0; c->kind == RESTORE_THAW && i < b->n_cases; i++) {
        const struct restore_case *other = &b->cases[i];

        if (other->kind == RESTORE_FILE && other->cold == c->cold && other->n_vms == c->n_vms)
            return other;
    }
    return NULL;
}

/* ratio() - Thaw's last VM to the other's, round by round: the median. Return: NAN: nothing to compare with */
static double ratio(const struct restore_bench *b, const struct restore_case *c)
{
    const struct restore_case *file = find_file(b, c);
    double values[RESTORE_ROUNDS_MAX];

    if (!file)
        return NAN;
    for (unsigned i = 0; i < b->n_rounds; i++)
        values[i] = last_ready_ns(c, i) / last_ready_ns(file, i);
    return bench_median(values, b->n_rounds);
}

static void print_number(double value, int width, int decimals)
{
    if (isnan(value))
        (void)printf("  %*s", width, "-");
    else
        (void)printf("  %*.*f", width, decimals, value);
}

static void print_table(const struct restore_bench *b, const struct template *t)
{
    (void)printf("template %s: %s %s, %u MiB, %u vCPUs; %u rounds, seed %llu\n"
                 "medians in milliseconds since all VMs of a run began; ratio: thaw to file, last "
                 "VM ready\n\n",
                 t->name, template_vmm_words[t->vmm], t->vmm_version, t->memory_mib, t->n_vcpus,
                 b->n_rounds, (unsigned long long)b->seed);
    (void)printf("%-6s %4s %-5s", "cache", "VMs", "from");
    for (unsigned m = 0; m < RESTORE_N_MARKS; m++)
        (void)printf("  %9s", mark_words[m].head);
    (void)printf("  %9s  %7s  %6s\n", "last", "faults", "ratio");
    for (unsigned i = 0; i < b->n_cases; i++) {
        const struct restore_case *c = &b->cases[i];

        (void)printf("%-6s %4u %-5s", c->cold ? "cold" : "warm", c->n_vms, kind_names[c->kind]);
        for (unsigned m = 0; m < RESTORE_N_MARKS; m++)
            print_number(median_ms(b, c, (enum restore_mark)m), 9, 1);
        print_number(median_last_ms(b, c), 9, 1);
        print_number(c->kind == RESTORE_THAW ? median_faults(b, c) : NAN, 7, 0);
        print_number(ratio(b, c), 6, 2);
        (void)printf("\n");
    }
}

/* ---- JSON ----------------------------------------------------------------------------------------------------- */

static void set_real(json_t *object, const char *key, double value)
{
    if (!isnan(value))
        (void)json_object_set_new(object, key, json_real(value));
}

static json_t *times_json(const struct restore_times *t)
{
    json_t *object = json_object();

    for (unsigned m = 0; m < RESTORE_N_MARKS; m++)
        set_real(object, mark_words[m].key, t->ns[m] ? (double)t->ns[m] / NS_PER_MS_F : NAN);
    (void)json_object_set_new(object, "faults", json_integer((json_int_t)t->n_faults));
    (void)json_object_set_new(object, "pages_ahead", json_integer((json_int_t)t->n_ahead));
    return object;
}

static json_t *case_json(const struct restore_bench *b, const struct restore_case *c)
{
    json_t *medians = json_object();
    json_t *rounds = json_array();
    json_t *object = json_pack("{s:s, s:b, s:i}", "from", kind_names[c->kind], "cold", c->cold,
                               "vms", (int)c->n_vms);

    for (unsigned m = 0; m < RESTORE_N_MARKS; m++)
        set_real(medians, mark_words[m].key, median_ms(b, c, (enum restore_mark)m));
    (void)json_object_set_new(object, "median", medians);
    set_real(object, "last_ready_ms", median_last_ms(b, c));
    set_real(object, "ratio_to_file", ratio(b, c));
    for (unsigned i = 0; i < b->n_rounds; i++) {
        json_t *vms = json_array();

        for (unsigned v = 0; v < c->n_vms; v++)
            (void)json_array_append_new(vms, times_json(&c->times[(size_t)i * c->n_vms + v]));
        (void)json_array_append_new(rounds, vms);
    }
    (void)json_object_set_new(object, "rounds", rounds);
    return object;
}

static int write_json(const struct restore_bench *b, const struct template *t)
{
    json_t *root =
        json_pack("{s:s, s:s, s:{s:s, s:s, s:s, s:i, s:i}, s:I}", "bench", "restore", "version",
                  thaw_version(), "template", "name", t->name, "vmm", template_vmm_words[t->vmm],
                  "vmm_version", t->vmm_version, "memory_mib", (int)t->memory_mib, "vcpus",
                  (int)t->n_vcpus, "seed", (json_int_t)b->seed);
    json_t *cases = json_array();
    char *text;
    int r;

    for (unsigned i = 0; i < b->n_cases; i++)
        (void)json_array_append_new(cases, case_json(b, &b->cases[i]));
    (void)json_object_set_new(root, "cases", cases);
    text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    json_decref(root);
    if (!text)
        return err_origin_errno(-ENOMEM, "no memory for %s", b->json);
    r = file_replace(b->json, text, strlen(text));
    free(text);
    return r;
}

/* ---- the whole ------------------------------------------------------------------------------------------------ */

/* check_file() - can the VMM restore it by itself, from a memory file? Return: 0 or a negative errno with a text */
static int check_file(const struct template *t)
{
    struct vmm_spec spec = template_spec(t);

    spec.memory_from_file = true;
    return vmm_driver_check(vmm_driver_find(template_vmm_words[t->vmm]), &spec, t->vmm_version);
}

/* check_here() - can the template be resumed on this host? @files: as the VMM does it, too */
static int check_here(const struct template *t, const char *store, bool files)
{
    _cleanup_(reasons_deinit) struct reasons why_not = {0};
    int r = template_check_here(t, store, &why_not);

    if (r == 0 && why_not.n > 0)
        r = err_origin(-ENOTSUP, "template %s cannot be resumed here: %s", t->name,
                       why_not.lines[0]);
    if (r == 0 && !t->has_shell)
        r = err_origin(-ENOTSUP, "template %s has no shell at its console that could answer",
                       t->name);
    if (r == 0 && files && check_file(t) < 0)
        r = err_origin(-ENOTSUP,
                       "template %s cannot be restored from a file (--no-file leaves that out): %s",
                       t->name, err_text());
    return r;
}

static int measure(struct restore_bench *b)
{
    _cleanup_(template_deinit) struct template t = {0};
    struct restore_ground ground;
    int r = template_load(&t, b->store, b->template_name);

    if (r == 0)
        r = check_here(&t, b->store, b->files);
    if (r == 0)
        r = make_cases(b);
    if (r == 0)
        r = restore_ground_init(&ground, &t, b->store, b->dir, b->files, b->timeout_ms);
    if (r < 0)
        return r;
    ground.no_prefetch = b->no_prefetch;
    r = run_rounds(b, &ground);
    restore_ground_deinit(&ground);
    if (r < 0)
        return r;
    print_table(b, &t);
    return b->json ? write_json(b, &t) : 0;
}

int bench_restore(int argc, char **argv)
{
    const char *temp = getenv("TMPDIR");
    struct restore_bench b = {.dir = temp && temp[0] ? temp : "/tmp",
                              .n_counts = 3,
                              .counts = {1, 4, 16},
                              .n_rounds = 5,
                              .warm = true,
                              .cold = true,
                              .files = true,
                              .timeout_ms = 60000,
                              .seed = clock_now_ns() & UINT32_MAX};
    int r = parse_arguments(argc, argv, &b);

    if (r != CLI_OK)
        return r;
    if (b.help) {
        (void)fputs(help, stdout);
        return CLI_OK;
    }
    b.store = image_store_path(b.store);
    r = measure(&b);
    for (unsigned i = 0; i < b.n_cases; i++)
        free(b.cases[i].times);
    return r < 0 ? cli_error(VERB, "%s", err_text()) : CLI_OK;
}
