/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.c - the figures for people
 *
 * One block a placement and number of threads. Baselines stand in brackets. A dash is a figure that
 * does not apply. The notes under the blocks say how each column was measured: a figure without its
 * method is not a figure.
 */

#include "cli/bench/table.h"

#include <math.h>
#include <sys/utsname.h>

#include "cli/bench/aims.h"

#if defined(__has_feature)
#    define HAS_SANITIZER (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define HAS_SANITIZER 1
#else
#    define HAS_SANITIZER 0
#endif
#if defined(__OPTIMIZE__)
#    define IS_DEBUG_BUILD HAS_SANITIZER
#else
#    define IS_DEBUG_BUILD 1
#endif

/* Prints one column: the number, or a dash. */
static void print_number(FILE *out, int width, int decimals, double value)
{
    if (isnan(value) || isinf(value))
        fprintf(out, " %*s", width, "-");
    else
        fprintf(out, " %*.*f", width, decimals, value);
}

static void print_heads(FILE *out)
{
    fprintf(out, "%-12s%-16s%8s%9s%9s%10s%9s%8s%9s%9s%9s%8s%8s\n", "pattern", "handler", "p50",
            "p90", "p99", "total", "a page", "faults", "CPU", "RSS", "guest", "x ping", "x file");
    fprintf(out, "%-12s%-16s%8s%9s%9s%10s%9s%8s%9s%9s%9s%8s%8s\n", "", "", "us", "us", "us", "ms",
            "us", "", "us/fault", "KiB", "MiB", "(p50)", "(total)");
}

static double ratio(const struct bench_job *job, const struct bench_job *to,
                    enum bench_figure figure)
{
    return to ? job->median[figure] / to->median[figure] : NAN;
}

static void print_job(FILE *out, const struct bench_results *res, const struct bench_job *job)
{
    const struct bench_job *ping =
        bench_find_job(res, BENCH_PING_PONG, NULL, job->place, BENCH_RANDOM, 1);
    const struct bench_job *file =
        bench_find_job(res, BENCH_FILE, NULL, job->place, job->pattern, job->n_threads);
    bool is_ping = job->kind == BENCH_PING_PONG;
    const double *m = job->median;

    fprintf(out, "%-12s%-15s", is_ping ? "-" : bench_pattern_name(job->pattern),
            bench_job_name(job));
    print_number(out, 8, 2, m[BENCH_P50_NS] / 1e3);
    print_number(out, 8, 2, m[BENCH_P90_NS] / 1e3);
    print_number(out, 8, 2, m[BENCH_P99_NS] / 1e3);
    print_number(out, 9, 1, m[BENCH_TOTAL_NS] / 1e6);
    print_number(out, 8, 2, m[BENCH_TOTAL_NS] / m[BENCH_TOUCHED] / 1e3);
    print_number(out, 7, 0, m[BENCH_FAULTS]);
    print_number(out, 8, 2, m[BENCH_CPU_NS] / 1e3);
    print_number(out, 8, 0, m[BENCH_RSS] / (double)KIB);
    print_number(out, 8, 1, m[BENCH_GUEST] / (double)MIB);
    print_number(out, 7, 2, is_ping ? NAN : ratio(job, ping, BENCH_P50_NS));
    print_number(out, 7, 2, is_ping ? NAN : ratio(job, file, BENCH_TOTAL_NS));
    fputc('\n', out);
}

static void print_place(FILE *out, const struct bench_results *res, enum bench_place place)
{
    const int *cpus = res->cpus;

    switch (place) {
    case BENCH_SAME:
        fprintf(out, "same: faulting threads and handler on core %d", cpus[0]);
        break;
    case BENCH_SPLIT:
        fprintf(out, "split: faulting threads on core %d, handler on core %d, both sleep", cpus[0],
                cpus[1]);
        break;
    case BENCH_AWAKE:
        fprintf(out,
                "awake: faulting threads on core %d, handler on core %d, idle cores not halted",
                cpus[0], cpus[1]);
        break;
    default:
        fprintf(out, "free: threads not bound to cores");
        break;
    }
}

static void print_block(FILE *out, const struct bench_results *res, enum bench_place place,
                        unsigned n_threads)
{
    const struct bench_job *ping =
        bench_find_job(res, BENCH_PING_PONG, NULL, place, BENCH_RANDOM, 1);

    if (!ping)
        return;
    print_place(out, res, place);
    fprintf(out, "; %u faulting thread%s\n", n_threads, n_threads == 1 ? "" : "s");
    print_heads(out);
    print_job(out, res, ping);
    for (unsigned i = 0; i < res->n_jobs; i++) {
        const struct bench_job *job = &res->jobs[i];

        if (job->place == place && job->n_threads == n_threads && job->kind != BENCH_PING_PONG)
            print_job(out, res, job);
    }
    fputc('\n', out);
}

static void print_rss(FILE *out, const struct bench_results *res)
{
    if (res->n_rss_jobs == 0) {
        fprintf(out, "memory and start-up of the handlers: %s\n\n", res->rss_note);
        return;
    }
    fprintf(out,
            "the handlers on a guest of %llu MiB, touched from end to end; KiB, and ms of CPU\n",
            (unsigned long long)(res->options->rss_size_bytes / MIB));
    fprintf(out, "%-28s%16s%12s%14s%14s\n", "handler", "RSS beyond file", "anonymous",
            "page tables", "start-up CPU");
    for (unsigned i = 0; i < res->n_rss_jobs; i++) {
        const double *m = res->rss_jobs[i].median;

        fprintf(out, "%-28s%16.0f%12.0f%14.0f", bench_job_name(&res->rss_jobs[i]),
                m[BENCH_RSS] / (double)KIB, m[BENCH_ANONYMOUS] / (double)KIB,
                m[BENCH_PAGETABLES] / (double)KIB);
        print_number(out, 13, 1, m[BENCH_START_CPU_NS] / 1e6);
        fputc('\n', out);
    }
    fputc('\n', out);
}

static void print_notes(FILE *out, const struct bench_results *res)
{
    fprintf(
        out,
        "Each figure is the median over the rounds of a run's own figure. p50, p90, p99: single\n"
        "touches, %s around the touch, its %.0f ns included. total: first touch to last\n"
        "thread's end. faults: the kernel's count in the touching threads. CPU: of all of the\n"
        "handler's threads by their schedstat, from the first touch to the last. RSS: smaps,\n"
        "without the memory file's mapping. guest: memory of the guest that is there after the\n"
        "touches, asked for or not. start-up CPU: what a handler did before the first timed\n"
        "touch; no other figure contains it. x ping: p50 to the p50 of a byte through a pipe and\n"
        "back, same placement. x file: total to that of a private mapping of the file, read.\n"
        "[anonymous]: first write. [file], [file-write]: private file mapping, read, written.\n"
        "The file was in the page cache; as much memory as the guest has was used and freed\n"
        "before each run.\n",
        res->clock_name, res->clock_overhead_ns);
    if (res->n_busy_runs > 0)
        fprintf(out, "NOTE: %u of %u runs began while others used the machine (see --idle-wait).\n",
                res->n_busy_runs, res->n_runs);
    if (IS_DEBUG_BUILD)
        fprintf(out, "NOTE: this thaw was built for debugging; its own figures mean little.\n");
    fputc('\n', out);
}

static void print_aims(FILE *out, const struct bench_results *res)
{
    struct bench_aim aims[BENCH_AIMS_MAX];
    unsigned n = bench_aims(res, aims);

    if (n == 0)
        return;
    fprintf(
        out,
        "aims (1 thread; latency and CPU: random, no fault-around; in brackets: single rounds)\n");
    for (unsigned i = 0; i < n; i++)
        fprintf(out, "  %-46s%7.2f (%.2f to %.2f) %s, aim %s %.1f: %s\n", aims[i].what,
                aims[i].figure, aims[i].low, aims[i].high, aims[i].unit,
                aims[i].at_least ? ">=" : "<=", aims[i].limit,
                bench_verdict_name(bench_aim_verdict(&aims[i])));
}

void bench_table_print(const struct bench_results *res, FILE *out)
{
    const struct bench_options *o = res->options;
    struct utsname host;

    if (uname(&host) < 0)
        host.release[0] = '\0';
    fprintf(out,
            "thaw %s bench fault: guest of %llu MiB in pages of %llu KiB, up to %u touches a run, "
            "%u rounds, seed %llu; Linux %s\n\n",
            THAW_VERSION, (unsigned long long)(o->size_bytes / MIB),
            (unsigned long long)(o->page_bytes / KIB), o->n_faults, o->n_rounds,
            (unsigned long long)o->seed, host.release);
    for (unsigned place = 0; place < BENCH_N_PLACES; place++) {
        for (unsigned t = 0; t < o->n_threads; t++)
            print_block(out, res, (enum bench_place)place, o->threads[t]);
    }
    print_rss(out, res);
    print_notes(out, res);
    print_aims(out, res);
}
