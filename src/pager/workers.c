/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/workers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/thread.h"

#define STACK_BYTES (256 * KIB)

#define QUEUE_ROOM  (WORKERS_MAX_JOBS + WORKERS_MAX_AHEAD)

/* struct queue - a ring of jobs; never full: see workers.h */
struct queue {
    struct fetch_job jobs[QUEUE_ROOM];
    unsigned head;
    unsigned n;
};

struct workers {
    struct source *source; /* (borrow) */
    int fd;                /* owned eventfd: something is done */
    pthread_t *threads;    /* owned */
    unsigned n_threads;    /* that were started */

    pthread_mutex_t mutex; /* guards what follows; held for a copy of a job, never around a read */
    pthread_cond_t wanted; /* there is something that a thread may take, or ending is set */
    bool ending;
    unsigned max_ahead; /* how many threads may read ahead at a time; constant */
    unsigned n_ahead;   /* threads that read ahead now: never all, where there is more than one */
    struct queue todo;
    struct queue ahead; /* when nothing is to do */
    struct queue done;
};

static void queue_push(struct queue *q, const struct fetch_job *job)
{
    assert(q->n < QUEUE_ROOM);
    q->jobs[(q->head + q->n) % QUEUE_ROOM] = *job;
    q->n++;
}

static bool queue_pop(struct queue *q, struct fetch_job *job)
{
    if (q->n == 0)
        return false;
    *job = q->jobs[q->head];
    q->n--;
    /* From the start when there is nothing left: jobs are large, and those that are never used take no memory. */
    q->head = q->n == 0 ? 0 : (q->head + 1) % QUEUE_ROOM;
    return true;
}

/* pop_job() - what somebody waits for first; reads ahead never take the last thread */
static bool pop_job(struct workers *w, struct fetch_job *job)
{
    if (queue_pop(&w->todo, job))
        return true;
    if (w->n_ahead >= w->max_ahead)
        return false;
    if (!queue_pop(&w->ahead, job))
        return false;
    w->n_ahead++;
    return true;
}

/* take_job() - wait for something to do. Return: false when it is time to end */
static bool take_job(struct workers *w, struct fetch_job *job)
{
    bool got = false;

    pthread_mutex_lock(&w->mutex);
    while (!w->ending && !(got = pop_job(w, job)))
        pthread_cond_wait(&w->wanted, &w->mutex);
    pthread_mutex_unlock(&w->mutex);
    return got;
}

/* #syscalls write */
static void put_done(struct workers *w, const struct fetch_job *job)
{
    uint64_t one = 1;
    ssize_t n;

    pthread_mutex_lock(&w->mutex);
    w->n_ahead -= job->ahead;
    queue_push(&w->done, job);
    pthread_mutex_unlock(&w->mutex);
    n = write(w->fd, &one, sizeof(one)); /* fails only when the counter is full: readable already */
    (void)n;
}

/* do_job() - Return: 0 or a negative errno with a text */
static int do_job(struct workers *w, const struct fetch_job *job)
{
    int r;

    if (job->other)
        return job->other(job->ctx);
    r = source_fetch(w->source, job->lo, job->hi);
    for (unsigned i = 0; i < job->n_more && r == 0; i++)
        r = source_fetch(w->source, job->more[i].lo, job->more[i].hi);
    return r;
}

static void *worker_main(void *arg)
{
    struct workers *w = arg;
    struct fetch_job job;

    while (take_job(w, &job)) {
        job.result = do_job(w, &job);
        if (job.result < 0)
            (void)snprintf(job.error, sizeof(job.error), "%s", err_text());
        put_done(w, &job);
    }
    return NULL;
}

static int start_threads(struct workers *w, unsigned n_threads)
{
    int r = 0;

    while (w->n_threads < n_threads && r == 0) {
        r = thread_start(&w->threads[w->n_threads], STACK_BYTES, worker_main, w);
        w->n_threads += r == 0;
    }
    return r == 0 ? 0 : err_origin_errno(r, "cannot start worker thread %u", w->n_threads);
}

/* #syscalls:start eventfd2 */
int workers_new(struct workers **out, struct source *source, unsigned n_threads)
{
    _cleanup_(workers_freep) struct workers *w = calloc(1, sizeof(*w));
    int r;

    assert(n_threads > 0);
    if (!w)
        return err_origin_errno(-ENOMEM, "cannot set up worker threads");
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->wanted, NULL);
    w->source = source;
    w->max_ahead = n_threads > 1 ? n_threads - 1 : 1;
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->fd < 0)
        return err_origin_errno(-errno, "cannot make an eventfd");
    w->threads = calloc(n_threads, sizeof(*w->threads));
    if (!w->threads)
        return err_origin_errno(-ENOMEM, "cannot set up worker threads");
    r = start_threads(w, n_threads);
    if (r < 0)
        return r;
    *out = TAKE(w);
    return 0;
}

struct workers *workers_free(struct workers *w)
{
    if (!w)
        return NULL;
    pthread_mutex_lock(&w->mutex);
    w->ending = true;
    pthread_cond_broadcast(&w->wanted);
    pthread_mutex_unlock(&w->mutex);
    for (unsigned i = 0; i < w->n_threads; i++)
        pthread_join(w->threads[i], NULL);
    pthread_cond_destroy(&w->wanted);
    pthread_mutex_destroy(&w->mutex);
    (void)fd_close(w->fd);
    free(w->threads);
    free(w);
    return NULL;
}

int workers_fd(const struct workers *w)
{
    return w->fd;
}

void workers_submit(struct workers *w, const struct fetch_job *job)
{
    pthread_mutex_lock(&w->mutex);
    queue_push(job->ahead ? &w->ahead : &w->todo, job);
    pthread_cond_signal(&w->wanted);
    pthread_mutex_unlock(&w->mutex);
}

bool workers_take_done(struct workers *w, struct fetch_job *job)
{
    bool got;

    pthread_mutex_lock(&w->mutex);
    got = queue_pop(&w->done, job);
    pthread_mutex_unlock(&w->mutex);
    return got;
}
