/* SPDX-License-Identifier: Apache-2.0 */
/*
 * burst.c - the threads of a burst
 *
 * A burst is an array and an index that all threads count up. Between two bursts the pager thread only chooses what comes
 * next, so the helpers look out for it for a moment (SPIN_NS) before they sleep: to wake a thread takes as long as to install
 * a dozen pages.
 */
#include "pager/burst.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/thread.h"

#define THREADS_MAX 4u
#define STACK_BYTES (64 * KIB)
#define SPIN_NS     (100 * NS_PER_US)

struct burst {
    int uffd;
    pthread_t threads[THREADS_MAX];
    unsigned n_helpers; /* that were started */

    pthread_mutex_t mutex; /* for the two conditions */
    pthread_cond_t begin;
    pthread_cond_t end;

    struct burst_op *ops; /* (borrow) of the burst under way */
    unsigned n_ops;
    unsigned next;      /* atomic: which one is to be done next */
    unsigned number;    /* atomic: of the burst; 0: none yet */
    unsigned n_working; /* atomic: helpers that are not done with it */
    bool ending;        /* atomic */
};

struct install_result burst_op_do(int uffd, struct burst_op op)
{
    return op.src ? uffd_copy(uffd, op.dst, op.src, op.len, op.arm)
                  : uffd_zeropage(uffd, op.dst, op.len);
}

static void work(struct burst *b)
{
    unsigned i;

    while ((i = __atomic_fetch_add(&b->next, 1, __ATOMIC_RELAXED)) < b->n_ops) {
        struct burst_op *op = &b->ops[i];

        op->result = burst_op_do(b->uffd, *op);
    }
}

static bool has_begun(struct burst *b, unsigned last)
{
    return __atomic_load_n(&b->number, __ATOMIC_ACQUIRE) != last ||
           __atomic_load_n(&b->ending, __ATOMIC_ACQUIRE);
}

/* wait_begin() - for another burst than the @last. Return: its number; @last: it is time to end */
static unsigned wait_begin(struct burst *b, unsigned last)
{
    uint64_t until_ns = clock_now_ns() + SPIN_NS;

    while (!has_begun(b, last) && clock_now_ns() < until_ns)
        continue;
    if (!has_begun(b, last)) {
        pthread_mutex_lock(&b->mutex);
        while (!has_begun(b, last))
            pthread_cond_wait(&b->begin, &b->mutex);
        pthread_mutex_unlock(&b->mutex);
    }
    return __atomic_load_n(&b->number, __ATOMIC_ACQUIRE);
}

static void *helper_main(void *arg)
{
    struct burst *b = arg;
    unsigned last = 0;
    unsigned number;

    while ((number = wait_begin(b, last)) != last) {
        last = number;
        work(b);
        pthread_mutex_lock(&b->mutex);
        if (__atomic_sub_fetch(&b->n_working, 1, __ATOMIC_RELEASE) == 0)
            pthread_cond_signal(&b->end);
        pthread_mutex_unlock(&b->mutex);
    }
    return NULL;
}

void burst_run(struct burst *b, struct burst_op *ops, unsigned n)
{
    b->ops = ops;
    b->n_ops = n;
    __atomic_store_n(&b->next, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&b->n_working, b->n_helpers, __ATOMIC_RELAXED);
    pthread_mutex_lock(&b->mutex);
    __atomic_store_n(&b->number, b->number + 1, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&b->begin);
    pthread_mutex_unlock(&b->mutex);
    work(b);
    pthread_mutex_lock(&b->mutex);
    while (__atomic_load_n(&b->n_working, __ATOMIC_ACQUIRE) > 0)
        pthread_cond_wait(&b->end, &b->mutex);
    pthread_mutex_unlock(&b->mutex);
}

/* #syscalls:start sched_getaffinity */
unsigned burst_threads(void)
{
    cpu_set_t cpus;

    if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
        return 1; /* more processors than the set has room for, or none to tell */
    return (unsigned)min_u64((uint64_t)CPU_COUNT(&cpus), THREADS_MAX);
}

static int start_helpers(struct burst *b, unsigned n)
{
    int r = 0;

    while (b->n_helpers < n && r == 0) {
        r = thread_start(&b->threads[b->n_helpers], STACK_BYTES, helper_main, b);
        b->n_helpers += r == 0;
    }
    return r == 0 ? 0 : err_origin_errno(r, "cannot start thread %u for installs", b->n_helpers);
}

int burst_new(struct burst **out, int uffd, unsigned n_threads)
{
    struct burst *b = calloc(1, sizeof(*b));
    int r;

    if (!b)
        return err_origin_errno(-ENOMEM, "cannot set up threads for installs");
    b->uffd = uffd;
    pthread_mutex_init(&b->mutex, NULL);
    pthread_cond_init(&b->begin, NULL);
    pthread_cond_init(&b->end, NULL);
    r = start_helpers(b, (unsigned)min_u64(n_threads, THREADS_MAX) - 1);
    if (r < 0) {
        (void)burst_free(b);
        return r;
    }
    *out = b;
    return 0;
}

struct burst *burst_free(struct burst *b)
{
    if (!b)
        return NULL;
    pthread_mutex_lock(&b->mutex);
    __atomic_store_n(&b->ending, true, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&b->begin);
    pthread_mutex_unlock(&b->mutex);
    for (unsigned i = 0; i < b->n_helpers; i++)
        pthread_join(b->threads[i], NULL);
    pthread_cond_destroy(&b->end);
    pthread_cond_destroy(&b->begin);
    pthread_mutex_destroy(&b->mutex);
    free(b);
    return NULL;
}
