/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_AHEAD_H
#define CLI_BENCH_AHEAD_H

/*
 * ahead.h - `thaw bench ahead NAME`: what installing ahead of the guest costs, and what it saves
 *
 *     ahead.c         options, rounds
 *     ahead_cases.c   which cases each measurement has
 *     ahead_run.c     one run of a case: a server, a guest, a deadline
 *     ahead_server.c  the server's process: Thaw as a library, or a bare loop of UFFDIO_COPY
 *     ahead_slow.c    a source of bytes with a delay
 *     ahead_guest.c   the guest's process
 *     ahead_aims.c    what is meant to be reached
 *     ahead_report.c  table and JSON
 */

#include <signal.h>

#include "cli/bench/aims.h"
#include "cli/bench/image.h"
#include "cli/bench/job.h"
#include "cli/bench/plan.h"
#include "cli/bench/sample.h"

enum {
    AHEAD_CASES_MAX = 48,
    AHEAD_AIMS_MAX = 40,
};

enum ahead_measurement {
    AHEAD_BULK,
    AHEAD_SCATTERED,
    AHEAD_LATENCY,
    AHEAD_THROUGHPUT,
    AHEAD_HUGE,
    AHEAD_REMOVE,
    AHEAD_N_MEASUREMENTS,
};

/** enum ahead_server - who answers */
enum ahead_server {
    AHEAD_NOBODY, /* the kernel: a private mapping of the file, or of nothing */
    AHEAD_THAW,
    AHEAD_RAW, /* a loop of UFFDIO_COPY from a mapping whose pages are there: the most that the kernel gives */
};

/** enum ahead_bytes - where the file's bytes are when the run begins */
enum ahead_bytes {
    AHEAD_WARM, /* in the page cache */
    AHEAD_COLD, /* on the disk */
    AHEAD_SLOW, /* in memory, behind a source (struct thaw_source_ops) whose fetch() takes a millisecond each time */
};

/** enum ahead_work - what the guest does once it runs */
enum ahead_work {
    AHEAD_WAIT,     /* nothing; the server says when all is installed */
    AHEAD_TOUCH,    /* touch the plan's pages, all of them */
    AHEAD_SAMPLE,   /* touch single pages for as long as the server installs others */
    AHEAD_DISCARD,  /* madvise(MADV_DONTNEED) single pages that are not there, likewise */
    AHEAD_DISCARDS, /* the same for ranges that are there, of five lengths */
    AHEAD_PING,     /* no memory: a byte to another process and back */
};

/** enum ahead_figure - what is known of one run; NAN where it does not apply */
enum ahead_figure {
    AHEAD_RATE_BPS,  /* bytes a second installed ahead */
    AHEAD_TOTAL_NS,  /* from the first touch to the last thread's end */
    AHEAD_BEFORE_NS, /* from the handshake to the permission to resume */
    AHEAD_FIRST_NS,  /* of that, to the end of the first burst or turn: setting up is in it */
    AHEAD_P50_NS,    /* of single touches, discards or round trips */
    AHEAD_P99_NS,    /* likewise */
    AHEAD_N_SAMPLES, /* of them */
    AHEAD_PER_S,     /* faults a second */
    AHEAD_FAULTS, /* that the guest waited for: as the pager counts, or the kernel where there is none */
    AHEAD_INSTALLED,  /* bytes that are there in the end */
    AHEAD_DISCARD_NS, /* median, of each of AHEAD_N_LENGTHS lengths */
    AHEAD_DISCARD_NS_LAST = AHEAD_DISCARD_NS + 4,
    AHEAD_N_FIGURES,
};

#define AHEAD_N_LENGTHS (AHEAD_DISCARD_NS_LAST - AHEAD_DISCARD_NS + 1)

/** struct ahead_case - one kind of run, and what its runs gave */
struct ahead_case {
    char name[64];
    enum ahead_server server;
    enum ahead_bytes bytes;
    enum ahead_work work;
    enum bench_place place;
    bool is_large;     /* the guest that has four times the size */
    bool is_anonymous; /* AHEAD_NOBODY: of nothing */
    bool
        is_unmapped; /* AHEAD_RAW: the file's pages are not in the mapping's page table yet, as in a pager that starts */
    bool is_read;         /* AHEAD_RAW: the bytes are read into a buffer instead */
    const char *set_path; /* working set to be installed, NULL: none (borrow) */
    uint64_t before_bytes;
    uint64_t
        set_bytes; /* AHEAD_SAMPLE, AHEAD_DISCARD: so much of the guest is installed meanwhile, 0: nothing */
    uint64_t
        slice_bytes; /* of a copy, of what is installed between two looks at the messages; 0: the pager's own */
    uint64_t around_bytes;
    uint64_t page_bytes;
    unsigned n_threads; /* that touch; of AHEAD_RAW: that copy */
    double (*runs)[AHEAD_N_FIGURES];
    unsigned n_runs;
    double median[AHEAD_N_FIGURES];
};

/** struct ahead - everything of one measurement */
struct ahead {
    enum ahead_measurement what;
    uint64_t size_bytes;
    unsigned n_faults;
    unsigned n_rounds;
    unsigned deadline_s;
    unsigned idle_wait_s;
    uint64_t seed;
    const char *case_words; /* NULL: all cases */
    const char *dir_path;
    const char *json_path;

    char dir[200];
    int cpus[2];
    struct bench_clock clock;
    struct bench_image image;
    struct bench_image large; /* size 0: not needed */
    struct bench_plan
        plan;             /* of the working set in image, or single pages of large's last quarter */
    char set_path[256];   /* the working set of the plan */
    char all_path[256];   /* all of image */
    char one_path[256];   /* the first quarter of large */
    char three_path[256]; /* the first three quarters of large */
    struct ahead_case cases[AHEAD_CASES_MAX];
    unsigned n_cases;
    char note[200]; /* what was left out, "" if nothing */
    unsigned n_runs;
    unsigned n_busy_runs;
};

extern const uint64_t ahead_lengths[AHEAD_N_LENGTHS]; /* of AHEAD_DISCARDS */

/** bench_ahead() - the verb; @argv[0] is "ahead". Return: exit status */
int bench_ahead(int argc, char **argv);

const char *ahead_name(enum ahead_measurement what);
const char *ahead_figure_name(enum ahead_figure figure);

/** ahead_make_cases() - those of the measurement, and the files they need. Return: 0 or a negative errno with a text */
int ahead_make_cases(struct ahead *a);

/** ahead_find() - the case of this name, NULL: there is none */
const struct ahead_case *ahead_find(const struct ahead *a, const char *name);

/**
 * ahead_run() - one run of @c
 * @figures: set on success
 *
 * What it started is gone when it returns. Return: 0 or a negative errno with a text.
 */
int ahead_run(struct ahead *a, const struct ahead_case *c, double figures[AHEAD_N_FIGURES],
              const volatile sig_atomic_t *interrupted);

/** ahead_aims() - those for which everything was measured. Return: how many of @aims were set */
unsigned ahead_aims(const struct ahead *a, struct bench_aim aims[AHEAD_AIMS_MAX]);

void ahead_print(const struct ahead *a);

/** ahead_write_json() - Return: 0 or a negative errno with a text */
int ahead_write_json(const struct ahead *a, const char *path);

#endif
