/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_burst.c - the hottest part of the working set, before the VM is told to go on
 *
 * Slices are asked of the engine until a burst is full, installed by all threads at once (pager/burst.h), and their outcomes
 * reported one by one; no message is read in between. What could not be installed is left behind: once this phase is over the
 * walk begins again with the first page of the plan, and finds it.
 *
 * The phase ends when so much is installed as was asked for, or when the plan is over. A plan whose bytes are cold waits for
 * them here as it does later: the VM goes on later, but with all that it was to have.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "pager/session_private.h"

/* struct bursts - a burst that is being put together */
struct bursts {
    struct burst *threads; /* owned */
    struct burst_op ops[BURST_OPS];
    struct effect asked[BURST_OPS]; /* what each of them carries out */
};

int before_new(struct session *s)
{
    unsigned n_threads = burst_threads();
    struct bursts *b;
    int r;

    if (s->p.before_bytes == 0 || s->p.working_set.n == 0 || s->p.block->header->may_resume)
        return 0;
    b = malloc(sizeof(*b));
    if (!b)
        return err_origin_errno(-ENOMEM, "cannot set up threads for installs");
    r = burst_new(&b->threads, s->p.uffd, n_threads);
    if (r < 0) {
        free(b);
        return r;
    }
    s->ahead.bursts = b;
    s->ahead.before_bytes = s->p.before_bytes;
    return 0;
}

void before_free(struct session *s)
{
    if (!s->ahead.bursts)
        return;
    s->ahead.bursts->threads = burst_free(s->ahead.bursts->threads);
    free(s->ahead.bursts);
    s->ahead.bursts = NULL;
}

void before_end(struct session *s)
{
    struct block_header *h = s->p.block->header;

    if (h->may_resume)
        return;
    before_free(s);
    if (s->p.before_bytes > 0)
        log_line(s->p.log, THAW_LOG_INFO, "msg=\"may resume\" pages=%ju us=%ju",
                 (uintmax_t)h->counters.pages_ahead,
                 (uintmax_t)((s->now_ns - s->ahead.began_ns) / NS_PER_US));
    if (s->p.on_resume)
        s->p.on_resume(s->p.on_ready_ctx);
    h->may_resume = 1;
}

/* add_slice() - to the burst. Return: its bytes; 0: there is none that could be added now */
static uint64_t add_slice(struct session *s, unsigned i, bool *flush)
{
    struct bursts *b = s->ahead.bursts;
    struct event ev = {.kind = EVENT_AHEAD, .time_ns = s->now_ns, .ahead.many = true};
    struct effect fx[ENGINE_FX_MAX];

    if (engine_step(&s->engine, &ev, fx) == 0)
        return 0;
    session_locate(s, &fx[0], &ev);
    if (engine_step(&s->engine, &ev, fx) == 0)
        return 0;
    if (fx[0].kind != EFFECT_COPY && fx[0].kind != EFFECT_ZERO) {
        session_carry_out(s, fx[0], s->now_ns);
        return 0;
    }
    b->asked[i] = fx[0];
    b->ops[i] = session_op(s, &fx[0]);
    *flush = fx[0].kind == EFFECT_COPY && !s->located.lasting; /* the next answer overwrites it */
    return b->ops[i].len;
}

static void report(struct session *s, unsigned n)
{
    struct bursts *b = s->ahead.bursts;
    struct effect fx[ENGINE_FX_MAX];

    for (unsigned i = 0; i < n && s->stop == STOP_NONE; i++) {
        struct event done;

        session_done(s, &b->asked[i], &b->ops[i].result, &done);
        if (engine_step(&s->engine, &done, fx) > 0)
            session_carry_out(s, fx[0], s->now_ns);
    }
}

bool before_take(struct session *s)
{
    struct ahead *a = &s->ahead;
    uint64_t installed = s->p.block->header->counters.pages_ahead;
    uint64_t want = min_u64(BURST_BYTES, a->before_bytes);
    uint64_t bytes = 0;
    bool flush = false;
    unsigned n = 0;

    while (n < BURST_OPS && bytes < want && !flush && s->stop == STOP_NONE) {
        uint64_t added = add_slice(s, n, &flush);

        if (added == 0)
            break;
        bytes += added;
        n++;
    }
    if (n > 0) {
        burst_run(a->bursts->threads, a->bursts->ops, n);
        report(s, n);
    }
    installed = s->p.block->header->counters.pages_ahead - installed;
    a->before_bytes -= min_u64(a->before_bytes, installed * s->page_bytes);
    return n > 0;
}
