/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aside.c - the thread, the ring, and who has the userfaultfd
 *
 * The ring has three positions, which only grow: what was given, what is done, what was taken out. `done` is the thread's, the
 * others are the pager thread's and do not change while it has lent the userfaultfd.
 *
 * Who has it is Dekker's agreement. The thread says that it is busy, then looks whether it was lent anything; the pager
 * thread says that it lends nothing, then looks whether the other is busy. Whoever comes second sees the first: all four are
 * sequentially consistent. Both look out for each other for a moment (SPIN_NS) before they sleep, since an install takes less
 * time than being woken.
 */
#include "pager/aside.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/thread.h"

#define STACK_BYTES (64 * KIB)
#define SPIN_NS     (50 * NS_PER_US)
#define LITTLE      (ASIDE_OPS / 2) /* left in the ring: time for more */
static_assert((ASIDE_OPS & (ASIDE_OPS - 1)) == 0, "positions wrap around");

struct aside {
    int uffd; /* (borrow) */
    uint64_t page_bytes;
    int fd; /* owned */
    pthread_t thread;
    bool started;

    struct aside_op ops[ASIDE_OPS];
    unsigned given;
    unsigned done; /* atomic: by the thread */
    unsigned taken;

    bool lent;       /* atomic */
    uint64_t gap_ns; /* does not change while it is lent */
    bool busy;       /* atomic: an install is under way, or about to be looked for */

    pthread_mutex_t mutex; /* for those who sleep */
    pthread_cond_t begin;
    pthread_cond_t end;
    bool sleeps; /* atomic: the thread, until `begin` */
    bool waits;  /* atomic: the pager thread, until `end` */
    bool ending; /* atomic */
};

static bool has_work(const struct aside *a)
{
    return __atomic_load_n(&a->ending, __ATOMIC_SEQ_CST) ||
           (__atomic_load_n(&a->lent, __ATOMIC_SEQ_CST) &&
            a->done != __atomic_load_n(&a->given, __ATOMIC_RELAXED));
}

static void wait_work(struct aside *a)
{
    uint64_t until_ns = clock_now_ns() + SPIN_NS;

    while (!has_work(a) && clock_now_ns() < until_ns)
        continue;
    if (has_work(a))
        return;
    pthread_mutex_lock(&a->mutex);
    __atomic_store_n(&a->sleeps, true, __ATOMIC_SEQ_CST);
    while (!has_work(a))
        pthread_cond_wait(&a->begin, &a->mutex);
    __atomic_store_n(&a->sleeps, false, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&a->mutex);
}

/*
 * install() - all of it that can be; pages that are there already stand in nobody's way
 *
 * An install that ends before such a page, or before a discard, only says how far it came: the next one says which it was.
 */
static void install(const struct aside *a, struct aside_op *op)
{
    struct install_result r = {.outcome = OUTCOME_DONE};
    uint64_t done = 0;

    while (done < op->op.len) {
        struct burst_op rest = op->op;

        rest.dst += done;
        rest.len -= done;
        if (rest.src)
            rest.src = (const char *)rest.src + done;
        r = burst_op_do(a->uffd, rest);
        done += r.bytes_done;
        if (r.outcome == OUTCOME_EXISTS) {
            op->found |= 1ull << (done / a->page_bytes);
            done += a->page_bytes;
        } else if (r.outcome != OUTCOME_DONE && (r.outcome != OUTCOME_AGAIN || r.bytes_done == 0)) {
            break;
        }
    }
    op->op.result.outcome = done == op->op.len ? OUTCOME_DONE : r.outcome;
    op->op.result.bytes_done = done;
}

/*
 * install_next() - the next one in the ring. One that cannot be installed whole ends it: the pager thread is to know
 * Return: how many are left to do; UINT_MAX: none was done, the userfaultfd was taken back
 */
static unsigned install_next(struct aside *a)
{
    unsigned at = a->done;
    struct aside_op *op = &a->ops[at % ASIDE_OPS];

    if (!__atomic_load_n(&a->lent, __ATOMIC_SEQ_CST) || at == a->given)
        return UINT_MAX;
    install(a, op);
    __atomic_store_n(&a->done, at + 1, __ATOMIC_RELEASE);
    if (op->op.result.outcome != OUTCOME_DONE) {
        __atomic_store_n(&a->lent, false, __ATOMIC_SEQ_CST);
        return 0;
    }
    return a->given - at - 1;
}

/* leave_gap() - not by sleeping, which may take much longer */
static void leave_gap(const struct aside *a)
{
    uint64_t gap_ns = __atomic_load_n(&a->gap_ns, __ATOMIC_RELAXED);
    uint64_t until_ns;

    if (gap_ns == 0)
        return;
    until_ns = clock_now_ns() + gap_ns;
    while (__atomic_load_n(&a->lent, __ATOMIC_RELAXED) && clock_now_ns() < until_ns)
        continue;
}

/* #syscalls write */
static void *aside_main(void *arg)
{
    struct aside *a = arg;

    for (;;) {
        unsigned left;

        wait_work(a);
        if (__atomic_load_n(&a->ending, __ATOMIC_SEQ_CST))
            return NULL;
        __atomic_store_n(&a->busy, true, __ATOMIC_SEQ_CST);
        left = install_next(a);
        __atomic_store_n(&a->busy, false, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&a->waits, __ATOMIC_SEQ_CST)) {
            pthread_mutex_lock(&a->mutex);
            pthread_cond_signal(&a->end);
            pthread_mutex_unlock(&a->mutex);
        }
        if (left == LITTLE || left == 0)
            (void)eventfd_write(a->fd, 1);
        leave_gap(a);
    }
}

void aside_lend(struct aside *a, uint64_t gap_ns)
{
    if (!__atomic_load_n(&a->lent, __ATOMIC_RELAXED))
        __atomic_store_n(&a->gap_ns, gap_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&a->lent, true, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&a->sleeps, __ATOMIC_SEQ_CST))
        return;
    pthread_mutex_lock(&a->mutex);
    pthread_cond_signal(&a->begin);
    pthread_mutex_unlock(&a->mutex);
}

bool aside_is_lent(const struct aside *a)
{
    return __atomic_load_n(&a->lent, __ATOMIC_RELAXED);
}

static bool is_busy(const struct aside *a)
{
    return __atomic_load_n(&a->busy, __ATOMIC_SEQ_CST);
}

void aside_take_back(struct aside *a)
{
    uint64_t until_ns;

    __atomic_store_n(&a->lent, false, __ATOMIC_SEQ_CST);
    if (!is_busy(a))
        return;
    until_ns = clock_now_ns() + SPIN_NS;
    while (is_busy(a) && clock_now_ns() < until_ns)
        continue;
    if (!is_busy(a))
        return;
    pthread_mutex_lock(&a->mutex);
    __atomic_store_n(&a->waits, true, __ATOMIC_SEQ_CST);
    while (is_busy(a))
        pthread_cond_wait(&a->end, &a->mutex);
    __atomic_store_n(&a->waits, false, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&a->mutex);
}

static unsigned n_done(const struct aside *a)
{
    return __atomic_load_n(&a->done, __ATOMIC_ACQUIRE);
}

unsigned aside_room(const struct aside *a)
{
    return ASIDE_OPS - (a->given - a->taken);
}

unsigned aside_left(const struct aside *a)
{
    return a->given - n_done(a);
}

bool aside_is_empty(const struct aside *a)
{
    return a->given == a->taken;
}

void aside_give(struct aside *a, const struct burst_op *op)
{
    assert(aside_room(a) > 0 && !a->lent && op->len <= ASIDE_PAGES * a->page_bytes);
    a->ops[a->given % ASIDE_OPS] = (struct aside_op){.op = *op};
    __atomic_store_n(&a->given, a->given + 1, __ATOMIC_RELAXED); /* lending publishes it */
}

bool aside_take_done(struct aside *a, struct aside_op *op)
{
    assert(!a->lent);
    if (a->taken == n_done(a))
        return false;
    *op = a->ops[a->taken++ % ASIDE_OPS];
    return true;
}

void aside_drop(struct aside *a)
{
    assert(!a->lent);
    __atomic_store_n(&a->given, n_done(a), __ATOMIC_RELAXED);
}

int aside_fd(const struct aside *a)
{
    return a->fd;
}

/* #syscalls:start eventfd2 */
int aside_new(struct aside **out, int uffd, uint64_t page_bytes)
{
    struct aside *a = calloc(1, sizeof(*a));
    int r;

    if (!a)
        return err_origin_errno(-ENOMEM, "cannot set up a thread for installs");
    a->uffd = uffd;
    a->page_bytes = page_bytes;
    pthread_mutex_init(&a->mutex, NULL);
    pthread_cond_init(&a->begin, NULL);
    pthread_cond_init(&a->end, NULL);
    a->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = a->fd < 0 ? -errno : thread_start(&a->thread, STACK_BYTES, aside_main, a);
    a->started = r == 0;
    if (r < 0) {
        (void)aside_free(a);
        return err_origin_errno(r, "cannot start a thread for installs");
    }
    *out = a;
    return 0;
}

struct aside *aside_free(struct aside *a)
{
    if (!a)
        return NULL;
    if (a->started) {
        pthread_mutex_lock(&a->mutex);
        __atomic_store_n(&a->ending, true, __ATOMIC_SEQ_CST);
        pthread_cond_signal(&a->begin);
        pthread_mutex_unlock(&a->mutex);
        pthread_join(a->thread, NULL);
    }
    pthread_cond_destroy(&a->end);
    pthread_cond_destroy(&a->begin);
    pthread_mutex_destroy(&a->mutex);
    (void)fd_close(a->fd);
    free(a);
    return NULL;
}
