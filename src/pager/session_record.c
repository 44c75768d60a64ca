/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_record.c - what the recorder is told, and when its file is written
 */
#include <poll.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/err.h"
#include "pager/session_private.h"

void record_fault(struct session *s, const struct event *ev)
{
    const struct block *b = s->p.block;
    const struct geom_region *r = geom_find_hva(&b->geom, ev->fault.addr);

    if (ev->kind == EVENT_FAULT && r)
        recorder_fault(s->p.recorder, geom_page_of(&b->geom, r, ev->fault.addr), ev->fault.write,
                       ev->time_ns);
}

void record_answers(struct session *s, const struct effect *fx, uint64_t pages_done)
{
    const struct block *b = s->p.block;
    bool along = s->p.record_along && fx->kind == EFFECT_COPY &&
                 (!fx->ahead || s->ahead.along.at_work); /* not what the plan installs */

    /* Of a page that was discarded meanwhile, or before, the thread sees zeroes and not the snapshot. */
    if (fx->kind != EFFECT_COPY && fx->kind != EFFECT_ZERO)
        return;
    for (pgno_t p = fx->first; p < fx->first + pages_done; p++) {
        if (bitset_has(&b->waiting, p) && pagetab_get(&b->pages, p) == PAGE_ABSENT)
            recorder_answered(s->p.recorder, p);
        else if (along && pagetab_get(&b->pages, p) == PAGE_ABSENT)
            recorder_along(s->p.recorder, p, s->now_ns);
    }
}

static int write_record(void *ctx)
{
    return recorder_write(ctx);
}

uint64_t record_deadline_ns(const struct session *s)
{
    return s->p.recorder ? recorder_deadline_ns(s->p.recorder) : ENGINE_NEVER;
}

void record_end(struct session *s)
{
    struct fetch_job job = {.other = write_record, .ctx = s->p.recorder};

    if (!s->p.recorder || !recorder_close(s->p.recorder, true, s->now_ns))
        return;
    workers_submit(s->p.workers, &job);
    s->record_pending = true;
}

void record_written(struct session *s, const struct fetch_job *job)
{
    s->record_pending = false;
    s->record_result = job->result;
    if (job->result < 0) {
        (void)snprintf(s->record_error, sizeof(s->record_error), "%s", job->error);
        log_line(s->p.log, THAW_LOG_ERROR, "msg=\"working set not recorded\" error=\"%s\"",
                 job->error);
        return;
    }
    log_line(s->p.log, THAW_LOG_INFO, "msg=\"working set recorded\" pages=%zu",
             recorder_count(s->p.recorder));
}

/* #syscalls poll */
/* wait_written() - for the worker that writes; the VM is gone, so that this thread may wait */
static void wait_written(struct session *s)
{
    struct pollfd pfd = {.fd = workers_fd(s->p.workers), .events = POLLIN};

    while (s->record_pending) {
        struct fetch_job job;

        (void)poll(&pfd, 1, -1);
        while (workers_take_done(s->p.workers, &job)) {
            if (job.other)
                record_written(s, &job);
        }
    }
}

int record_finish(struct session *s)
{
    struct fetch_job job = {0};

    if (!s->p.recorder)
        return 0;
    s->now_ns = clock_now_ns();
    if (recorder_close(s->p.recorder, false, s->now_ns)) {
        job.result = recorder_write(s->p.recorder);
        if (job.result < 0)
            (void)snprintf(job.error, sizeof(job.error), "%s", err_text());
        record_written(s, &job);
    }
    wait_written(s);
    return s->record_result;
}
