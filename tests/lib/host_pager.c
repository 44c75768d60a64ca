/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_pager.c - several pagers in one process, over a source that does what a test says
 *
 *     host_pager DIR N_PAGES N_PAGERS [forgetful]
 *
 * Made with the public interface only. Pager I listens on DIR/sI, keeps its state in DIR/stateI, and serves one VMM; then
 * another takes its place, until this process's input ends. Page P of each snapshot is full of bytes P + 1 (modulo 256).
 * All pagers share one source's will, which lines on stdin change; each is answered with "ok":
 *
 *     away P...       the page is not in memory any more: it must be fetched, and the fetch waits for what comes next
 *     let P           the fetch may end, well
 *     fail P          the fetch may end, in an input/output error
 *     forget P        the page is nowhere: locate() fails
 *     churn N         N threads open and close files all the time, so that a number that was closed is used again at once
 *
 * A forgetful source puts each page where it says it is when it is asked, and has other bytes there once it may drop what it gave;
 * its pagers install everything ahead of the VM.
 *
 * Says "listening I", "fetching P" when a worker has begun, and "ended I RESULT" for each VMM.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <thaw/thaw.h>

#define PAGE_BYTES 4096ull
#define PAGES_MAX  65536u
#define PAGERS_MAX 64u
#define CHURN_FDS  12u

enum will {
    WILL_MEMORY,
    WILL_AWAY,
    WILL_FAIL,
    WILL_FORGET,
};

struct host {
    unsigned id;
    char socket[200];
    char state[200];
};

static char *image; /* N_PAGES pages */
static unsigned n_pages;
static const char *dir;
static struct host hosts[PAGERS_MAX];
static enum will wills[PAGES_MAX]; /* under the mutex */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void say(const char *what, unsigned long number, const char *more)
{
    printf("%s %lu%s\n", what, number, more);
    fflush(stdout);
}

static enum will will_of(uint64_t off)
{
    enum will will;

    pthread_mutex_lock(&mutex);
    will = wills[off / PAGE_BYTES];
    pthread_mutex_unlock(&mutex);
    return will;
}

/* One page at a time is all that it says: what it says of a page holds for that page alone. */
static int locate(void *self, struct thaw_extent *out, uint64_t off, uint64_t lo, uint64_t hi,
                  uint64_t page_bytes)
{
    enum will will = will_of(off);

    (void)self;
    (void)lo;
    (void)hi;
    if (will == WILL_FORGET)
        return -ESTALE;
    *out = (struct thaw_extent){
        .where = will == WILL_MEMORY ? THAW_WHERE_MEMORY : THAW_WHERE_ELSEWHERE,
        .first = off,
        .end = off + page_bytes,
        .bytes = will == WILL_MEMORY ? image + off : NULL,
    };
    return 0;
}

static int fetch(void *self, uint64_t lo, uint64_t hi)
{
    uint64_t page = lo / PAGE_BYTES;
    int r;

    (void)self;
    (void)hi;
    say("fetching", page, "");
    pthread_mutex_lock(&mutex);
    while (wills[page] == WILL_AWAY)
        pthread_cond_wait(&changed, &mutex);
    r = wills[page] == WILL_FAIL ? -EIO : 0;
    pthread_mutex_unlock(&mutex);
    return r;
}

static const struct thaw_source_ops ops = {.name = "host", .locate = locate, .fetch = fetch};

/* ---- the forgetful source ------------------------------------------------------------------------------------- */

#define FORGOTTEN 0xee

/* One for each pager: all of it is its thread's. */
struct memory {
    char *bytes; /* n_pages pages */
    uint64_t first;
    uint64_t end; /* what was given since the last trim() lies within */
};

static int forgetful_locate(void *self, struct thaw_extent *out, uint64_t off, uint64_t lo,
                            uint64_t hi, uint64_t page_bytes)
{
    struct memory *m = self;

    (void)lo;
    (void)page_bytes;
    memcpy(m->bytes + off, image + off, hi - off);
    m->first = off < m->first ? off : m->first;
    m->end = hi > m->end ? hi : m->end;
    *out = (struct thaw_extent){
        .where = THAW_WHERE_MEMORY, .first = off, .end = hi, .bytes = m->bytes + off, .lasting = 1};
    return 0;
}

static void forget_all(void *self)
{
    struct memory *m = self;

    if (m->first < m->end)
        memset(m->bytes + m->first, FORGOTTEN, m->end - m->first);
    m->first = UINT64_MAX;
    m->end = 0;
}

static const struct thaw_source_ops forgetful_ops = {
    .name = "forgetful", .locate = forgetful_locate, .trim = forget_all};
static bool forgetful;

static void be_forgetful(struct thaw_pager_options *opts)
{
    struct memory *m = calloc(1, sizeof(*m));

    if (!m || !(m->bytes = malloc(n_pages * PAGE_BYTES)))
        exit(1);
    m->end = n_pages * PAGE_BYTES;
    forget_all(m);
    opts->source = &forgetful_ops;
    opts->source_self = m; /* kept to the end */
    opts->fill = 1;
}

/* ---- pagers ---------------------------------------------------------------------------------------------------- */

static int serve_one(const struct host *h)
{
    struct thaw_pager_options opts = {
        .socket_path = h->socket,
        .state_dir = h->state,
        .source = &ops,
        .source_size_bytes = n_pages * PAGE_BYTES,
    };
    struct thaw_pager *pager = NULL;
    int r;

    if (forgetful)
        be_forgetful(&opts);
    r = thaw_pager_new(&pager, &opts);
    if (r < 0) {
        fprintf(stderr, "host_pager: %s\n", thaw_last_error());
        exit(1);
    }
    say("listening", h->id, "");
    r = thaw_pager_accept(pager);
    if (r == 0)
        r = thaw_pager_run(pager);
    if (r < 0)
        fprintf(stderr, "host_pager: %s\n", thaw_last_error());
    thaw_pager_free(pager);
    return r;
}

static void *host_main(void *arg)
{
    const struct host *h = arg;

    for (;;)
        say("ended", h->id, serve_one(h) < 0 ? " badly" : " well");
    return NULL;
}

/* Has some files open at any time, and finds out when somebody else closes one of them. */
static void *churn_main(void *arg)
{
    int fds[CHURN_FDS];
    char text[16];

    (void)arg;
    for (;;) {
        for (unsigned i = 0; i < CHURN_FDS; i++)
            fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
        for (unsigned i = 0; i < CHURN_FDS; i++) {
            if (fds[i] >= 0 && (read(fds[i], text, sizeof(text)) != 0 || close(fds[i]) < 0))
                abort();
        }
    }
    return NULL;
}

static void start(void *(*fn)(void *), void *arg)
{
    pthread_t t;

    if (pthread_create(&t, NULL, fn, arg) != 0)
        exit(1);
}

static void will(const char *pages, enum will how)
{
    char *end;

    pthread_mutex_lock(&mutex);
    for (unsigned long p = strtoul(pages, &end, 0); end != pages; p = strtoul(pages, &end, 0)) {
        if (p < n_pages)
            wills[p] = how;
        pages = end;
    }
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

static void command(const char *line)
{
    if (!strncmp(line, "away ", 5))
        will(line + 5, WILL_AWAY);
    else if (!strncmp(line, "let ", 4))
        will(line + 4, WILL_MEMORY);
    else if (!strncmp(line, "fail ", 5))
        will(line + 5, WILL_FAIL);
    else if (!strncmp(line, "forget ", 7))
        will(line + 7, WILL_FORGET);
    else if (!strncmp(line, "churn ", 6))
        for (long i = strtol(line + 6, NULL, 0); i > 0; i--)
            start(churn_main, NULL);
    printf("ok\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    unsigned n_pagers;
    char line[256];

    if (argc != 4 && !(argc == 5 && !strcmp(argv[4], "forgetful")))
        return 2;
    forgetful = argc == 5;
    alarm(100);
    dir = argv[1];
    n_pages = (unsigned)strtoul(argv[2], NULL, 0);
    n_pagers = (unsigned)strtoul(argv[3], NULL, 0);
    if (n_pages == 0 || n_pages > PAGES_MAX || n_pagers == 0 || n_pagers > PAGERS_MAX)
        return 2;
    image = mmap(NULL, n_pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                 -1, 0);
    if (image == MAP_FAILED)
        return 1;
    for (unsigned p = 0; p < n_pages; p++)
        memset(image + p * PAGE_BYTES, (int)((p + 1) & 0xff), PAGE_BYTES);
    for (unsigned i = 0; i < n_pagers; i++) {
        struct host *h = &hosts[i];

        h->id = i;
        snprintf(h->socket, sizeof(h->socket), "%s/s%u", dir, i);
        snprintf(h->state, sizeof(h->state), "%s/state%u", dir, i);
        start(host_main, h);
    }
    while (fgets(line, sizeof(line), stdin))
        command(line);
    _exit(0); /* pagers that wait for a VMM are left as they are */
}
