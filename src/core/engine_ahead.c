/* SPDX-License-Identifier: Apache-2.0 */
#include "core/engine_ahead.h"

static struct counters *counters(struct engine *e)
{
    return &e->block->header->counters;
}

unsigned ahead_begin(struct engine *e, const struct event *ev, struct effect *fx)
{
    struct prefetch_run slice;

    if (engine_deadline_ns(e) != ENGINE_NEVER)
        return 0;
    if (ev->time_ns < e->doubt_until_ns) {
        e->retry_at_ns = e->doubt_until_ns; /* without a timer we would be asked on and on */
        return 0;
    }
    if (!prefetch_peek(&e->ahead, &e->block->pages, max_u64(1, e->config.ahead_pages), &slice))
        return 0;
    *fx = (struct effect){
        .kind = EFFECT_LOCATE,
        .page = slice.first,
        .first = slice.first,
        .end = slice.end,
        .arm = e->config.track,
        .ahead = true,
        .many = ev->ahead.many,
    };
    return 1;
}

unsigned ahead_located(struct engine *e, const struct event *ev, struct effect *fx)
{
    *fx = ev->located.asked;
    fx->first = ev->located.first;
    fx->end = ev->located.end;
    assert(fx->first == fx->page && fx->page < fx->end && fx->end <= ev->located.asked.end);
    switch (ev->located.where) {
    case LOCATED_ZERO:
        fx->kind = EFFECT_ZERO;
        if (!e->config.zero_runs)
            fx->end = fx->first + 1;
        break;
    case LOCATED_MEMORY:
        fx->kind = EFFECT_COPY;
        break;
    case LOCATED_ELSEWHERE:
        fx->kind = EFFECT_FETCH;
        return 1;
    case LOCATED_FAILED:
        counters(e)->ahead_left += ev->located.asked.end - fx->first;
        prefetch_pass(&e->ahead, ev->located.asked.end);
        return 0;
    }
    if (fx->many)
        prefetch_pass(&e->ahead, fx->end);
    return 1;
}

/* put_in() - [first, end) is in place; a thread that had waited there is awake */
static void put_in(struct engine *e, const struct effect *asked, pgno_t end)
{
    bool copy = asked->kind == EFFECT_COPY;
    uint64_t n = end - asked->first;

    pagetab_step(&e->block->pages, copy ? PAGE_EV_INSTALL : PAGE_EV_ZEROFILL, asked->first, end);
    bitset_drop_range(&e->block->waiting, asked->first, end);
    bitset_drop_range(&e->block->waiting_wp, asked->first, end);
    if (copy)
        counters(e)->pages_installed += n;
    else
        counters(e)->pages_zeroed += n;
    counters(e)->pages_ahead += n;
    e->backoff_ns = ENGINE_BACKOFF_MIN_NS;
}

/* found() - page @p is there although it was ABSENT: somebody else put it there, and may have its waiters asleep */
static unsigned found(struct engine *e, pgno_t p, struct effect *fx)
{
    pagetab_step(&e->block->pages, PAGE_EV_FOUND, p, p + 1);
    counters(e)->pages_found++;
    if (!bitset_has(&e->block->waiting, p) && !bitset_has(&e->block->waiting_wp, p))
        return 0;
    *fx = (struct effect){
        .kind = bitset_has(&e->block->waiting_wp, p) ? EFFECT_UNPROTECT : EFFECT_WAKE,
        .page = p,
        .first = p,
        .end = p + 1,
    };
    return 1;
}

unsigned ahead_done(struct engine *e, const struct event *ev, struct effect *fx)
{
    const struct effect *asked = &ev->done.asked;
    pgno_t next = asked->first + ev->done.pages_done;

    assert(next <= asked->end);
    if (next > asked->first)
        put_in(e, asked, next);
    if (ev->done.outcome == OUTCOME_GONE) {
        *fx = (struct effect){.kind = EFFECT_STOP, .stop = STOP_VMM_GONE};
        return 1;
    }
    if (next == asked->end || ev->done.outcome == OUTCOME_AGAIN)
        return 0; /* the rest of the slice is the next one */
    if (ev->done.outcome == OUTCOME_EXISTS)
        return found(e, next, fx);
    /* The walk stands before this page or has passed it with what is installed: leave it to its fault. */
    counters(e)->ahead_left += asked->end - next;
    if (!asked->many)
        prefetch_pass(&e->ahead, asked->end);
    return 0;
}
