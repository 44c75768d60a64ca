/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakevmm.c - a VMM without a guest, that checks every byte
 *
 *     fakevmm --make-file FILE --size 16M --seed 7
 *     fakevmm --socket S --size 16M --seed 7 [option]... STEP...
 *
 * The first line writes a memory file; the second plays the VMM that was restored from it: maps guest memory,
 * connects to the pager, hands it the userfaultfd, and goes through the steps. A step is the name of a workload
 * with numbers, such as "random:threads=8,n=2000" or "seq:first=0,end=64" (see op_kinds). Memory is kept from one
 * step to the next, and what it must hold is known at all times.
 *
 * The first thread only starts the others and waits with a deadline: it never touches guest memory, so whatever
 * the pager does this program ends by itself and says what each thread was waiting for. A wrong word is printed
 * on stderr at once, because the process may be killed before its end.
 *
 * Output: one line of JSON. Exit: 0 all bytes were right, 1 some were wrong, 2 usage, 3 a thread got stuck,
 * 4 this host lacks something.
 */
#include "fakevmm.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "uffd_peer.h"

#define OPS_MAX     32
#define THREADS_MAX 256

struct settings {
    struct plan plan;
    struct oracle oracle;
    const char *make_file;
    const char *socket_path;
    uint64_t size_bytes;
    unsigned timeout_s;
    uint64_t die_after_us; /* 0: live to the end */
    bool latency;
    struct op ops[OPS_MAX];
    unsigned n_ops;
};

static pthread_mutex_t done_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done_cond;
static struct worker *workers; /* THREADS_MAX, used again by each step */
static atomic_uint n_errors_printed;

uint64_t worker_random(struct worker *w)
{
    uint64_t x = w->rng;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    w->rng = x;
    return x * 0x2545f4914f6cdd1du >> 1;
}

void worker_error(struct worker *w, uint64_t page, uint64_t block, unsigned word, uint64_t expected,
                  uint64_t got)
{
    const struct guest *g = w->guest;
    struct error e = {.page = page, .expected = expected, .got = got};
    uint64_t diff = expected ^ got;

    e.offset = word * 8 + (unsigned)(__builtin_ctzll(diff ? diff : 1) / 8);
    if (page < g->n_pages) {
        e.offset += (unsigned)(block << 12) & ((1u << g->page_shift) - 1);
        e.addr = (uintptr_t)guest_page(g, page) + e.offset;
        e.state = atomic_load(&g->state[page]);
    } else {
        e.addr = block; /* a canary's address */
    }
    if (w->tally.errors++ == 0)
        w->first_error = e;
    if (atomic_fetch_add(&n_errors_printed, 1) < 8)
        fprintf(stderr,
                "wrong byte: page %lld offset %u address %#llx expected %016llx got %016llx state "
                "%#x (%s)\n",
                (long long)page, e.offset, (unsigned long long)e.addr, (unsigned long long)expected,
                (unsigned long long)got, e.state, w->op->name);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;

    w->op->run(w, w->op);
    pthread_mutex_lock(&done_mutex);
    atomic_store(&w->done, true);
    pthread_cond_signal(&done_cond);
    pthread_mutex_unlock(&done_mutex);
    return NULL;
}

static struct timespec deadline_in_us(uint64_t us)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += (time_t)(us / 1000000);
    ts.tv_nsec += (long)(us % 1000000) * 1000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000;
    }
    return ts;
}

/* Return: true when all are done; false at the deadline. */
static bool workers_wait(unsigned n, const struct timespec *deadline)
{
    unsigned i = 0;
    int r = 0;

    pthread_mutex_lock(&done_mutex);
    while (i < n && r != ETIMEDOUT) {
        if (atomic_load(&workers[i].done))
            i++;
        else
            r = pthread_cond_timedwait(&done_cond, &done_mutex, deadline);
    }
    pthread_mutex_unlock(&done_mutex);
    return i == n;
}

static void report_stuck(const struct op *op)
{
    unsigned i;

    fprintf(stderr, "stuck in step %s\n", op->name);
    for (i = 0; i < op->n_threads; i++) {
        const struct worker *w = &workers[i];
        uint64_t page = atomic_load(&w->doing_page);

        if (atomic_load(&w->done))
            continue;
        fprintf(stderr, "thread %u: %s, page %llu address %p\n", i, atomic_load(&w->doing),
                (unsigned long long)page,
                page < w->guest->n_pages ? (void *)guest_page(w->guest, page) : NULL);
    }
    fflush(NULL);
    _exit(PEER_EXIT_STUCK);
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void report_latency(uint64_t total)
{
    uint32_t *all = malloc((total + 1) * sizeof(*all));
    uint64_t i, n = 0;

    if (!all)
        return;
    for (i = 0; i < THREADS_MAX; i++) {
        if (!workers[i].tally.n_lat)
            continue;
        memcpy(all + n, workers[i].lat_ns, workers[i].tally.n_lat * sizeof(*all));
        n += workers[i].tally.n_lat;
    }
    qsort(all, n, sizeof(*all), compare_u32);
    printf(",\"first_touch_ns\":{\"n\":%llu,\"p50\":%u,\"p99\":%u,\"max\":%u}",
           (unsigned long long)n, n ? all[n / 2] : 0, n ? all[n * 99 / 100] : 0,
           n ? all[n - 1] : 0);
    free(all);
}

/* How many pages hold no data at all in the memory file, and how many of them are holes only. */
static void count_zero_pages(const struct guest *g, uint64_t *zero, uint64_t *holes)
{
    uint64_t p, b, n = 1ull << (g->page_shift - 12);
    bool data, hole;

    *zero = *holes = 0;
    for (p = 0; p < g->n_pages; p++) {
        data = false;
        hole = true;
        for (b = p * n; b < (p + 1) * n && !data; b++) {
            data = oracle_kind(&g->oracle, b) == BLOCK_DATA;
            hole = hole && oracle_kind(&g->oracle, b) == BLOCK_HOLE;
        }
        *zero += !data;
        *holes += !data && hole;
    }
}

static void report_error(const struct error *e)
{
    printf(
        ",\"first_error\":{\"page\":%lld,\"offset\":%u,\"addr\":\"%#llx\",\"expected\":\"%016llx\","
        "\"got\":\"%016llx\"}",
        (long long)e->page, e->offset, (unsigned long long)e->addr, (unsigned long long)e->expected,
        (unsigned long long)e->got);
}

/* Print the result. Return: the exit code. */
static int report(const struct guest *g, const struct settings *s, bool cut)
{
    const struct error *first = NULL;
    uint64_t p, touched = 0, written = 0, zero, holes;
    struct tally t = {0};
    unsigned i;

    for (i = 0; i < THREADS_MAX; i++) {
        const struct tally *one = &workers[i].tally;

        t.checks += one->checks;
        t.writes += one->writes;
        t.discards += one->discards;
        t.pages_discarded += one->pages_discarded;
        t.remaps += one->remaps;
        t.syscalls += one->syscalls;
        t.errors += one->errors;
        t.n_lat += one->n_lat;
        t.slowest_ns = one->slowest_ns > t.slowest_ns ? one->slowest_ns : t.slowest_ns;
        if (one->errors && !first)
            first = &workers[i].first_error;
    }
    for (p = 0; p < g->n_pages; p++) {
        touched += atomic_load(&g->touched[p]) & 1;
        written += atomic_load(&g->touched[p]) >> 1;
    }
    count_zero_pages(g, &zero, &holes);
    printf(
        "{\"seed\":%llu,\"pages\":%llu,\"page_bytes\":%llu,\"regions\":%u,\"touched\":%llu,"
        "\"written\":%llu,\"zero_pages\":%llu,\"hole_pages\":%llu,\"checks\":%llu,\"writes\":%llu,"
        "\"discards\":%llu,\"pages_discarded\":%llu,\"remaps\":%llu,\"syscalls\":%llu,\"cut\":%s,"
        "\"slowest_ns\":%llu,\"errors\":%llu",
        (unsigned long long)g->oracle.seed, (unsigned long long)g->n_pages, 1ull << g->page_shift,
        g->n_regions, (unsigned long long)touched, (unsigned long long)written,
        (unsigned long long)zero, (unsigned long long)holes, (unsigned long long)t.checks,
        (unsigned long long)t.writes, (unsigned long long)t.discards,
        (unsigned long long)t.pages_discarded, (unsigned long long)t.remaps,
        (unsigned long long)t.syscalls, cut ? "true" : "false", (unsigned long long)t.slowest_ns,
        (unsigned long long)t.errors);
    if (first)
        report_error(first);
    if (s->latency)
        report_latency(t.n_lat);
    printf("}\n");
    fflush(NULL);
    return t.errors ? PEER_EXIT_WRONG : 0;
}

static void worker_start(struct worker *w, struct guest *g, const struct op *op, unsigned id,
                         bool latency)
{
    int r;

    w->guest = g;
    w->id = id;
    w->op = op;
    if (!w->rng)
        w->rng = g->oracle.seed * 0x9e3779b97f4a7c15u + id + 1;
    if (latency && !w->lat_ns) {
        w->cap_lat = g->n_pages;
        w->lat_ns = calloc(g->n_pages, sizeof(*w->lat_ns));
    }
    atomic_store(&w->doing, "starting");
    atomic_store(&w->done, false);
    r = pthread_create(&w->thread, NULL, worker_main, w);
    if (r)
        peer_die(PEER_EXIT_ABSENT, r, "pthread_create");
}

static int run(struct settings *s)
{
    static struct guest g;
    struct timespec deadline;
    unsigned i, k;

    g.oracle = s->oracle;
    guest_map(&g, &s->plan);
    guest_attach(&g, &s->plan, s->socket_path);
    deadline = deadline_in_us(s->die_after_us ? s->die_after_us : s->timeout_s * 1000000ull);
    for (i = 0; i < s->n_ops; i++) {
        struct op *op = &s->ops[i];

        if (op->end == 0 || op->end > g.n_pages)
            op->end = g.n_pages;
        if (op->first >= op->end)
            peer_die(PEER_EXIT_USAGE, 0, "step %s has no pages", op->name);
        pthread_barrier_init(&op->barrier, NULL, op->n_threads);
        for (k = 0; k < op->n_threads; k++)
            worker_start(&workers[k], &g, op, k, s->latency);
        if (!workers_wait(op->n_threads, &deadline)) {
            if (!s->die_after_us)
                report_stuck(op);
            _exit(report(&g, s, true));
        }
        for (k = 0; k < op->n_threads; k++)
            pthread_join(workers[k].thread, NULL);
    }
    workers[0].guest = &g;
    guest_check_canaries(&workers[0]);
    return report(&g, s, false);
}

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

static void parse_op(struct settings *s, char *text)
{
    char *save = NULL, *name = strtok_r(text, ":", &save), *key, *value;
    struct op *op = &s->ops[s->n_ops++];
    const struct op_kind *k = op_kinds;

    while (k->name && name && strcmp(k->name, name) != 0)
        k++;
    if (!k->name || s->n_ops == OPS_MAX)
        peer_die(PEER_EXIT_USAGE, 0, "no such step: %s", text);
    *op = (struct op){.name = k->name, .run = k->run, .n = k->n, .n_threads = k->n_threads};
    while ((key = strtok_r(NULL, ",", &save))) {
        value = strchr(key, '=');
        if (!value)
            peer_die(PEER_EXIT_USAGE, 0, "step %s: %s has no value", name, key);
        *value++ = '\0';
        if (!strcmp(key, "n"))
            op->n = parse_number(value);
        else if (!strcmp(key, "threads"))
            op->n_threads = (unsigned)parse_number(value);
        else if (!strcmp(key, "first"))
            op->first = parse_number(value);
        else if (!strcmp(key, "end"))
            op->end = parse_number(value);
        else
            peer_die(PEER_EXIT_USAGE, 0, "step %s has no number %s", name, key);
    }
    if (op->n_threads == 0 || op->n_threads > THREADS_MAX)
        peer_die(PEER_EXIT_USAGE, 0, "step %s: 1..%d threads", name, THREADS_MAX);
}

static void usage(void)
{
    const struct op_kind *k;

    printf(
        "fakevmm --make-file FILE --size BYTES --seed N [--dense]\n"
        "fakevmm --socket PATH --size BYTES --seed N [--dense] [--page-size 4K|2M] [--regions N]\n"
        "        [--adjacent] [--shuffle] [--page-field both|new|old|none|kib]\n"
        "        [--timeout SECONDS] [--die-after-us N] [--latency] STEP...\n"
        "STEP: NAME[:KEY=N[,KEY=N]...], keys n, threads, first, end\n");
    for (k = op_kinds; k->name; k++)
        printf("  %-9s %2u threads, n=%-5llu %s\n", k->name, k->n_threads, (unsigned long long)k->n,
               k->text);
    exit(PEER_EXIT_USAGE);
}

enum option_key {
    OPT_MAKE_FILE = 1,
    OPT_SOCKET,
    OPT_SIZE,
    OPT_SEED,
    OPT_DENSE,
    OPT_PAGE_SIZE,
    OPT_REGIONS,
    OPT_ADJACENT,
    OPT_SHUFFLE,
    OPT_PAGE_FIELD,
    OPT_TIMEOUT,
    OPT_DIE_AFTER_US,
    OPT_LATENCY,
};

static const struct option long_options[] = {
    {"make-file", required_argument, NULL, OPT_MAKE_FILE},
    {"socket", required_argument, NULL, OPT_SOCKET},
    {"size", required_argument, NULL, OPT_SIZE},
    {"seed", required_argument, NULL, OPT_SEED},
    {"dense", no_argument, NULL, OPT_DENSE},
    {"page-size", required_argument, NULL, OPT_PAGE_SIZE},
    {"regions", required_argument, NULL, OPT_REGIONS},
    {"adjacent", no_argument, NULL, OPT_ADJACENT},
    {"shuffle", no_argument, NULL, OPT_SHUFFLE},
    {"page-field", required_argument, NULL, OPT_PAGE_FIELD},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"die-after-us", required_argument, NULL, OPT_DIE_AFTER_US},
    {"latency", no_argument, NULL, OPT_LATENCY},
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
    case OPT_SEED:
        s->oracle.seed = parse_number(optarg);
        break;
    case OPT_DENSE:
        s->oracle.dense = true;
        break;
    case OPT_PAGE_SIZE:
        s->plan.page_shift = parse_number(optarg) > 4096 ? 21 : 12;
        break;
    case OPT_REGIONS:
        s->plan.n_regions = (unsigned)parse_number(optarg);
        break;
    case OPT_ADJACENT:
        s->plan.adjacent = true;
        break;
    case OPT_SHUFFLE:
        s->plan.shuffle = true;
        break;
    case OPT_PAGE_FIELD:
        s->plan.page_field = optarg;
        break;
    case OPT_TIMEOUT:
        s->timeout_s = (unsigned)parse_number(optarg);
        break;
    case OPT_DIE_AFTER_US:
        s->die_after_us = parse_number(optarg);
        break;
    case OPT_LATENCY:
        s->latency = true;
        break;
    default:
        usage();
    }
}

int main(int argc, char **argv)
{
    static struct settings s = {
        .plan = {.page_shift = 12, .n_regions = 1, .page_field = "both"},
        .oracle = {.seed = 1},
        .timeout_s = 30,
    };
    pthread_condattr_t attr;
    int key;

    while ((key = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        parse_option(&s, key);
    while (optind < argc)
        parse_op(&s, argv[optind++]);
    s.plan.n_pages = s.size_bytes >> s.plan.page_shift;
    if (s.make_file) {
        oracle_make_file(&s.oracle, s.make_file, s.size_bytes / BLOCK_BYTES);
        return 0;
    }
    if (!s.socket_path || s.plan.n_regions == 0 || s.plan.n_pages < s.plan.n_regions ||
        s.size_bytes & ((1ull << s.plan.page_shift) - 1))
        usage();
    alarm(s.timeout_s + 30); /* should this program itself hang before it has threads */
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&done_cond, &attr);
    workers = calloc(THREADS_MAX, sizeof(*workers));
    if (!workers)
        peer_die(PEER_EXIT_ABSENT, ENOMEM, "threads");
    return run(&s);
}
