/* SPDX-License-Identifier: Apache-2.0 */
/*
 * killstep_doer.c - threads that touch guest memory so that the first thread never does
 *
 * A doer may sleep in a page fault until a pager comes back. Whoever gave the order looks at doers_done() and has its
 * own deadline.
 */
#include "killstep.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include "uffd_peer.h"

struct doer {
    pthread_mutex_t mutex;
    pthread_cond_t wanted;
    struct order order;
    atomic_bool busy;
    _Atomic uint64_t done_ns;
};

static struct doer doers[N_DOERS];

uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void carry_out(const struct order *o)
{
    switch (o->deed) {
    case DEED_NONE:
        break;
    case DEED_READ:
        (void)*(volatile uint64_t *)(void *)o->page;
        break;
    case DEED_WRITE:
        ((volatile uint64_t *)(void *)o->page)[511] = o->word;
        break;
    case DEED_DISCARD:
        if (madvise(o->page, (size_t)o->n * 4096, MADV_DONTNEED) < 0)
            peer_die(PEER_EXIT_ABSENT, errno, "MADV_DONTNEED");
        break;
    }
}

static void *doer_main(void *arg)
{
    struct doer *d = arg;

    for (;;) {
        pthread_mutex_lock(&d->mutex);
        while (!atomic_load(&d->busy))
            pthread_cond_wait(&d->wanted, &d->mutex);
        pthread_mutex_unlock(&d->mutex);
        carry_out(&d->order);
        atomic_store(&d->done_ns, now_ns());
        atomic_store(&d->busy, false);
    }
    return NULL;
}

void doers_start(void)
{
    pthread_t thread;
    unsigned i;

    for (i = 0; i < N_DOERS; i++) {
        pthread_mutex_init(&doers[i].mutex, NULL);
        pthread_cond_init(&doers[i].wanted, NULL);
        if (pthread_create(&thread, NULL, doer_main, &doers[i]) != 0)
            peer_die(PEER_EXIT_ABSENT, 0, "pthread_create");
    }
}

void doer_order(unsigned i, const struct order *order)
{
    struct doer *d = &doers[i];

    pthread_mutex_lock(&d->mutex);
    d->order = *order;
    atomic_store(&d->busy, true);
    pthread_cond_signal(&d->wanted);
    pthread_mutex_unlock(&d->mutex);
}

bool doers_done(void)
{
    unsigned i;

    for (i = 0; i < N_DOERS; i++) {
        if (atomic_load(&doers[i].busy))
            return false;
    }
    return true;
}

uint64_t doers_done_ns(void)
{
    uint64_t last = 0;
    unsigned i;

    for (i = 0; i < N_DOERS; i++) {
        if (atomic_load(&doers[i].done_ns) > last)
            last = atomic_load(&doers[i].done_ns);
    }
    return last;
}
