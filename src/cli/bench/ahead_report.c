/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ahead_report.c - table and JSON
 *
 *     { "bench": "ahead", "name", "version", "host": {...}, "options": {...}, "note",
 *       "cases": [ { "case", "median": {FIGURE: number}, "runs": [ {FIGURE: number} ] } ],
 *       "aims": [ { "what", "figure", "low", "high", "unit", "limit", "at_least", "verdict" } ] }
 *
 * Figures are named by ahead_figure_name(); one that does not apply is left out. Units are in the names.
 */

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/err.h"
#include "cli/bench/ahead.h"

const char *ahead_figure_name(enum ahead_figure figure)
{
    static const char *const names[] = {
        [AHEAD_RATE_BPS] = "installed_bytes_per_s",
        [AHEAD_TOTAL_NS] = "total_ns",
        [AHEAD_BEFORE_NS] = "before_resume_ns",
        [AHEAD_FIRST_NS] = "first_installs_ns",
        [AHEAD_P50_NS] = "p50_ns",
        [AHEAD_P99_NS] = "p99_ns",
        [AHEAD_N_SAMPLES] = "samples",
        [AHEAD_PER_S] = "faults_per_s",
        [AHEAD_FAULTS] = "faults",
        [AHEAD_INSTALLED] = "present_bytes",
        [AHEAD_DISCARD_NS] = "discard_4KiB_ns",
        [AHEAD_DISCARD_NS + 1] = "discard_64KiB_ns",
        [AHEAD_DISCARD_NS + 2] = "discard_2MiB_ns",
        [AHEAD_DISCARD_NS + 3] = "discard_16MiB_ns",
        [AHEAD_DISCARD_NS_LAST] = "discard_64MiB_ns",
    };

    assert(figure < AHEAD_N_FIGURES);
    return names[figure];
}

/* struct column - how the table shows a figure */
struct column {
    enum ahead_figure figure;
    int decimals;
    const char *head;
    double unit;
};

static const struct column columns[] = {
    {AHEAD_RATE_BPS, 2, "GiB/s", (double)GIB},
    {AHEAD_TOTAL_NS, 2, "total ms", 1e6},
    {AHEAD_BEFORE_NS, 2, "before ms", 1e6},
    {AHEAD_FIRST_NS, 2, "first ms", 1e6},
    {AHEAD_P50_NS, 2, "p50 us", 1e3},
    {AHEAD_P99_NS, 2, "p99 us", 1e3},
    {AHEAD_N_SAMPLES, 0, "samples", 1},
    {AHEAD_PER_S, 0, "faults/s", 1},
    {AHEAD_FAULTS, 0, "faults", 1},
    {AHEAD_INSTALLED, 1, "there MiB", (double)MIB},
    {AHEAD_DISCARD_NS, 1, "4K us", 1e3},
    {AHEAD_DISCARD_NS + 1, 1, "64K us", 1e3},
    {AHEAD_DISCARD_NS + 2, 1, "2M us", 1e3},
    {AHEAD_DISCARD_NS + 3, 1, "16M us", 1e3},
    {AHEAD_DISCARD_NS_LAST, 1, "64M us", 1e3},
};

/* is_used() - does any case have this figure? */
static bool is_used(const struct ahead *a, enum ahead_figure figure)
{
    for (unsigned i = 0; i < a->n_cases; i++) {
        if (!isnan(a->cases[i].median[figure]))
            return true;
    }
    return false;
}

static void print_row(const struct ahead *a, const struct ahead_case *c)
{
    printf("%-40s", c->name);
    for (unsigned i = 0; i < ARRAY_LEN(columns); i++) {
        double value = c->median[columns[i].figure];

        if (!is_used(a, columns[i].figure))
            continue;
        if (isnan(value))
            printf("%11s", "-");
        else
            printf("%11.*f", columns[i].decimals, value / columns[i].unit);
    }
    printf("\n");
}

static void print_aims(const struct ahead *a)
{
    struct bench_aim aims[AHEAD_AIMS_MAX];
    unsigned n = ahead_aims(a, aims);

    if (n > 0)
        printf("\naims (in brackets: single rounds)\n");
    for (unsigned i = 0; i < n; i++)
        printf("  %-64s%9.2f (%.2f to %.2f) %s, aim %s %.2f: %s\n", aims[i].what, aims[i].figure,
               aims[i].low, aims[i].high, aims[i].unit,
               aims[i].at_least ? ">=" : "<=", aims[i].limit,
               bench_verdict_name(bench_aim_verdict(&aims[i])));
}

void ahead_print(const struct ahead *a)
{
    struct utsname host;

    if (uname(&host) < 0)
        host.release[0] = '\0';
    printf("thaw %s bench ahead %s: guest of %ju MiB, %u rounds, seed %ju; Linux %s\n\n",
           THAW_VERSION, ahead_name(a->what), (uintmax_t)(a->size_bytes / MIB), a->n_rounds,
           (uintmax_t)a->seed, host.release);
    printf("%-40s", "");
    for (unsigned i = 0; i < ARRAY_LEN(columns); i++) {
        if (is_used(a, columns[i].figure))
            printf("%11s", columns[i].head);
    }
    printf("\n");
    for (unsigned i = 0; i < a->n_cases; i++)
        print_row(a, &a->cases[i]);
    if (a->note[0])
        printf("\nNOTE: %s\n", a->note);
    if (a->n_busy_runs > 0)
        printf("\nNOTE: %u of %u runs began while others used the machine (see --idle-wait).\n",
               a->n_busy_runs, a->n_runs);
    print_aims(a);
}

static json_t *figures_json(const double figures[AHEAD_N_FIGURES])
{
    json_t *o = json_object();

    for (unsigned f = 0; f < AHEAD_N_FIGURES; f++) {
        if (!isnan(figures[f]))
            (void)json_object_set_new(o, ahead_figure_name((enum ahead_figure)f),
                                      json_real(figures[f]));
    }
    return o;
}

static json_t *cases_json(const struct ahead *a)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < a->n_cases; i++) {
        const struct ahead_case *c = &a->cases[i];
        json_t *runs = json_array();

        for (unsigned k = 0; k < c->n_runs; k++)
            (void)json_array_append_new(runs, figures_json(c->runs[k]));
        (void)json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "case", c->name, "median",
                                                    figures_json(c->median), "runs", runs));
    }
    return list;
}

static json_t *aims_json(const struct ahead *a)
{
    struct bench_aim aims[AHEAD_AIMS_MAX];
    unsigned n = ahead_aims(a, aims);
    json_t *list = json_array();

    for (unsigned i = 0; i < n; i++)
        (void)json_array_append_new(
            list,
            json_pack("{s:s, s:f, s:f, s:f, s:s, s:f, s:b, s:s}", "what", aims[i].what, "figure",
                      aims[i].figure, "low", aims[i].low, "high", aims[i].high, "unit",
                      aims[i].unit, "limit", aims[i].limit, "at_least", aims[i].at_least, "verdict",
                      bench_verdict_name(bench_aim_verdict(&aims[i]))));
    return list;
}

int ahead_write_json(const struct ahead *a, const char *path)
{
    struct utsname host;
    json_t *root;
    int r = 0;

    if (uname(&host) < 0)
        memset(&host, 0, sizeof(host));
    root = json_pack(
        "{s:s, s:s, s:s, s:{s:s, s:s, s:i, s:i, s:s}, s:{s:I, s:i, s:i, s:I}, s:s, s:o, s:o}",
        "bench", "ahead", "name", ahead_name(a->what), "version", THAW_VERSION, "host", "kernel",
        host.release, "machine", host.machine, "runs", (int)a->n_runs, "busy_runs",
        (int)a->n_busy_runs, "clock", bench_clock_name(&a->clock), "options", "size_bytes",
        (json_int_t)a->size_bytes, "faults", (int)a->n_faults, "rounds", (int)a->n_rounds, "seed",
        (json_int_t)a->seed, "note", a->note, "cases", cases_json(a), "aims", aims_json(a));
    if (!root)
        return err_origin(-ENOMEM, "no memory for the JSON file");
    errno = 0;
    if (json_dump_file(root, path, JSON_INDENT(1)) < 0)
        r = err_origin_errno(errno ? -errno : -EIO, "cannot write %s", path);
    json_decref(root);
    return r;
}
