/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stress.c - a VMM without a guest, whose memory must be linearizable
 *
 *     stress --socket S --size 64M --seed 7 [option]...
 *
 * Writers, readers and removers go at the same pages at the same time, for as long as one likes. Nobody claims a page
 * before it is used, as the fake VMM does (tests/lib/fakevmm_pages.c): that is the difference. There, of two threads that
 * want to change a page one goes elsewhere, so that a page has one writer; here they fight, and what a page may hold
 * follows from the order of their begins and ends alone.
 *
 * What is claimed. Guest memory served by a pager is memory: each 8-byte word is the image's, or what was written to it
 * last, or zero if it was removed since; an atomic addition is never lost and never done twice; and nothing else is ever
 * read. "Last" is what every memory can promise: of operations that overlap, either order. Why a short list of changes a
 * page is enough to judge every read, what exactly a read that overlaps a write or a removal may see, and what is not
 * found, is told in history.h.
 *
 * Where it looks. The image, holes and all, is that of the fake VMM; regions touch each other, and lie in memory in an
 * order that is not that of the image, so a removal of a run goes over their borders. Half of the operations go to eight
 * pages, the others to pages that are touched for the first time until the end of the run. Threads change words, whole
 * pages, and add; by instruction and by read(2), where the kernel itself faults. In the end all is quiet, and every page
 * is read once more: then each word has one right value (or was fought for until the end, and must keep it), and each
 * counter is exact.
 *
 * Stuck. The first thread never touches guest memory. It looks at what the others do, and if one of them is at the same
 * operation for --timeout seconds, it says so for all of them and ends the process: a fault was lost. No thread waits
 * for another one that may wait for the pager.
 *
 * Output: a line "running" when all threads do, and at the end one line of JSON. Every operation above 1 ms is a stall;
 * "stall_list" has [microseconds, end (CLOCK_MONOTONIC, ns), thread] of the longest 4096. Exit: 0 all was right, 1 a word
 * was wrong, 2 usage, 3 a thread got stuck, 4 this host lacks something.
 */
#include "stress.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "../lib/uffd_peer.h"

#define TICK_MS       20
#define FRONTIER_LEAD 64u

struct settings {
    struct plan plan;
    struct oracle oracle;
    uint64_t seed;
    const char *make_file;
    const char *socket_path;
    uint64_t size_bytes;
    uint64_t seconds;
    uint64_t timeout_s;
    bool until_eof;
    unsigned n_role[N_ROLES];
};

static struct world world;
static struct actor *actors;
static unsigned n_actors;
static pthread_mutex_t done_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done_cond;

static void *must_alloc(size_t n, size_t bytes)
{
    void *p = calloc(n, bytes);

    if (!p)
        peer_die(PEER_EXIT_ABSENT, ENOMEM, "%zu x %zu bytes", n, bytes);
    return p;
}

/* ---- the world ---- */

static void world_make(const struct settings *s)
{
    struct guest *g = &world.guest;
    uint64_t i, k, page = 0;

    g->oracle = s->oracle;
    guest_map(g, &s->plan);
    world.n_pages = g->n_pages;
    world.page_bytes = 1ull << g->page_shift;
    world.pages = must_alloc(g->n_pages, sizeof(*world.pages));
    world.hva = must_alloc(g->n_pages, sizeof(uint8_t *));
    world.in_image = must_alloc(g->n_pages, sizeof(*world.in_image));
    for (i = 0; i < g->n_regions; i++) {
        const struct region *r = g->by_hva[i];

        for (k = 0; k < r->len_bytes; k += world.page_bytes, page++) {
            world.hva[page] = r->hva + k;
            world.in_image[page] = r->first + (k >> g->page_shift);
            history_init(&world.pages[page]);
        }
    }
    world_choose_pages(&world, s->seed, s->n_role[0] + s->n_role[1] + s->n_role[2]);
    atomic_store(&world.frontier, FRONTIER_LEAD < g->n_pages / 8 ? FRONTIER_LEAD : g->n_pages / 8);
}

/* Behind the last region is memory that belongs to nobody: no pager may write there. */
static void check_canaries(void)
{
    const struct guest *g = &world.guest;
    uint64_t k;
    unsigned i;

    for (i = 0; i < g->n_canaries; i++) {
        for (k = 0; k < g->canaries[i].n_words; k++) {
            const uint64_t *at = &g->canaries[i].word[k];

            if (*at == ~(uint64_t)(uintptr_t)at)
                continue;
            fprintf(stderr, "wrong byte: address %p beside guest memory was written to\n",
                    (const void *)at);
            atomic_fetch_add(&world.n_errors, 1);
            return;
        }
    }
}

/* ---- threads ---- */

static void *actor_main(void *arg)
{
    struct actor *a = arg;
    uint64_t page;

    if (a->first < a->end) {
        for (page = a->first; page < a->end && !atomic_load(&world.stop); page++)
            op_read(a, page);
    } else {
        role_run(a);
    }
    pthread_mutex_lock(&done_mutex);
    atomic_store(&a->done, true);
    pthread_cond_signal(&done_cond);
    pthread_mutex_unlock(&done_mutex);
    return NULL;
}

static void actor_init(struct actor *a, unsigned id, enum role role, uint64_t seed)
{
    a->world = &world;
    a->id = id;
    a->role = role;
    a->rng = (seed ^ (id + 1) * 0x9e3779b97f4a7c15u) | 1;
    a->file = memfd_create("stress", MFD_CLOEXEC);
    if (a->file < 0 || ftruncate(a->file, (off_t)world.page_bytes) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "memfd");
    a->words = mmap(NULL, world.page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, a->file, 0);
    if (a->words == MAP_FAILED)
        peer_die(PEER_EXIT_ABSENT, errno, "memfd");
    stalls_init(&a->stalls);
}

static void actors_init(const struct settings *s)
{
    unsigned role, i;

    n_actors = s->n_role[0] + s->n_role[1] + s->n_role[2];
    actors = must_alloc(n_actors, sizeof(*actors));
    n_actors = 0;
    for (role = 0; role < N_ROLES; role++) {
        for (i = 0; i < s->n_role[role]; i++, n_actors++)
            actor_init(&actors[n_actors], n_actors, (enum role)role, s->seed);
    }
}

static void actors_start(void)
{
    unsigned i;
    int r;

    for (i = 0; i < n_actors; i++) {
        atomic_store(&actors[i].done, false);
        r = pthread_create(&actors[i].thread, NULL, actor_main, &actors[i]);
        if (r)
            peer_die(PEER_EXIT_ABSENT, r, "pthread_create");
    }
}

/* ---- the result ---- */

static void print_wrong(void)
{
    unsigned i;

    for (i = 0; i < n_actors; i++) {
        const struct wrong *e = &actors[i].first_wrong;

        if (actors[i].n_wrong == 0)
            continue;
        printf(",\"first_error\":{\"page\":%llu,\"image_page\":%llu,\"offset\":%u,\"expected\":"
               "\"%016llx\",\"got\":\"%016llx\",\"what\":\"%s\"}",
               (unsigned long long)e->page, (unsigned long long)e->in_image, e->word * 8,
               (unsigned long long)e->expected, (unsigned long long)e->got, e->what);
        return;
    }
}

static void print_counts(void)
{
    struct counts t = {0};
    unsigned i;

    for (i = 0; i < n_actors; i++) {
        const struct counts *c = &actors[i].counts;

        t.reads += c->reads;
        t.raced += c->raced;
        t.unjudged += c->unjudged;
        t.fills += c->fills;
        t.words += c->words;
        t.adds += c->adds;
        t.syscalls += c->syscalls;
        t.removals += c->removals;
        t.pages_removed += c->pages_removed;
        t.left_alone += c->left_alone;
    }
    printf(",\"reads\":%llu,\"raced\":%llu,\"unjudged\":%llu,\"fills\":%llu,\"words\":%llu,"
           "\"adds\":%llu,\"syscalls\":%llu,\"removals\":%llu,\"pages_removed\":%llu,"
           "\"left_alone\":%llu",
           (unsigned long long)t.reads, (unsigned long long)t.raced, (unsigned long long)t.unjudged,
           (unsigned long long)t.fills, (unsigned long long)t.words, (unsigned long long)t.adds,
           (unsigned long long)t.syscalls, (unsigned long long)t.removals,
           (unsigned long long)t.pages_removed, (unsigned long long)t.left_alone);
}

/* Print the result. Return: the exit code. */
static int result(const struct settings *s, bool stuck)
{
    unsigned i, n_errors = atomic_load(&world.n_errors);

    printf("{\"seed\":%llu,\"pages\":%llu,\"page_bytes\":%llu,\"regions\":%u,\"stuck\":%s,"
           "\"errors\":%u",
           (unsigned long long)s->seed, (unsigned long long)world.n_pages,
           (unsigned long long)world.page_bytes, world.guest.n_regions, stuck ? "true" : "false",
           n_errors);
    print_counts();
    stalls_print(actors, n_actors);
    for (i = 0; i < n_actors; i++)
        printf("%s{\"role\":\"%s\",\"longest_us\":%llu}", i ? "," : ",\"threads\":[",
               role_names[actors[i].role], (unsigned long long)actors[i].stalls.longest_us);
    printf("]");
    print_wrong();
    printf("}\n");
    fflush(NULL);
    return n_errors ? PEER_EXIT_WRONG : stuck ? PEER_EXIT_STUCK : 0;
}

static void say_stuck(const struct settings *s)
{
    uint64_t now = now_ns(), page, since;
    unsigned i;

    fprintf(stderr, "stuck: a thread made no progress for %llu s\n",
            (unsigned long long)s->timeout_s);
    for (i = 0; i < n_actors; i++) {
        since = atomic_load(&actors[i].since_ns);
        page = atomic_load(&actors[i].doing_page);
        if (atomic_load(&actors[i].done) || since == 0)
            fprintf(stderr, "thread %u (%s): not at guest memory\n", i, role_names[actors[i].role]);
        else
            fprintf(stderr,
                    "thread %u (%s): %s, page %llu (of the image: %llu) address %p, %llu ms\n", i,
                    role_names[actors[i].role], atomic_load(&actors[i].doing),
                    (unsigned long long)page, (unsigned long long)world.in_image[page],
                    (void *)world.hva[page], (unsigned long long)((now - since) / 1000000));
    }
    _exit(result(s, true));
}

/* ---- the first thread ---- */

static void tick(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_nsec += TICK_MS * 1000000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&done_mutex);
    pthread_cond_timedwait(&done_cond, &done_mutex, &ts);
    pthread_mutex_unlock(&done_mutex);
}

/* Does the one who started this program want it to end? */
static bool at_eof(void)
{
    struct pollfd pfd = {.fd = STDIN_FILENO, .events = POLLIN};
    char c;

    return poll(&pfd, 1, 0) > 0 && read(STDIN_FILENO, &c, 1) == 0;
}

static bool all_done(void)
{
    unsigned i;

    for (i = 0; i < n_actors; i++) {
        if (!atomic_load(&actors[i].done))
            return false;
    }
    return true;
}

/* More and more pages are reached, all of them at @end_ns. */
static void move_frontier(uint64_t lead, uint64_t begin_ns, uint64_t now, uint64_t end_ns)
{
    double part = (double)(now - begin_ns) / (double)(end_ns - begin_ns);

    if (part > 1)
        part = 1;
    atomic_store(&world.frontier, lead + (uint64_t)((double)(world.n_pages - lead) * part));
}

/* Let the threads work until @end_ns (0: until they have ended by themselves), and then until they have. */
static void watch(const struct settings *s, uint64_t end_ns)
{
    uint64_t begin = now_ns(), now, since, lead = atomic_load(&world.frontier);
    unsigned i;

    while (!all_done()) {
        tick();
        now = now_ns();
        if (end_ns > 0) {
            move_frontier(lead, begin, now, end_ns);
            if (s->until_eof ? at_eof() : now >= end_ns)
                atomic_store(&world.stop, true);
        }
        for (i = 0; i < n_actors; i++) {
            since = atomic_load(&actors[i].since_ns);
            if (since != 0 && now > since && now - since > s->timeout_s * 1000000000u)
                say_stuck(s);
        }
    }
    for (i = 0; i < n_actors; i++)
        pthread_join(actors[i].thread, NULL);
}

static int run(const struct settings *s)
{
    unsigned i;

    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); /* another pager may take the userfaultfd */
    world_make(s);
    actors_init(s);
    guest_attach(&world.guest, &s->plan, s->socket_path);
    actors_start();
    printf("running\n");
    fflush(stdout);
    watch(s, now_ns() + s->seconds * 1000000000u);
    if (atomic_load(&world.n_errors) == 0) {
        atomic_store(&world.stop, false);
        for (i = 0; i < n_actors; i++) {
            actors[i].first = world.n_pages * i / n_actors;
            actors[i].end = world.n_pages * (i + 1) / n_actors;
        }
        atomic_store(&world.frontier, world.n_pages);
        actors_start();
        watch(s, 0);
        check_canaries();
    }
    return result(s, false);
}

/* ---- the command line ---- */

static uint64_t parse_number(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 0);

    if (*end == 'K')
        n <<= 10;
    else if (*end == 'M')
        n <<= 20;
    else if (*end == 'G')
        n <<= 30;
    else if (*end || end == text)
        peer_die(PEER_EXIT_USAGE, 0, "not a number: %s", text);
    return n;
}

static __attribute__((noreturn)) void usage(void)
{
    printf("stress --make-file FILE --size BYTES [--seed N] [--dense]\n"
           "stress --socket PATH --size BYTES|--pages N [--page-size 4K|2M] [--regions N] "
           "[--seconds N]\n"
           "       [--writers N] [--readers N] [--removers N] [--timeout SECONDS]\n"
           "       [--seed N] [--file-seed N] [--dense] [--until-eof]\n"
           "--seed: of everything random (default: any, printed); --file-seed: what the memory "
           "file was\n"
           "made with, if that was another one; --until-eof: go on until the\n"
           "end of stdin\n");
    exit(PEER_EXIT_USAGE);
}

enum option_key {
    OPT_MAKE_FILE = 1,
    OPT_SOCKET,
    OPT_SIZE,
    OPT_PAGES,
    OPT_PAGE_SIZE,
    OPT_REGIONS,
    OPT_SECONDS,
    OPT_WRITERS,
    OPT_READERS,
    OPT_REMOVERS,
    OPT_TIMEOUT,
    OPT_SEED,
    OPT_FILE_SEED,
    OPT_DENSE,
    OPT_UNTIL_EOF,
};

static const struct option long_options[] = {
    {"make-file", required_argument, NULL, OPT_MAKE_FILE},
    {"socket", required_argument, NULL, OPT_SOCKET},
    {"size", required_argument, NULL, OPT_SIZE},
    {"pages", required_argument, NULL, OPT_PAGES},
    {"page-size", required_argument, NULL, OPT_PAGE_SIZE},
    {"regions", required_argument, NULL, OPT_REGIONS},
    {"seconds", required_argument, NULL, OPT_SECONDS},
    {"writers", required_argument, NULL, OPT_WRITERS},
    {"readers", required_argument, NULL, OPT_READERS},
    {"removers", required_argument, NULL, OPT_REMOVERS},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"seed", required_argument, NULL, OPT_SEED},
    {"file-seed", required_argument, NULL, OPT_FILE_SEED},
    {"dense", no_argument, NULL, OPT_DENSE},
    {"until-eof", no_argument, NULL, OPT_UNTIL_EOF},
    {NULL, 0, NULL, 0},
};

static void parse_option(struct settings *s, int key)
{
    switch (key) {
    case OPT_MAKE_FILE:
        s->make_file = optarg;
        break;
    case OPT_SOCKET:
        s->socket_path = optarg;
        break;
    case OPT_SIZE:
        s->size_bytes = parse_number(optarg);
        break;
    case OPT_PAGES:
        s->plan.n_pages = parse_number(optarg);
        break;
    case OPT_PAGE_SIZE:
        s->plan.page_shift = parse_number(optarg) > BLOCK_BYTES ? 21 : 12;
        break;
    case OPT_REGIONS:
        s->plan.n_regions = (unsigned)parse_number(optarg);
        break;
    case OPT_SECONDS:
        s->seconds = parse_number(optarg);
        break;
    case OPT_WRITERS:
    case OPT_READERS:
    case OPT_REMOVERS:
        s->n_role[key - OPT_WRITERS] = (unsigned)parse_number(optarg);
        break;
    case OPT_TIMEOUT:
        s->timeout_s = parse_number(optarg);
        break;
    case OPT_SEED:
        s->seed = parse_number(optarg);
        break;
    case OPT_FILE_SEED:
        s->oracle.seed = parse_number(optarg);
        break;
    case OPT_DENSE:
        s->oracle.dense = true;
        break;
    case OPT_UNTIL_EOF:
        s->until_eof = true;
        break;
    default:
        usage();
    }
}

static void check_settings(struct settings *s)
{
    unsigned n = s->n_role[0] + s->n_role[1] + s->n_role[2];

    if (s->seed == 0 && getrandom(&s->seed, 4, 0) != 4)
        peer_die(PEER_EXIT_ABSENT, errno, "getrandom");
    if (s->oracle.seed == 0)
        s->oracle.seed = s->seed;
    if (s->size_bytes == 0)
        s->size_bytes = s->plan.n_pages << s->plan.page_shift;
    s->plan.n_pages = s->size_bytes >> s->plan.page_shift;
    if (s->size_bytes == 0 || s->size_bytes & ((1ull << s->plan.page_shift) - 1))
        usage();
    if (s->make_file)
        return;
    if (!s->socket_path || s->plan.n_pages < 2 * N_HOT || s->plan.n_regions == 0 ||
        s->plan.n_pages < s->plan.n_regions || n == 0 || n > ACTORS_MAX || s->seconds == 0 ||
        s->timeout_s == 0)
        usage();
}

int main(int argc, char **argv)
{
    static struct settings s = {
        .plan = {.page_shift = 12,
                 .n_regions = 16,
                 .adjacent = true,
                 .shuffle = true,
                 .page_field = "both"},
        .seconds = 10,
        .timeout_s = 30,
        .n_role = {[ROLE_WRITER] = 4, [ROLE_READER] = 4, [ROLE_REMOVER] = 2},
    };
    pthread_condattr_t attr;
    int key;

    while ((key = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        parse_option(&s, key);
    if (optind < argc)
        usage();
    check_settings(&s);
    fprintf(stderr, "seed %llu\n", (unsigned long long)s.seed);
    if (s.make_file) {
        oracle_make_file(&s.oracle, s.make_file, s.size_bytes / BLOCK_BYTES);
        return 0;
    }
    if (!s.until_eof)
        alarm((unsigned)(s.seconds + 3 * s.timeout_s + 60)); /* should this program itself hang */
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&done_cond, &attr);
    return run(&s);
}
