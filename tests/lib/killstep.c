/* SPDX-License-Identifier: Apache-2.0 */
/*
 * killstep.c - a VMM that kills its pager between two instructions, at every place in turn
 *
 *     killstep --socket S --state DIR --size 48M --seed N [--all] [--share I/N] SCENARIO...
 *
 * The pager is `thaw serve --supervise` with the state directory DIR. A scenario is a thing or two that threads of this
 * VMM do to its memory (touch a missing page, discard some, write to a protected one). For each place of the pager's way
 * through it:
 *
 *     wait until a pager sleeps        it is in the state file's header who serves
 *     stop it, give the threads their orders, step it to the place, kill it
 *     the supervisor starts another    now and then that one is killed as well, at any moment
 *     the orders must be carried out   within the deadline, or somebody is stranded
 *     every page must hold what it must, and what was written must be recorded
 *
 * A place is a number of system calls and a number of instructions after the last of them. Without --all, of each stretch
 * between two system calls three places are taken: its first instruction, its last, and any. With --all, every one;
 * --share divides them among runs.
 *
 * Each try uses pages that nobody has used before. At the end all pages are looked at once more.
 *
 * Output: one line of JSON a scenario. Exit: as fakevmm.
 */
#include "killstep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/block.h"
#include "fakevmm.h"
#include "uffd_peer.h"

#define TRY_PAGES   8u /* pages a try may use; its window of fault-around is 4 of them */
#define DEADLINE_NS 20000000000u
#define WATCHDOG_S  45u /* of one try */
#define MAX_PAUSES  65536u

struct run {
    struct guest guest;
    struct block block; /* the pager's state file */
    uint64_t next_page;
    uint64_t rng;
    uint32_t *pauses_us;
    unsigned n_pauses;
    unsigned n_kills;
    unsigned n_second_kills;
    pid_t last_pid; /* of the pager that was killed last */
    bool track;
    bool all;
    unsigned share, n_shares;
};

/* struct scenario - what is prepared, what is done while the pager dies, what the pages hold then */
struct scenario {
    const char *name;
    enum block_kind kind; /* of the first page of the try */
    bool read_before;     /* pages [0, 4) are read before */
    bool discard_before;  /* and discarded */
    struct order orders[N_DOERS];
    unsigned pages[N_DOERS]; /* which page of the try an order is about */
    bool tracked;            /* needs a pager that tracks writes */
    bool
        slice; /* the pager fills, slice by slice: the pages are those of the next one, and none is to be waited for */
};

static const struct scenario scenarios[] = {
    {.name = "fault", .orders = {{.deed = DEED_READ}}},
    {.name = "zero-fault", .kind = BLOCK_HOLE, .orders = {{.deed = DEED_READ}}},
    {.name = "write-fault", .orders = {{.deed = DEED_WRITE}}},
    {.name = "two-faults", .orders = {{.deed = DEED_READ}, {.deed = DEED_WRITE}}, .pages = {0, 5}},
    {.name = "remove", .read_before = true, .orders = {{.deed = DEED_DISCARD, .n = 4}}},
    {.name = "remove-absent", .orders = {{.deed = DEED_DISCARD, .n = 4}}},
    {.name = "removed-fault",
     .read_before = true,
     .discard_before = true,
     .orders = {{.deed = DEED_READ}}},
    {.name = "removed-write", .discard_before = true, .orders = {{.deed = DEED_WRITE}}},
    {.name = "remove-and-fault",
     .orders = {{.deed = DEED_DISCARD, .n = 4}, {.deed = DEED_READ}},
     .pages = {0, 1}},
    {.name = "remove-beside-fault",
     .read_before = true,
     .orders = {{.deed = DEED_DISCARD, .n = 4}, {.deed = DEED_READ}},
     .pages = {0, 5}},
    {.name = "first-write", .read_before = true, .orders = {{.deed = DEED_WRITE}}, .tracked = true},
    {.name = "first-write-and-remove",
     .read_before = true,
     .orders = {{.deed = DEED_WRITE}, {.deed = DEED_DISCARD, .n = 3}},
     .pages = {0, 1},
     .tracked = true},
    {.name = "slice", .slice = true},
    {.name = "slice-and-remove", .orders = {{.deed = DEED_DISCARD, .n = 4}}, .slice = true},
    {.name = "slice-and-fault", .orders = {{.deed = DEED_READ}}, .pages = {2}, .slice = true},
};

/* What slice_done() asks about: the pager's block, and what it had installed before this try. */
static const struct block *filling;
static uint64_t filled_before;

static bool slice_done(void)
{
    return __atomic_load_n(&filling->header->counters.pages_ahead, __ATOMIC_ACQUIRE) >
           filled_before;
}

static uint64_t next_random(struct run *r)
{
    r->rng ^= r->rng << 13;
    r->rng ^= r->rng >> 7;
    r->rng ^= r->rng << 17;
    return r->rng;
}

/* ---- what pages hold ------------------------------------------------------------------------------------------ */

static uint64_t expected_word(const struct run *r, uint64_t page, unsigned word)
{
    uint32_t s = atomic_load(&r->guest.state[page]);
    enum content c = (enum content)s;

    if (word == 511 && (c == CONTENT_IMAGE_STAMPED || c == CONTENT_ZERO_STAMPED))
        return oracle_own(&r->guest.oracle, page, word, 1);
    if (c == CONTENT_IMAGE || c == CONTENT_IMAGE_STAMPED)
        return oracle_image(&r->guest.oracle, page, word);
    return 0;
}

static uint8_t *page_at(const struct run *r, uint64_t page)
{
    return r->guest.base + page * BLOCK_BYTES;
}

static void check_page(const struct run *r, uint64_t page, const char *where)
{
    const volatile uint64_t *at = (const volatile uint64_t *)(void *)page_at(r, page);
    unsigned i;

    for (i = 0; i < BLOCK_WORDS; i++) {
        uint64_t got = at[i], expected = expected_word(r, page, i);

        if (got != expected)
            peer_die(PEER_EXIT_WRONG, 0,
                     "%s: wrong byte: page %llu word %u expected %016llx got %016llx", where,
                     (unsigned long long)page, i, (unsigned long long)expected,
                     (unsigned long long)got);
    }
}

/* changed() - what a deed does to what pages must hold */
static void changed(struct run *r, enum deed deed, uint64_t page, unsigned n)
{
    unsigned i;

    if (deed == DEED_WRITE)
        atomic_store(&r->guest.state[page], atomic_load(&r->guest.state[page]) == CONTENT_IMAGE
                                                ? CONTENT_IMAGE_STAMPED
                                                : CONTENT_ZERO_STAMPED);
    for (i = 0; deed == DEED_DISCARD && i < n; i++)
        atomic_store(&r->guest.state[page + i], CONTENT_ZERO);
}

/* ---- the pager ------------------------------------------------------------------------------------------------ */

static void nap_us(uint64_t us)
{
    struct timespec ts = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000) * 1000};

    nanosleep(&ts, NULL);
}

static void find_state(struct run *r, const char *dir)
{
    uint64_t until = now_ns() + DEADLINE_NS;
    char path[512] = "";
    struct dirent *e;
    struct stat st;
    DIR *d = NULL;
    void *mem;
    int fd;

    while (path[0] == '\0' && now_ns() < until) {
        d = opendir(dir);
        while (d && (e = readdir(d))) {
            size_t len = strlen(e->d_name);

            if (len > 6 && strcmp(e->d_name + len - 6, ".state") == 0)
                snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        }
        if (d)
            closedir(d);
        nap_us(1000);
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "no state file in %s", dir);
    mem = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (mem == MAP_FAILED || block_open(&r->block, mem, (size_t)st.st_size) != 0)
        peer_die(PEER_EXIT_ABSENT, errno, "%s is not a state file", path);
    close(fd);
}

static pid_t pager_pid(const struct run *r)
{
    return __atomic_load_n(&r->block.header->pager_pid, __ATOMIC_ACQUIRE);
}

/* wait_for_pager() - a pager other than the last one serves and has nothing to do */
static pid_t wait_for_pager(const struct run *r, bool sleeping)
{
    uint64_t until = now_ns() + DEADLINE_NS;
    pid_t pid;

    for (;;) {
        pid = pager_pid(r);
        if (pid != r->last_pid && r->block.header->generation > 0 &&
            (!sleeping || is_sleeping(pid)))
            return pid;
        if (now_ns() > until)
            peer_die(PEER_EXIT_STUCK, 0, "no pager came back");
        nap_us(50);
    }
}

static void wait_for_orders(const char *where)
{
    uint64_t until = now_ns() + DEADLINE_NS;

    while (!doers_done()) {
        if (now_ns() > until)
            peer_die(PEER_EXIT_STUCK, 0, "%s: a thread is stranded", where);
        nap_us(20);
    }
}

/* check_recorded() - a page that was written to is DIRTY, once the pager has nothing to do */
static void check_recorded(struct run *r, uint64_t page, const char *where)
{
    enum page_state state;

    wait_for_pager(r, true);
    state = pagetab_get(&r->block.pages, page);
    if (state != PAGE_DIRTY)
        peer_die(PEER_EXIT_WRONG, 0, "%s: page %llu was written to and is %s", where,
                 (unsigned long long)page, page_state_names[state]);
}

/* ---- one try -------------------------------------------------------------------------------------------------- */

/* claim_pages() - fresh pages, the first of them of this kind */
static uint64_t claim_pages(struct run *r, enum block_kind kind)
{
    uint64_t page = r->next_page;

    while (oracle_kind(&r->guest.oracle, page) != kind)
        page += TRY_PAGES;
    if (page + TRY_PAGES > r->guest.n_pages)
        peer_die(PEER_EXIT_USAGE, 0, "--size is too small for so many tries");
    r->next_page = page + TRY_PAGES;
    return page;
}

/* next_slice() - the pages that the stopped pager will fill next */
static uint64_t next_slice(const struct run *r)
{
    uint64_t page = pagetab_find(&r->block.pages, PAGE_ABSENT, 0, r->guest.n_pages);

    if (page + TRY_PAGES > r->guest.n_pages)
        peer_die(PEER_EXIT_USAGE, 0, "--size is too small for so many slices");
    filled_before = r->block.header->counters.pages_ahead;
    return page;
}

static void give_order(const struct run *r, unsigned doer, struct order order, uint64_t page)
{
    order.page = page_at(r, page);
    order.word = oracle_own(&r->guest.oracle, page, 511, 1);
    doer_order(doer, &order);
}

static void do_and_wait(struct run *r, enum deed deed, uint64_t page, unsigned n)
{
    give_order(r, 0, (struct order){.deed = deed, .n = n}, page);
    wait_for_orders("preparation");
    changed(r, deed, page, n);
}

static void prepare(struct run *r, const struct scenario *s, uint64_t page)
{
    unsigned i;

    for (i = 0; s->read_before && i < 4; i++)
        do_and_wait(r, DEED_READ, page + i, 0);
    if (s->discard_before)
        do_and_wait(r, DEED_DISCARD, page, 4);
}

static void start_orders(struct run *r, const struct scenario *s, uint64_t page)
{
    unsigned i;

    for (i = 0; i < N_DOERS; i++) {
        if (s->orders[i].deed != DEED_NONE)
            give_order(r, i, s->orders[i], page + s->pages[i]);
    }
}

/* check_try() - after the discards: whoever read during one may have seen either side, from now on it is zero */
static void check_try(struct run *r, const struct scenario *s, uint64_t page)
{
    unsigned i;

    for (i = 0; i < N_DOERS; i++) {
        if (s->orders[i].deed == DEED_DISCARD)
            changed(r, DEED_DISCARD, page + s->pages[i], s->orders[i].n);
    }
    for (i = 0; i < N_DOERS; i++) {
        if (s->orders[i].deed != DEED_WRITE)
            continue;
        changed(r, DEED_WRITE, page + s->pages[i], 1);
        if (r->track)
            check_recorded(r, page + s->pages[i], s->name);
    }
    for (i = 0; i < TRY_PAGES; i++)
        check_page(r, page + i, s->name);
}

/* kill_successor() - the next pager as well, wherever it is: it may be in the middle of taking over */
static void kill_successor(struct run *r)
{
    pid_t pid = wait_for_pager(r, false);

    nap_us(next_random(r) % 800);
    if (pager_pid(r) == pid && kill(pid, SIGKILL) == 0) {
        r->last_pid = pid;
        r->n_second_kills++;
    }
}

static enum reached try_place(struct run *r, const struct scenario *s, const struct place *place)
{
    uint64_t page = s->slice ? 0 : claim_pages(r, s->kind), killed_ns;
    enum reached reached;
    pid_t pid;

    alarm(WATCHDOG_S);
    prepare(r, s, page);
    pid = wait_for_pager(r, true);
    trace_stop(pid);
    if (s->slice)
        page = next_slice(r);
    start_orders(r, s, page);
    reached = trace_step_to(pid, place, s->slice ? slice_done : NULL);
    if (reached == REACHED_SLEEP) {
        trace_let_go(pid);
        wait_for_orders(s->name);
        check_try(r, s, page);
        return reached;
    }
    killed_ns = trace_kill(pid);
    r->last_pid = pid;
    r->n_kills++;
    if (next_random(r) % 4 == 0)
        kill_successor(r);
    wait_for_orders(s->name);
    if (doers_done_ns() > killed_ns && r->n_pauses < MAX_PAUSES)
        r->pauses_us[r->n_pauses++] = (uint32_t)((doers_done_ns() - killed_ns) / 1000);
    check_try(r, s, page);
    return reached;
}

/* ---- all places ----------------------------------------------------------------------------------------------- */

static void take_some(struct run *r, const struct scenario *s)
{
    struct place place = {0};

    for (;; place.n_syscalls++) {
        place.n_steps = 0;
        if (try_place(r, s, &place) == REACHED_SLEEP)
            return;
        place.n_steps = STEPS_ALL;
        if (try_place(r, s, &place) == REACHED_SLEEP)
            return;
        place.n_steps = (unsigned)(next_random(r) % 200);
        if (try_place(r, s, &place) == REACHED_SLEEP)
            return;
    }
}

static void take_all(struct run *r, const struct scenario *s)
{
    struct place place = {0};

    for (;; place.n_syscalls++) {
        for (place.n_steps = r->share;; place.n_steps += r->n_shares) {
            enum reached reached = try_place(r, s, &place);

            if (reached == REACHED_SLEEP)
                return;
            if (reached == REACHED_SYSCALL)
                break;
        }
    }
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void take_scenario(struct run *r, const struct scenario *s)
{
    r->n_pauses = r->n_kills = r->n_second_kills = 0;
    filling = &r->block;
    if (s->slice)
        r->next_page = r->guest.n_pages; /* all pages are looked at in the end */
    if (r->all)
        take_all(r, s);
    else
        take_some(r, s);
    qsort(r->pauses_us, r->n_pauses, sizeof(*r->pauses_us), compare_u32);
    printf(
        "{\"scenario\":\"%s\",\"kills\":%u,\"second_kills\":%u,\"pause_us\":{\"n\":%u,\"p50\":%u,"
        "\"max\":%u}}\n",
        s->name, r->n_kills, r->n_second_kills, r->n_pauses,
        r->n_pauses ? r->pauses_us[r->n_pauses / 2] : 0,
        r->n_pauses ? r->pauses_us[r->n_pauses - 1] : 0);
    fflush(stdout);
}

static const struct scenario *find_scenario(const char *name)
{
    unsigned i;

    for (i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        if (strcmp(scenarios[i].name, name) == 0)
            return &scenarios[i];
    }
    peer_die(PEER_EXIT_USAGE, 0, "no scenario %s", name);
}

static uint64_t parse_size(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 0);

    return *end == 'M' ? n << 20 : n;
}

static void parse_options(struct run *r, int argc, char **argv, const char **socket_path,
                          const char **dir)
{
    static const struct option options[] = {
        {"socket", required_argument, NULL, 's'}, {"state", required_argument, NULL, 'd'},
        {"size", required_argument, NULL, 'n'},   {"seed", required_argument, NULL, 'r'},
        {"share", required_argument, NULL, 'h'},  {"all", no_argument, NULL, 'a'},
        {"track", no_argument, NULL, 't'},        {NULL, 0, NULL, 0},
    };
    int c;

    r->n_shares = 1;
    while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        if (c == 's')
            *socket_path = optarg;
        else if (c == 'd')
            *dir = optarg;
        else if (c == 'n')
            r->guest.n_pages = parse_size(optarg) / BLOCK_BYTES;
        else if (c == 'r')
            r->guest.oracle.seed = strtoull(optarg, NULL, 0);
        else if (c == 'h' && sscanf(optarg, "%u/%u", &r->share, &r->n_shares) == 2)
            continue;
        else if (c == 'a')
            r->all = true;
        else if (c == 't')
            r->track = true;
        else
            peer_die(PEER_EXIT_USAGE, 0, "see the head of killstep.c");
    }
    if (!*socket_path || !*dir || r->guest.n_pages == 0 || r->n_shares == 0)
        peer_die(PEER_EXIT_USAGE, 0, "--socket, --state and --size are needed");
}

static void on_alarm(int signal)
{
    static const char text[] = "killstep: a try took too long\n";

    (void)signal;
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        _exit(PEER_EXIT_ABSENT);
    _exit(PEER_EXIT_STUCK);
}

int main(int argc, char **argv)
{
    static struct run r;
    struct plan plan = {.page_shift = 12, .n_regions = 1, .adjacent = true, .page_field = "both"};
    const char *socket_path = NULL, *dir = NULL;
    uint64_t page;
    int i;

    parse_options(&r, argc, argv, &socket_path, &dir);
    r.rng = r.guest.oracle.seed * 0x9e3779b97f4a7c15u | 1;
    r.pauses_us = calloc(MAX_PAUSES, sizeof(*r.pauses_us));
    signal(SIGALRM, on_alarm);
    plan.n_pages = r.guest.n_pages;
    guest_map(&r.guest, &plan);
    r.guest.base = r.guest.regions[0].hva;
    guest_attach(&r.guest, &plan, socket_path);
    find_state(&r, dir);
    doers_start();
    for (i = optind; i < argc; i++)
        take_scenario(&r, find_scenario(argv[i]));
    for (page = 0; page < r.next_page; page++)
        check_page(&r, page, "at the end");
    return 0;
}
