/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_pager.c - a pager that serves nobody: makes a state file as asked and holds it
 *
 *     fake_pager DIR PAGE_SHIFT STEP...
 *
 *     region=HVA,BYTES,OFFSET     guest memory; all regions come before the other steps
 *     EVENT=FIRST,END             what happened to pages [FIRST, END): an event of core/page_states.def
 *     guest=SEED                  what a guest's memory looks like some seconds after a restore
 *     faults=N                    N faults were served, at about 8 us each
 *     memory=PATH, vmm=PID        what the header says is served, and whom
 *
 * Prints the state file's name when it is there, then waits until its input ends, and ends without
 * removing the file, as a pager does that is killed. Numbers are decimal or 0x-hexadecimal.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "core/geom.h"
#include "pager/state_file.h"

#define MAX_REGIONS 64u

static __attribute__((noreturn)) void die(const char *what, const char *about)
{
    (void)fprintf(stderr, "fake_pager: %s: %s\n", what, about);
    exit(2);
}

/* Up to three numbers separated by commas; fewer are an error. */
static void numbers(const char *text, unsigned n, uint64_t out[3])
{
    const char *at = text;

    for (unsigned i = 0; i < n; i++) {
        char *end = NULL;

        out[i] = strtoull(at, &end, 0);
        if (end == at || *end != (i + 1 < n ? ',' : '\0'))
            die("not the numbers that were expected", text);
        at = end + 1;
    }
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void happened(struct block *b, enum page_event ev, pgno_t first, pgno_t end)
{
    for (pgno_t p = first; p < end && p < b->header->n_pages; p++) {
        if (page_edges[ev][pagetab_get(&b->pages, p)] != PAGE_NO_EDGE)
            pagetab_step(&b->pages, ev, p, p + 1);
    }
}

/*
 * Runs of installed pages, some written to; 2 MiB pieces given back, a few of which were touched
 * again.
 */
static void guest_pattern(struct block *b, uint64_t seed)
{
    pgno_t n = b->header->n_pages;
    pgno_t piece = max_u64(1, (2 * MIB) >> b->header->page_shift);
    uint64_t rnd = seed * 0x9e3779b97f4a7c15ull + 1;

    for (unsigned i = 0; i < 400; i++) {
        pgno_t first = next_random(&rnd) % n;
        pgno_t len = 1 + next_random(&rnd) % max_u64(1, n / 1500);

        happened(b, PAGE_EV_INSTALL, first, first + len);
        if (next_random(&rnd) % 3 == 0)
            happened(b, PAGE_EV_WRITTEN, first, first + len / 2 + 1);
    }
    for (unsigned i = 0; i < 2000; i++) {
        pgno_t first = next_random(&rnd) % n;

        happened(b, PAGE_EV_INSTALL, first, first + 1 + next_random(&rnd) % 16);
    }
    for (unsigned i = 0; i < 40; i++) {
        pgno_t first = (n / 2 + next_random(&rnd) % (n / 3 + 1)) / piece * piece;

        happened(b, PAGE_EV_REMOVE, first, first + piece * (1 + next_random(&rnd) % 2));
        if (next_random(&rnd) % 3 == 0)
            happened(b, PAGE_EV_ZEROFILL, first, first + piece / 3 + 1);
    }
}

static void count_faults(struct block *b, uint64_t n)
{
    struct counters *c = &b->header->counters;

    for (uint64_t i = 0; i < n; i++)
        hist_add(&b->header->fault_ns, 7000 + i * 37 % 4000);
    c->faults = n;
    c->pages_installed = n * 3;
    c->pages_around = n * 2;
    c->pages_zeroed = n / 10;
    c->pages_removed = n / 5;
    c->pages_refaulted = n / 20;
}

static bool named_event(const char *name, size_t len, enum page_event *ev)
{
    for (unsigned i = 0; i < N_PAGE_EVENTS; i++) {
        if (strlen(page_event_names[i]) == len && strncmp(page_event_names[i], name, len) == 0) {
            *ev = (enum page_event)i;
            return true;
        }
    }
    return false;
}

static void step(struct block *b, const char *text)
{
    const char *value = strchr(text, '=');
    size_t len = value ? (size_t)(value - text) : 0;
    uint64_t n[3] = {0};
    enum page_event ev;

    if (!value)
        die("not a step", text);
    value++;
    if (strncmp(text, "memory=", 7) == 0) {
        (void)snprintf(b->header->memory_path, sizeof(b->header->memory_path), "%s", value);
    } else if (named_event(text, len, &ev)) {
        numbers(value, 2, n);
        if (n[0] >= n[1] || n[1] > b->header->n_pages)
            die("not a range of pages", text);
        pagetab_step(&b->pages, ev, n[0], n[1]);
    } else {
        numbers(value, 1, n);
        if (strncmp(text, "guest=", 6) == 0)
            guest_pattern(b, n[0]);
        else if (strncmp(text, "faults=", 7) == 0)
            count_faults(b, n[0]);
        else if (strncmp(text, "vmm=", 4) == 0)
            b->header->vmm_pid = (int32_t)n[0];
        else
            die("not a step", text);
    }
}

int main(int argc, char **argv)
{
    static struct geom_region regions[MAX_REGIONS];
    struct state_facts facts = {.memory_path = ""};
    struct state_file state;
    struct geom geom;
    unsigned n_regions = 0;
    uint64_t n[3];
    char byte;
    hva_t bad;
    int i = 3;

    if (argc < 4)
        die("arguments", "DIR PAGE_SHIFT STEP...");
    for (; i < argc && strncmp(argv[i], "region=", 7) == 0 && n_regions < MAX_REGIONS; i++) {
        numbers(argv[i] + 7, 3, n);
        regions[n_regions++] = (struct geom_region){.hva = n[0], .len_bytes = n[1], .imgoff = n[2]};
    }
    numbers(argv[2], 1, n);
    if (n_regions == 0 || geom_init(&geom, regions, n_regions, (unsigned)n[0], &bad) != 0)
        die("regions", "none, or not aligned, or overlapping");
    if (state_file_new(&state, argv[1], &geom, &facts) < 0)
        die("state file", err_text());
    state.block.header->vmm_pid = getpid();
    state.block.header->start_time_ns = clock_wall_ns();
    for (; i < argc; i++)
        step(&state.block, argv[i]);
    (void)printf("%s\n", state.path);
    (void)fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        continue;
    return 0;
}
