/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ahead_cases.c - which cases each measurement has
 *
 * A case's name says all that tells it from the others: "replay, cold file". The aims find them by name.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <thaw/thaw.h>

#include "base/err.h"
#include "base/procfs.h"
#include "cli/bench/ahead.h"
#include "cli/bench/vmm.h"
#include "image/workingset.h"

#define PAGE_BYTES  4096u
#define HUGE_BYTES  (2 * MIB)
#define LARGE_TIMES 4u

static struct ahead_case *add(struct ahead *a, const char *name, const struct ahead_case *c)
{
    struct ahead_case *added = &a->cases[a->n_cases++];

    assert(a->n_cases <= AHEAD_CASES_MAX);
    *added = *c;
    (void)snprintf(added->name, sizeof(added->name), "%s", name);
    if (added->page_bytes == 0)
        added->page_bytes = PAGE_BYTES;
    if (added->n_threads == 0)
        added->n_threads = 1;
    return added;
}

static void add_in_place(struct ahead *a, const char *name, struct ahead_case c,
                         enum bench_place place)
{
    char full[64];

    c.place = place;
    (void)snprintf(full, sizeof(full), "%s, %s", name, bench_place_name(place));
    (void)add(a, full, &c);
}

const struct ahead_case *ahead_find(const struct ahead *a, const char *name)
{
    for (unsigned i = 0; i < a->n_cases; i++) {
        if (strcmp(a->cases[i].name, name) == 0)
            return &a->cases[i];
    }
    return NULL;
}

/* ---- working sets --------------------------------------------------------------------------------------------- */

static int write_set(const struct workingset *ws, const char *path)
{
    return workingset_write(ws, path);
}

static int make_plan_set(const struct ahead *a, const char *path)
{
    _cleanup_(workingset_freep) struct workingset *ws = NULL;
    int r = workingset_new(&ws, 12, a->image.size_bytes);

    for (uint32_t i = 0; r == 0 && i < a->plan.n; i++)
        r = workingset_add(ws, &(struct workingset_entry){.unit = a->plan.pages[i]});
    return r < 0 ? r : write_set(ws, path);
}

/* The first @bytes of the image, in the order of the file. */
static int make_set(const struct bench_image *image, uint64_t bytes, const char *path)
{
    _cleanup_(workingset_freep) struct workingset *ws = NULL;
    int r = workingset_new(&ws, 12, image->size_bytes);

    for (uint64_t unit = 0; r == 0 && unit < bytes / PAGE_BYTES; unit++)
        r = workingset_add(ws, &(struct workingset_entry){.unit = unit});
    return r < 0 ? r : write_set(ws, path);
}

/* Single pages of the last quarter of the large guest, in no order. */
static int plan_last_quarter(struct ahead *a)
{
    uint32_t quarter = (uint32_t)(a->size_bytes / PAGE_BYTES);
    uint32_t reserved = (uint32_t)(bench_reserved_bytes(PAGE_BYTES) / PAGE_BYTES);
    int r = bench_plan_init(&a->plan, BENCH_RANDOM, quarter - reserved, a->n_faults, a->seed);

    for (uint32_t i = 0; r == 0 && i < a->plan.n; i++)
        a->plan.pages[i] += 3 * quarter;
    return r;
}

static int make_files(struct ahead *a)
{
    bool is_large = a->what == AHEAD_LATENCY || a->what == AHEAD_REMOVE;
    bool is_random = a->what == AHEAD_THROUGHPUT;
    uint64_t n_pages = (a->size_bytes - bench_reserved_bytes(PAGE_BYTES)) / PAGE_BYTES;
    int r;

    (void)snprintf(a->set_path, sizeof(a->set_path), "%s/plan.ws", a->dir);
    (void)snprintf(a->all_path, sizeof(a->all_path), "%s/all.ws", a->dir);
    (void)snprintf(a->one_path, sizeof(a->one_path), "%s/one.ws", a->dir);
    (void)snprintf(a->three_path, sizeof(a->three_path), "%s/three.ws", a->dir);
    if (is_large) {
        r = bench_image_create(&a->large, a->dir, "memory-large", LARGE_TIMES * a->size_bytes,
                               false);
        if (r == 0)
            r = make_set(&a->large, a->size_bytes, a->one_path);
        if (r == 0)
            r = make_set(&a->large, 3 * a->size_bytes, a->three_path);
        return r < 0 ? r : plan_last_quarter(a);
    }
    r = bench_image_create(&a->image, a->dir, "memory", a->size_bytes, false);
    if (r == 0)
        r = bench_plan_init(&a->plan, is_random ? BENCH_RANDOM : BENCH_SCATTERED, (uint32_t)n_pages,
                            is_random ? a->n_faults : UINT32_MAX, a->seed);
    if (r == 0)
        r = make_plan_set(a, a->set_path);
    return r < 0 ? r : make_set(&a->image, a->size_bytes, a->all_path);
}

/* ---- cases ---------------------------------------------------------------------------------------------------- */

static void add_bulk(struct ahead *a)
{
    static const unsigned raw_kib[] = {4, 16, 32, 64, 256, 2048};
    static const unsigned slice_kib[] = {16, 32, 64, 128};
    struct ahead_case raw = {.server = AHEAD_RAW, .work = AHEAD_WAIT};
    struct ahead_case thaw = {.server = AHEAD_THAW, .work = AHEAD_WAIT, .set_path = a->all_path};
    char name[64];

    for (unsigned i = 0; i < ARRAY_LEN(raw_kib); i++) {
        raw.slice_bytes = raw_kib[i] * KIB;
        raw.place = BENCH_SPLIT;
        (void)snprintf(name, sizeof(name), "bare ioctl, %u KiB", raw_kib[i]);
        (void)add(a, name, &raw);
    }
    for (unsigned kib = 32; kib <= 64; kib *= 2) {
        struct ahead_case other = raw;

        other.slice_bytes = kib * KIB;
        other.is_unmapped = true;
        (void)snprintf(name, sizeof(name), "the same, file not mapped yet, %u KiB", kib);
        (void)add(a, name, &other);
        other.is_read = true;
        (void)snprintf(name, sizeof(name), "pread and ioctl, %u KiB", kib);
        (void)add(a, name, &other);
    }
    raw.n_threads = 2;
    raw.slice_bytes = 256 * KIB;
    raw.place = BENCH_FREE;
    (void)add(a, "bare ioctl, 256 KiB, 2 threads", &raw);
    thaw.place = BENCH_SPLIT;
    for (unsigned i = 0; i < ARRAY_LEN(slice_kib); i++) {
        thaw.slice_bytes = slice_kib[i] * KIB;
        (void)snprintf(name, sizeof(name), "after resume, slices of %u KiB", slice_kib[i]);
        (void)add(a, name, &thaw);
    }
    thaw.slice_bytes = 0;
    thaw.before_bytes = UINT64_MAX;
    (void)add(a, "before resume, 1 thread", &thaw);
    thaw.place = BENCH_FREE;
    (void)add(a, "before resume, 2 threads", &thaw);
}

/* One way for the bytes to be, in one placement. */
static void add_scattered_in(struct ahead *a, enum ahead_bytes bytes, enum bench_place place)
{
    static const char *const names[] = {"warm", "cold", "slow"};
    struct ahead_case c = {.bytes = bytes, .work = AHEAD_TOUCH, .server = AHEAD_THAW};
    char name[48];

    (void)snprintf(name, sizeof(name), "demand only, 4 KiB, %s", names[bytes]);
    add_in_place(a, name, c, place);
    c.around_bytes = THAW_FAULT_AROUND_DEFAULT;
    (void)snprintf(name, sizeof(name), "demand only, 64 KiB, %s", names[bytes]);
    add_in_place(a, name, c, place);
    c.set_path = a->set_path;
    (void)snprintf(name, sizeof(name), "replay while it runs, %s", names[bytes]);
    add_in_place(a, name, c, place);
    c.before_bytes = UINT64_MAX;
    (void)snprintf(name, sizeof(name), "replay before resume, %s", names[bytes]);
    add_in_place(a, name, c, place);
    c = (struct ahead_case){.bytes = bytes, .work = AHEAD_TOUCH, .server = AHEAD_NOBODY};
    (void)snprintf(name, sizeof(name), "file mapping, %s", names[bytes]);
    if (bytes != AHEAD_SLOW)
        add_in_place(a, name, c, place);
}

static void add_scattered(struct ahead *a, bool has_awake)
{
    add_scattered_in(a, AHEAD_WARM, BENCH_FREE);
    if (has_awake)
        add_scattered_in(a, AHEAD_WARM, BENCH_AWAKE);
    add_scattered_in(a, AHEAD_COLD, BENCH_FREE);
    add_scattered_in(a, AHEAD_SLOW, BENCH_FREE);
}

static void add_latency_in(struct ahead *a, enum bench_place place)
{
    static const unsigned slice_kib[] = {16, 32, 64, 128};
    struct ahead_case c = {.server = AHEAD_THAW, .is_large = true};
    char name[48];

    for (unsigned work = AHEAD_SAMPLE; work <= AHEAD_DISCARD; work++) {
        const char *what = work == AHEAD_SAMPLE ? "faults" : "discards";

        c.work = (enum ahead_work)work;
        c.set_path = NULL;
        c.set_bytes = 0;
        c.slice_bytes = 0;
        (void)snprintf(name, sizeof(name), "%s, nothing else", what);
        add_in_place(a, name, c, place);
        c.set_path = a->three_path;
        c.set_bytes = 3 * a->size_bytes;
        for (unsigned i = 0; i < ARRAY_LEN(slice_kib); i++) {
            c.slice_bytes = slice_kib[i] * KIB;
            (void)snprintf(name, sizeof(name), "%s, slices of %u KiB", what, slice_kib[i]);
            add_in_place(a, name, c, place);
        }
    }
}

static void add_throughput_in(struct ahead *a, enum bench_place place)
{
    struct ahead_case c = {.work = AHEAD_TOUCH};
    char name[40];

    for (unsigned n = 1; n <= 8; n *= 2) {
        c.n_threads = n;
        c.server = AHEAD_THAW;
        (void)snprintf(name, sizeof(name), "%u threads", n);
        add_in_place(a, name, c, place);
        c.server = AHEAD_RAW;
        (void)snprintf(name, sizeof(name), "%u threads, bare handler", n);
        add_in_place(a, name, c, place);
    }
}

static void add_huge(struct ahead *a)
{
    uint64_t free_pages = 0;
    uint64_t needed = 2 * a->size_bytes / HUGE_BYTES;
    struct ahead_case c = {.server = AHEAD_THAW, .work = AHEAD_TOUCH, .place = BENCH_FREE};

    c.around_bytes = THAW_FAULT_AROUND_DEFAULT;
    (void)add(a, "demand only, 4 KiB pages", &c);
    c.set_path = a->set_path;
    c.before_bytes = UINT64_MAX;
    (void)add(a, "replay, 4 KiB pages", &c);
    (void)procfs_field_u64("/proc/meminfo", "HugePages_Free", 10, &free_pages);
    if (free_pages < needed) {
        (void)snprintf(a->note, sizeof(a->note),
                       "without pages of 2 MiB: %ju are free, %ju are needed (vm.nr_hugepages)",
                       (uintmax_t)free_pages, (uintmax_t)needed);
        return;
    }
    c.page_bytes = HUGE_BYTES;
    c.around_bytes = 0;
    (void)add(a, "replay, 2 MiB pages", &c);
    c.set_path = NULL;
    c.before_bytes = 0;
    (void)add(a, "demand only, 2 MiB pages", &c);
}

static void add_remove_in(struct ahead *a, enum bench_place place)
{
    struct ahead_case c = {.server = AHEAD_THAW, .work = AHEAD_DISCARDS, .is_large = true};

    c.before_bytes = a->size_bytes;
    c.set_path = a->one_path;
    add_in_place(a, "pager idle", c, place);
    c.set_path = a->three_path;
    add_in_place(a, "pager busy", c, place);
    c = (struct ahead_case){.work = AHEAD_DISCARDS, .is_large = true, .is_anonymous = true};
    add_in_place(a, "no userfaultfd", c, place);
    c = (struct ahead_case){
        .server = AHEAD_RAW, .work = AHEAD_DISCARDS, .is_large = true, .slice_bytes = 256 * KIB};
    add_in_place(a, "userfaultfd, no events", c, place);
    c = (struct ahead_case){.work = AHEAD_PING, .is_large = true};
    add_in_place(a, "ping-pong", c, place);
}

/* add_cases() - with two cores: sleeping ones, and if they can be kept awake, these */
static void add_cases(struct ahead *a)
{
    static void (*const in_place[AHEAD_N_MEASUREMENTS])(struct ahead *, enum bench_place) = {
        [AHEAD_LATENCY] = add_latency_in,
        [AHEAD_THROUGHPUT] = add_throughput_in,
        [AHEAD_REMOVE] = add_remove_in,
    };
    bool has_awake = a->cpus[1] >= 0 && access("/dev/cpu_dma_latency", W_OK) == 0;

    if (!has_awake)
        (void)snprintf(a->note, sizeof(a->note),
                       "nothing was measured on cores that are kept awake (two cores and "
                       "/dev/cpu_dma_latency are needed)");
    switch (a->what) {
    case AHEAD_BULK:
        add_bulk(a);
        return;
    case AHEAD_SCATTERED:
        add_scattered(a, has_awake);
        return;
    case AHEAD_HUGE:
        add_huge(a);
        return;
    default:
        in_place[a->what](a, a->cpus[1] >= 0 ? BENCH_SPLIT : BENCH_FREE);
        if (has_awake)
            in_place[a->what](a, BENCH_AWAKE);
        if (a->what == AHEAD_LATENCY && a->cpus[1] >= 0)
            in_place[a->what](a, BENCH_FREE); /* where a second thread installs */
    }
}

/* keep_cases() - those whose names contain the words */
static int keep_cases(struct ahead *a)
{
    unsigned n = 0;

    for (unsigned i = 0; i < a->n_cases; i++) {
        if (strstr(a->cases[i].name, a->case_words))
            a->cases[n++] = a->cases[i];
    }
    a->n_cases = n;
    return n > 0 ? 0 : err_origin(-EINVAL, "no case has \"%s\" in its name", a->case_words);
}

int ahead_make_cases(struct ahead *a)
{
    int r = 0;

    add_cases(a);
    if (a->case_words)
        r = keep_cases(a);
    return r < 0 ? r : make_files(a);
}
