/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tinyvmm_steps.c - what virtual CPUs and VMM do to guest memory
 *
 * Each virtual CPU goes through its range in an order of its own: from a random block on, always the same random number of
 * blocks further, which has no divisor in common with the range's length, so that all are visited.
 */
#include "tinyvmm.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "uffd_peer.h"

#define DISCARD_MAX 32 /* units at once, in a storm */

uint64_t actor_random(struct actor *a)
{
    uint64_t x = a->rng;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    a->rng = x;
    return x * 0x2545f4914f6cdd1du >> 1;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

static bool go_through(struct actor *a, uint32_t code)
{
    const struct step *s = a->step;
    struct guest_job job = {.code = code, .first = s->first, .end = s->end, .stride = 1};
    uint64_t n = s->end - s->first;

    job.start = s->first + actor_random(a) % n;
    if (n > 1) {
        do
            job.stride = 1 + actor_random(a) % (n - 1);
        while (common_divisor(n, job.stride) != 1);
    }
    return cpu_run(a, &job);
}

/* All blocks of the range were accessed, unless the guest gave up. */
static void touch(struct actor *a)
{
    uint64_t b;

    for (b = a->step->first; b < a->step->end; b++)
        atomic_store(&a->m->ram->touched[b], 1);
}

static void walk(struct actor *a)
{
    uint64_t i;

    for (i = 0; i < a->step->rounds; i++) {
        if (!go_through(a, guest_walk))
            return;
    }
    touch(a);
}

static void fill(struct actor *a)
{
    uint64_t i;

    for (i = 0; i < a->step->rounds; i++) {
        if (!go_through(a, guest_fill))
            return;
    }
}

/* ---- storm: everything at once ---- */

static void storm_cpu(struct actor *a)
{
    while (!atomic_load(&a->step->over)) {
        if (!go_through(a, actor_random(a) % 2 ? guest_fill : guest_walk))
            return;
    }
    (void)go_through(a, guest_walk);
}

static uint64_t units_per_step(const struct actor *a, uint64_t *first)
{
    unsigned shift = a->m->ram->unit_shift - 12;
    uint64_t each = 1ull << shift;

    *first = (a->step->first + each - 1) >> shift;
    return (a->step->end >> shift) - *first;
}

static bool was_told(void)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};

    return poll(&in, 1, 0) != 0;
}

static void read_line(void)
{
    char c;

    while (read(STDIN_FILENO, &c, 1) == 1 && c != '\n')
        ;
}

static void storm_vmm(struct actor *a)
{
    struct step *s = a->step;
    uint64_t first, i, n_units = units_per_step(a, &first);

    printf("storming\n");
    fflush(stdout);
    for (i = 1; s->hold ? !was_told() : i <= s->n; i++) {
        uint64_t unit = first + actor_random(a) % n_units, n = 1 + actor_random(a) % DISCARD_MAX;

        (void)ram_discard(a, unit, n < first + n_units - unit ? n : first + n_units - unit);
        if (s->reslot && i % s->reslot == 0) {
            machine_reslot(a->m, 1);
            a->tally.reslots++;
        }
        if (s->collect && i % s->collect == 0)
            machine_collect_log(a->m);
        usleep(s->pause_us);
    }
    if (s->hold)
        read_line();
    atomic_store(&s->over, true);
}

/* ---- the VMM by itself ---- */

static void discard(struct actor *a)
{
    uint64_t first, n = units_per_step(a, &first), end = first + n, unit = first;

    while (unit < end) {
        n = ram_discard(a, unit, end - unit);
        if (n == 0)
            peer_die(PEER_EXIT_USAGE, 0, "unit %llu is being changed", (unsigned long long)unit);
        unit += n;
    }
}

static void verify(struct actor *a)
{
    uint64_t b;

    for (b = 0; b < a->m->ram->n_blocks; b++)
        ram_check(a, b);
}

static void reslot(struct actor *a)
{
    machine_reslot(a->m, 0);
    a->tally.reslots++;
}

static void log_on(struct actor *a)
{
    machine_log(a->m, true);
}

static void log_off(struct actor *a)
{
    machine_log(a->m, false);
}

static void collect(struct actor *a)
{
    machine_collect_log(a->m);
}

static void forget(struct actor *a)
{
    uint64_t b;

    machine_collect_log(a->m);
    for (b = 0; b < a->m->ram->n_blocks; b++)
        atomic_store(&a->m->logged[b], 0);
}

static bool is_written(const struct ram *ram, uint64_t b)
{
    uint32_t state = atomic_load(&ram->states[b]);

    return b >= GUEST_PROGRAM_BLOCKS && !(state & STATE_ZERO) && state >> STATE_GENERATION_SHIFT;
}

/* pages_write() - one line for each block that something is known of: W written, L logged, T touched */
static void pages_write(const struct actor *a)
{
    const struct ram *ram = a->m->ram;
    FILE *f = fopen(a->pages_path, "we");
    uint64_t b;

    if (!f)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot write %s", a->pages_path);
    for (b = 0; b < ram->n_blocks; b++) {
        fprintf(f, "%llu %s%s%s\n", (unsigned long long)b, is_written(ram, b) ? "W" : "",
                atomic_load(&a->m->logged[b]) ? "L" : "", atomic_load(&ram->touched[b]) ? "T" : "");
    }
    if (fclose(f) != 0)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot write %s", a->pages_path);
}

/* Until there is a line on standard input, so that others can look. */
static void pause_step(struct actor *a)
{
    if (a->pages_path)
        pages_write(a);
    printf("paused\n");
    fflush(stdout);
    read_line();
}

const struct step_kind step_kinds[] = {
    {"walk", walk, NULL, 0, "the guest reads all blocks"},
    {"fill", fill, NULL, 0, "the guest changes all blocks"},
    {"storm", storm_cpu, storm_vmm, 200, "the guest does both, while the VMM discards n times"},
    {"discard", NULL, discard, 0, "the VMM discards all units"},
    {"verify", NULL, verify, 0, "the VMM reads all blocks, also those of the guest's program"},
    {"reslot", NULL, reslot, 0, "the VMM deletes all memory slots and sets them again"},
    {"log", NULL, log_on, 0, "the VMM switches the dirty log on"},
    {"collect", NULL, collect, 0, "the VMM reads the dirty log"},
    {"forget", NULL, forget, 0, "the VMM reads the dirty log and forgets what was in it"},
    {"nolog", NULL, log_off, 0, "the VMM reads the dirty log and switches it off"},
    {"pause", NULL, pause_step, 0, "wait for a line on standard input"},
    {NULL, NULL, NULL, 0, NULL},
};
