/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_act.c - carrying out what the engine wants: asking the source, and the ioctls
 *
 * One effect at a time; its outcome goes back to the engine before anything else happens to the VM's memory.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/err.h"
#include "pager/session_private.h"
#include "uffd/install.h"

#define INSIST_NS       (50 * NS_PER_US) /* how long an install that is refused is repeated at once */
#define INSIST_HALVINGS 8 /* ... and how often that is halved while it does not help */

void session_locate(struct session *s, const struct effect *fx, struct event *reply)
{
    const struct geom *g = &s->p.block->geom;
    const struct geom_region *r = geom_find_page(g, fx->page);
    imgoff_t off = geom_imgoff_of(g, r, fx->page);
    imgoff_t lo = geom_imgoff_of(g, r, fx->first);
    imgoff_t hi = geom_imgoff_of(g, r, fx->end);

    *reply = (struct event){.kind = EVENT_LOCATED, .time_ns = s->now_ns};
    reply->located.asked = *fx;
    if (source_locate(s->p.source, &s->located, off, lo, hi, s->page_bytes) < 0) {
        if (!fx->ahead)
            session_stop_because(s, STOP_SOURCE, err_text());
        reply->located.where = LOCATED_FAILED;
        reply->located.first = fx->page;
        reply->located.end = fx->page + 1;
        return;
    }
    reply->located.where = s->located.where == THAW_WHERE_ZERO     ? LOCATED_ZERO
                           : s->located.where == THAW_WHERE_MEMORY ? LOCATED_MEMORY
                                                                   : LOCATED_ELSEWHERE;
    reply->located.slow = s->located.bytes != NULL;
    reply->located.first = fx->first + ((s->located.first - lo) >> g->page_shift);
    reply->located.end = fx->first + ((s->located.end - lo) >> g->page_shift);
}

struct fetch_job session_job(const struct session *s, pgno_t first, pgno_t end)
{
    const struct geom *g = &s->p.block->geom;
    const struct geom_region *r = geom_find_page(g, first);

    return (struct fetch_job){
        .lo = geom_imgoff_of(g, r, first),
        .hi = geom_imgoff_of(g, r, end - 1) + s->page_bytes,
        .first = first,
        .end = end,
    };
}

static void fetch(struct session *s, const struct effect *fx, uint64_t since_ns)
{
    struct fetch_job job = session_job(s, fx->first, fx->end);

    job.since_ns = since_ns;
    workers_submit(s->p.workers, &job);
}

struct burst_op session_op(const struct session *s, const struct effect *fx)
{
    const struct geom *g = &s->p.block->geom;
    const struct geom_region *r = geom_find_page(g, fx->page);
    imgoff_t off = geom_imgoff_of(g, r, fx->first);
    struct burst_op op = {
        .dst = geom_hva_of(g, r, fx->first),
        .len = (fx->end - fx->first) << g->page_shift,
        .arm = fx->arm,
    };

    if (fx->kind == EFFECT_COPY) {
        assert(s->located.where != THAW_WHERE_ZERO && s->located.bytes);
        assert(off >= s->located.first && off + op.len <= s->located.end);
        op.src = (const char *)s->located.bytes + (off - s->located.first);
    } else if (!s->engine.config.zero_runs) {
        assert(op.len == s->page_bytes);
        op.src = s->zeroes;
    }
    return op;
}

static struct install_result install_once(struct session *s, const struct effect *fx)
{
    const struct geom *g = &s->p.block->geom;
    hva_t dst = geom_hva_of(g, geom_find_page(g, fx->page), fx->first);
    uint64_t len = (fx->end - fx->first) << g->page_shift;

    switch (fx->kind) {
    case EFFECT_COPY:
    case EFFECT_ZERO:
        return burst_op_do(s->p.uffd, session_op(s, fx));
    case EFFECT_UNPROTECT:
        return uffd_unprotect(s->p.uffd, dst, len);
    default:
        assert(fx->kind == EFFECT_WAKE);
        return uffd_wake(s->p.uffd, dst, len);
    }
}

/* #syscalls poll */
static bool has_messages(const struct session *s)
{
    struct pollfd pfd = {.fd = s->p.uffd, .events = POLLIN};

    return poll(&pfd, 1, 0) != 0;
}

/*
 * install() - carry out an effect; where the kernel refuses, insist for a moment
 *
 * Installs are refused from a discard's call until its thread has run on, which takes tens of microseconds from our read
 * of its message on. A thread that discards without a pause leaves a gap of a microsecond or two between two such times: a
 * timer hardly ever meets it, this loop does. While a message is unread there is no gap to wait for. Insisting is of no use
 * where that thread waits for our own processor: each time it did not help, it takes half as long the next time. What nobody
 * waits for is left alone for a moment instead.
 */
static struct install_result install(struct session *s, const struct effect *fx)
{
    struct install_result r;
    uint64_t end_ns;

    side_lend_beside(s, fx);
    r = install_once(s, fx);

    if (r.outcome == OUTCOME_AGAIN && r.bytes_done == 0) {
        end_ns = clock_now_ns() + (INSIST_NS >> s->n_refused);
        do {
            r = install_once(s, fx);
        } while (r.outcome == OUTCOME_AGAIN && r.bytes_done == 0 && !has_messages(s) &&
                 clock_now_ns() < end_ns);
    }
    if (r.outcome != OUTCOME_AGAIN || r.bytes_done > 0)
        s->n_refused = 0;
    else
        s->n_refused = (unsigned)min_u64(s->n_refused + 1, INSIST_HALVINGS);
    return r;
}

/*
 * Linux says EEXIST for a huge page that is there and for one that it has no memory for (seen on 6.18). The first needs a
 * wake, the second must never be taken for installed: ask which it is.
 */
static enum outcome settle_exists(const struct session *s, const struct effect *fx,
                                  uint64_t pages_done)
{
    const struct geom *g = &s->p.block->geom;
    pgno_t p = fx->first + pages_done;

    switch (peer_look_at_page(s->p.peer, geom_hva_of(g, geom_find_page(g, p), p))) {
    case PEER_PAGE_PRESENT:
        return OUTCOME_EXISTS;
    case PEER_PAGE_ABSENT:
        return OUTCOME_NOMEM;
    default:
        return OUTCOME_UNSURE;
    }
}

void session_done(struct session *s, const struct effect *fx, const struct install_result *r,
                  struct event *reply)
{
    s->now_ns = clock_now_ns();
    *reply = (struct event){
        .kind = EVENT_DONE,
        .time_ns = s->now_ns,
        .done = {.asked = *fx, .outcome = r->outcome, .pages_done = r->bytes_done / s->page_bytes},
    };
    if (r->outcome == OUTCOME_EXISTS && s->page_bytes > 4 * KIB)
        reply->done.outcome = settle_exists(s, fx, reply->done.pages_done);
    if (s->p.recorder)
        record_answers(s, fx, reply->done.pages_done);
}

static void explain_stop(struct session *s, const struct effect *fx, const struct effect *last)
{
    char why[200];

    switch (fx->stop) {
    case STOP_SOURCE:
        (void)snprintf(why, sizeof(why),
                       "the snapshot's bytes for page %" PRIu64 " could not be read", last->page);
        break;
    case STOP_NOMEM:
        (void)snprintf(why, sizeof(why),
                       "no memory for the guest's pages for %llu s (memory cgroup limit, or no "
                       "free huge page)",
                       ENGINE_NOMEM_LIMIT_NS / NS_PER_S);
        break;
    case STOP_STRAY_FAULT:
        (void)snprintf(why, sizeof(why), "a page fault outside of every region of the handshake");
        break;
    default:
        (void)snprintf(why, sizeof(why), "the kernel refused to install page %" PRIu64, last->page);
        break;
    }
    session_stop_because(s, fx->stop, why);
}

/* ended_wait() - did this outcome end the wait for the page that the effect is about? */
static bool ended_wait(const struct effect *fx, const struct install_result *r, uint64_t pages_done)
{
    if (fx->kind == EFFECT_COPY || fx->kind == EFFECT_ZERO)
        return fx->page < fx->first + pages_done;
    return r->outcome == OUTCOME_DONE;
}

/*
 * carry_out() - do what the engine wants, tell it how that went, until it wants nothing more
 * @since_ns: when the fault behind it was read
 */
void session_carry_out(struct session *s, struct effect fx, uint64_t since_ns)
{
    struct event reply;
    struct effect last = fx;
    unsigned n = 1;

    while (n > 0 && s->stop == STOP_NONE) {
        if (fx.kind == EFFECT_STOP) {
            explain_stop(s, &fx, &last);
            return;
        }
        if (fx.kind == EFFECT_FETCH) {
            if (fx.ahead)
                ahead_fetch(s, &fx);
            else
                fetch(s, &fx, since_ns);
            return;
        }
        last = fx;
        if (fx.kind == EFFECT_LOCATE) {
            session_locate(s, &fx, &reply);
        } else {
            struct install_result r = install(s, &fx);

            session_done(s, &fx, &r, &reply);
            if (!fx.ahead && ended_wait(&fx, &r, reply.done.pages_done))
                hist_add(&s->p.block->header->fault_ns, s->now_ns - since_ns);
        }
        n = engine_step(&s->engine, &reply, &fx);
    }
}
