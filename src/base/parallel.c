/* SPDX-License-Identifier: Apache-2.0 */
#include "base/parallel.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/thread.h"

#define STACK_BYTES (MIB)
#define TEXT_BYTES  512u

/* struct crew - what the threads share; all but `p` is under the mutex */
struct crew {
    const struct parallel *p;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    uint64_t next;
    unsigned n_at_work;
    int error; /* the first one */
    char text[TEXT_BYTES];
};

struct member {
    struct crew *crew;
    pthread_t thread;
    unsigned number;
};

static void fail_locked(struct crew *c, int error)
{
    if (c->error != 0)
        return;
    c->error = error;
    (void)strncpy(c->text, err_text(), TEXT_BYTES - 1);
}

static void *work(void *arg)
{
    const struct member *m = arg;
    struct crew *c = m->crew;

    pthread_mutex_lock(&c->mutex);
    while (c->error == 0 && c->next < c->p->n_units) {
        uint64_t unit = c->next++;
        int r;

        pthread_mutex_unlock(&c->mutex);
        r = c->p->work(c->p->ctx, m->number, unit);
        pthread_mutex_lock(&c->mutex);
        if (r < 0)
            fail_locked(c, r);
    }
    c->n_at_work--;
    pthread_cond_signal(&c->ended);
    pthread_mutex_unlock(&c->mutex);
    return NULL;
}

/* wait_locked() - until all have ended, with a look at the clock now and then */
static void wait_locked(struct crew *c)
{
    uint64_t next_ns = clock_now_ns() + PARALLEL_TICK_NS;

    while (c->n_at_work > 0) {
        struct timespec until = timespec_from_ns(next_ns);
        int r;

        (void)pthread_cond_timedwait(&c->ended, &c->mutex, &until);
        if (clock_now_ns() < next_ns)
            continue;
        next_ns = clock_now_ns() + PARALLEL_TICK_NS;
        if (!c->p->tick)
            continue;
        pthread_mutex_unlock(&c->mutex);
        r = c->p->tick(c->p->ctx);
        pthread_mutex_lock(&c->mutex);
        if (r < 0)
            fail_locked(c, r);
    }
}

int parallel_run(const struct parallel *p)
{
    struct crew c = {.p = p, .mutex = PTHREAD_MUTEX_INITIALIZER};
    unsigned n = (unsigned)min_u64(p->n_threads, p->n_units);
    struct member members[PARALLEL_THREADS_MAX];
    pthread_condattr_t attr;
    unsigned n_started = 0;

    assert(p->n_threads >= 1 && p->n_threads <= PARALLEL_THREADS_MAX);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c.ended, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_lock(&c.mutex);
    for (; n_started < n && c.error == 0; n_started++) {
        struct member *m = &members[n_started];
        int r;

        *m = (struct member){.crew = &c, .number = n_started};
        r = thread_start(&m->thread, STACK_BYTES, work, m);
        if (r < 0 && n_started > 0) /* fewer do it, too */
            break;
        if (r < 0) {
            fail_locked(&c, err_origin_errno(r, "cannot start a thread"));
            break;
        }
        c.n_at_work++;
    }
    wait_locked(&c);
    pthread_mutex_unlock(&c.mutex);
    for (unsigned i = 0; i < n_started; i++)
        pthread_join(members[i].thread, NULL);
    pthread_cond_destroy(&c.ended);
    return c.error < 0 ? err_origin(c.error, "%s", c.text) : 0;
}

unsigned parallel_default_threads(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return n < 1 ? 1 : (unsigned)min_u64((uint64_t)n, PARALLEL_THREADS_MAX);
}
