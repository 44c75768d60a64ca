/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_WORKERS_H
#define PAGER_WORKERS_H

/*
 * workers.h - threads that bring cold bytes into memory
 *
 * The pager thread hands out ranges of the image and gets them back when their bytes are in memory. A worker knows the
 * source and nothing else: not the uffd, not the page states (invariant I4). Both queues have room for every range that
 * the engine can have under way, so neither side ever waits for room.
 */

#include "source/source.h"

#define WORKERS_MAX_JOBS  64u /* as many as core/fetch_table.h has room for */
#define WORKERS_MAX_AHEAD 8u  /* besides: jobs that nobody waits for */

#define FETCH_MORE        31u

/** struct fetch_range - bytes of the image */
struct fetch_range {
    imgoff_t lo;
    imgoff_t hi;
};

/** struct fetch_job - one range to bring into memory, and perhaps others after it */
struct fetch_job {
    imgoff_t lo;
    imgoff_t hi;
    struct fetch_range more[FETCH_MORE];
    unsigned n_more;
    pgno_t first; /* the same in page numbers, for the engine */
    pgno_t end;
    uint64_t since_ns; /* when the fault was read */
    bool ahead;        /* nobody waits for it: after all others, and never by all threads at once */
    int (*other)(
        void *
            ctx); /* in place of the read: something else that may wait; NULL: none. 0 or a negative errno with a text */
    void *ctx;
    int result;      /* 0 or a negative errno, once done */
    char error[256]; /* why, if result < 0 */
};

struct workers;

/**
 * workers_new() - start the threads
 * @out:    (give)
 * @source: (borrow until workers_free())
 *
 * Return: 0 or a negative errno with a text.
 */
int workers_new(struct workers **out, struct source *source, unsigned n_threads);

/** workers_free() - let running reads end, drop the others, join the threads. @w: (take) may be NULL. Return: NULL */
struct workers *workers_free(struct workers *w);

/** workers_fd() - an eventfd (borrow) that is readable when a job is done */
int workers_fd(const struct workers *w);

/** workers_submit() - hand out a job; at most WORKERS_MAX_JOBS, and WORKERS_MAX_AHEAD with @ahead, are under way. Pager thread only; does not wait */
void workers_submit(struct workers *w, const struct fetch_job *job);

/** workers_take_done() - get the next finished job. Return: false if there is none. Pager thread only; does not wait */
bool workers_take_done(struct workers *w, struct fetch_job *job);

DEFINE_CLEANUP(struct workers *, workers_free);

#endif
