/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tinyvmm.c - a VMM with a guest of 400 bytes, that checks every byte
 *
 *     tinyvmm --make-file FILE --size 8M --seed 7
 *     tinyvmm --socket S --size 8M --seed 7 [option]... STEP...
 *     tinyvmm --local --size 8M --seed 7 [option]... STEP...
 *
 * The first line writes a memory file, with the guest's program in it; the second restores a virtual machine from it, its memory
 * served by the pager at S, and goes through the steps; the third does the same without a pager, which shows whether the KVM at
 * hand can do it at all. A step is a name with numbers, such as "walk:cpus=2,rounds=3" (see step_kinds).
 *
 * Page faults here are raised by the kernel on behalf of KVM: while a virtual CPU is in KVM_RUN, or by a thread of the kernel.
 *
 * The first thread only starts the others and waits with a deadline: it never touches guest memory, so whatever the pager does
 * this program ends by itself and says what each thread was waiting for.
 *
 * Output: one line of JSON. Exit: as fakevmm.c; a guest that ends otherwise than it should (an exception, say) is 1 as well, for
 * wrong bytes are the likely cause.
 */
#include "tinyvmm.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "uffd_peer.h"

#define STEPS_MAX  32
#define ACTORS_MAX (CPUS_MAX + 1)

struct settings {
    struct machine_plan plan;
    const char *make_file;
    const char *socket_path;
    const char *pages_path;
    bool local;
    uint64_t size_bytes;
    unsigned timeout_s;
    struct step steps[STEPS_MAX];
    unsigned n_steps;
};

static pthread_mutex_t done_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done_cond;
static struct actor actors[ACTORS_MAX]; /* used again by each step; the last is the VMM's */
static atomic_uint n_errors_printed;

void actor_error(struct actor *a, const char *who, uint64_t block, unsigned word, uint32_t state,
                 uint64_t expected, uint64_t found)
{
    a->tally.errors++;
    if (atomic_fetch_add(&n_errors_printed, 1) < 8)
        fprintf(
            stderr,
            "wrong byte: %s, block %llu word %u expected %016llx found %016llx state %#x (%s)\n",
            who, (unsigned long long)block, word, (unsigned long long)expected,
            (unsigned long long)found, state, a->step->kind->name);
}

static void *actor_main(void *arg)
{
    struct actor *a = arg;

    if (a->cpu)
        a->step->kind->cpu(a);
    else
        a->step->kind->vmm(a);
    pthread_mutex_lock(&done_mutex);
    atomic_store(&a->done, true);
    pthread_cond_signal(&done_cond);
    pthread_mutex_unlock(&done_mutex);
    return NULL;
}

static void report_stuck(const struct step *step)
{
    unsigned i;

    fprintf(stderr, "stuck in step %s\n", step->kind->name);
    for (i = 0; i < ACTORS_MAX; i++) {
        const struct actor *a = &actors[i];

        if (atomic_load(&a->done))
            continue;
        if (a->cpu)
            fprintf(stderr, "virtual CPU %u at block %u\n", i, atomic_load(&a->m->ram->doing[i]));
        else
            fprintf(stderr, "the VMM\n");
    }
    fflush(NULL);
    _exit(PEER_EXIT_STUCK);
}

/* wait_all() - until all actors are done; ends the process at the deadline */
static void wait_all(const struct step *step, const struct timespec *deadline)
{
    unsigned i = 0;
    int r = 0;

    pthread_mutex_lock(&done_mutex);
    while (i < ACTORS_MAX && r != ETIMEDOUT) {
        if (atomic_load(&actors[i].done))
            i++;
        else
            r = pthread_cond_timedwait(&done_cond, &done_mutex, deadline);
    }
    pthread_mutex_unlock(&done_mutex);
    if (i < ACTORS_MAX)
        report_stuck(step);
}

static void run_step(struct step *step, const struct timespec *deadline)
{
    bool used[ACTORS_MAX];
    unsigned i;
    int r;

    for (i = 0; i < ACTORS_MAX; i++) {
        struct actor *a = &actors[i];

        used[i] = a->cpu ? step->kind->cpu && i < step->n_cpus : step->kind->vmm != NULL;
        a->step = step;
        atomic_store(&a->done, !used[i]);
        r = used[i] ? pthread_create(&a->thread, NULL, actor_main, a) : 0;
        if (r)
            peer_die(PEER_EXIT_ABSENT, r, "pthread_create");
    }
    wait_all(step, deadline);
    for (i = 0; i < ACTORS_MAX; i++) {
        if (used[i])
            pthread_join(actors[i].thread, NULL);
    }
}

/* units_with() - in how many units at least one block has its bit */
static uint64_t units_with(const struct ram *ram, const _Atomic uint8_t *bits)
{
    uint64_t b, n = 0, last = UINT64_MAX, unit;

    for (b = 0; b < ram->n_blocks; b++) {
        unit = b >> (ram->unit_shift - 12);
        if (atomic_load(&bits[b]) && unit != last) {
            last = unit;
            n++;
        }
    }
    return n;
}

static int report(const struct machine *m)
{
    const struct ram *ram = m->ram;
    struct tally t = {0};
    unsigned i;

    for (i = 0; i < ACTORS_MAX; i++) {
        const struct tally *one = &actors[i].tally;

        t.blocks += one->blocks;
        t.raced += one->raced;
        t.discards += one->discards;
        t.units_discarded += one->units_discarded;
        t.reslots += one->reslots;
        t.mmio += one->mmio;
        t.interrupted += one->interrupted;
        t.errors += one->errors;
    }
    printf("{\"seed\":%llu,\"pages\":%llu,\"page_bytes\":%llu,\"regions\":%u,\"touched\":%llu,"
           "\"logged\":%llu,\"blocks\":%llu,"
           "\"raced\":%llu,\"discards\":%llu,\"pages_discarded\":%llu,\"reslots\":%llu,\"mmio\":%"
           "llu,\"interrupted\":%llu,"
           "\"remaps\":0,\"cut\":false,\"errors\":%llu}\n",
           (unsigned long long)ram->image.seed,
           (unsigned long long)(ram->n_blocks >> (ram->unit_shift - 12)), 1ull << ram->unit_shift,
           ram->n_regions, (unsigned long long)units_with(ram, ram->touched),
           (unsigned long long)units_with(ram, m->logged), (unsigned long long)t.blocks,
           (unsigned long long)t.raced, (unsigned long long)t.discards,
           (unsigned long long)t.units_discarded, (unsigned long long)t.reslots,
           (unsigned long long)t.mmio, (unsigned long long)t.interrupted,
           (unsigned long long)t.errors);
    fflush(NULL);
    return t.errors ? PEER_EXIT_WRONG : 0;
}

static int run(struct settings *s, struct ram *ram)
{
    static struct machine m;
    struct timespec deadline;
    unsigned i;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += s->timeout_s;
    ram_map(ram);
    machine_new(&m, ram, &s->plan); /* before the userfaultfd, which is then closed after it */
    if (s->local)
        ram_fill(ram);
    else
        ram_attach(ram, s->socket_path);
    for (i = 0; i < ACTORS_MAX; i++)
        actors[i] = (struct actor){
            .m = &m,
            .pages_path = s->pages_path,
            .cpu = i < CPUS_MAX ? &m.cpus[i] : NULL,
            .rng = ram->image.seed * 0x9e3779b97f4a7c15u + i + 1,
        };
    for (i = 0; i < s->n_steps; i++) {
        struct step *step = &s->steps[i];

        if (step->end == 0 || step->end > ram->n_blocks)
            step->end = ram->n_blocks;
        if (step->first < GUEST_PROGRAM_BLOCKS)
            step->first = GUEST_PROGRAM_BLOCKS;
        if (step->first >= step->end)
            peer_die(PEER_EXIT_USAGE, 0, "step %s has no blocks", step->kind->name);
        run_step(step, &deadline);
    }
    return report(&m);
}

static uint64_t parse_number(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 0);

    if (*end == 'K')
        n <<= 10;
    else if (*end == 'M')
        n <<= 20;
    else if (*end || end == text)
        peer_die(PEER_EXIT_USAGE, 0, "not a number: %s", text);
    return n;
}

static void set_key(struct step *step, const char *key, uint64_t value)
{
    if (!strcmp(key, "n"))
        step->n = value;
    else if (!strcmp(key, "rounds"))
        step->rounds = value;
    else if (!strcmp(key, "cpus") && value >= 1 && value <= CPUS_MAX)
        step->n_cpus = (unsigned)value;
    else if (!strcmp(key, "first"))
        step->first = value;
    else if (!strcmp(key, "end"))
        step->end = value;
    else if (!strcmp(key, "reslot"))
        step->reslot = (unsigned)value;
    else if (!strcmp(key, "collect"))
        step->collect = (unsigned)value;
    else if (!strcmp(key, "pause_us"))
        step->pause_us = (unsigned)value;
    else if (!strcmp(key, "hold"))
        step->hold = value != 0;
    else
        peer_die(PEER_EXIT_USAGE, 0, "no such number for a step: %s", key);
}

static void parse_step(struct settings *s, char *text)
{
    char *save = NULL, *name = strtok_r(text, ":", &save), *key, *value;
    struct step *step = &s->steps[s->n_steps];
    const struct step_kind *k = step_kinds;

    while (k->name && name && strcmp(k->name, name) != 0)
        k++;
    if (!k->name || ++s->n_steps == STEPS_MAX)
        peer_die(PEER_EXIT_USAGE, 0, "no such step: %s", text);
    step->kind = k;
    step->n = k->n;
    step->rounds = 1;
    step->n_cpus = CPUS_MAX;
    while ((key = strtok_r(NULL, ",", &save))) {
        value = strchr(key, '=');
        if (!value)
            peer_die(PEER_EXIT_USAGE, 0, "%s has no value", key);
        *value++ = '\0';
        set_key(step, key, parse_number(value));
    }
}

static void usage(void)
{
    const struct step_kind *k;

    printf("tinyvmm --make-file FILE --size BYTES --seed N [--dense]\n"
           "tinyvmm --socket PATH|--local --size BYTES --seed N [--dense] [--page-size 4K|2M] "
           "[--regions N]\n"
           "        [--ring 0|3] [--interrupts] [--kick-us N] [--timeout SECONDS] [--pages FILE] "
           "STEP...\n"
           "STEP: NAME[:KEY=N[,KEY=N]...], keys cpus, first, end, rounds, n, reslot, collect, "
           "pause_us, hold\n");
    for (k = step_kinds; k->name; k++)
        printf("  %-9s %s\n", k->name, k->text);
    exit(PEER_EXIT_USAGE);
}

enum option_key {
    OPT_MAKE_FILE = 1,
    OPT_SOCKET,
    OPT_LOCAL,
    OPT_SIZE,
    OPT_SEED,
    OPT_DENSE,
    OPT_PAGE_SIZE,
    OPT_REGIONS,
    OPT_RING,
    OPT_INTERRUPTS,
    OPT_KICK_US,
    OPT_TIMEOUT,
    OPT_PAGES,
};

static const struct option long_options[] = {
    {"make-file", required_argument, NULL, OPT_MAKE_FILE},
    {"socket", required_argument, NULL, OPT_SOCKET},
    {"local", no_argument, NULL, OPT_LOCAL},
    {"size", required_argument, NULL, OPT_SIZE},
    {"seed", required_argument, NULL, OPT_SEED},
    {"dense", no_argument, NULL, OPT_DENSE},
    {"page-size", required_argument, NULL, OPT_PAGE_SIZE},
    {"regions", required_argument, NULL, OPT_REGIONS},
    {"ring", required_argument, NULL, OPT_RING},
    {"interrupts", no_argument, NULL, OPT_INTERRUPTS},
    {"kick-us", required_argument, NULL, OPT_KICK_US},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"pages", required_argument, NULL, OPT_PAGES},
    {NULL, 0, NULL, 0},
};

static void parse_option(struct settings *s, struct ram *ram, int key)
{
    switch (key) {
    case OPT_MAKE_FILE:
        s->make_file = optarg;
        break;
    case OPT_SOCKET:
        s->socket_path = optarg;
        break;
    case OPT_LOCAL:
        s->local = true;
        break;
    case OPT_SIZE:
        s->size_bytes = parse_number(optarg);
        break;
    case OPT_SEED:
        ram->image.seed = parse_number(optarg);
        break;
    case OPT_DENSE:
        ram->image.dense = true;
        break;
    case OPT_PAGE_SIZE:
        ram->unit_shift = parse_number(optarg) > 4096 ? 21 : 12;
        break;
    case OPT_REGIONS:
        ram->n_regions = (unsigned)parse_number(optarg);
        break;
    case OPT_RING:
        s->plan.ring = (unsigned)parse_number(optarg);
        break;
    case OPT_INTERRUPTS:
        s->plan.interrupts = true;
        break;
    case OPT_KICK_US:
        s->plan.kick_us = (unsigned)parse_number(optarg);
        break;
    case OPT_TIMEOUT:
        s->timeout_s = (unsigned)parse_number(optarg);
        break;
    case OPT_PAGES:
        s->pages_path = optarg;
        break;
    default:
        usage();
    }
}

int main(int argc, char **argv)
{
    static struct settings s = {.plan = {.ring = 3}, .timeout_s = 30};
    static struct ram ram = {.image = {.seed = 1}, .unit_shift = 12, .n_regions = 1};
    pthread_condattr_t attr;
    int key;

    while ((key = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        parse_option(&s, &ram, key);
    while (optind < argc)
        parse_step(&s, argv[optind++]);
    ram.n_blocks = s.size_bytes / BLOCK_BYTES;
    if (ram.n_blocks <= GUEST_PROGRAM_BLOCKS)
        usage();
    if (s.make_file) {
        ram_make_file(&ram.image, s.make_file, ram.n_blocks);
        return 0;
    }
    if (!s.socket_path == !s.local || ram.n_regions == 0 || ram.n_regions > REGIONS_MAX ||
        (s.size_bytes >> ram.unit_shift) < ram.n_regions ||
        s.size_bytes & ((1ull << ram.unit_shift) - 1))
        usage();
    alarm(s.timeout_s + 30); /* should this program itself hang before it has threads */
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&done_cond, &attr);
    return run(&s, &ram);
}
