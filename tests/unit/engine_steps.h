/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_ENGINE_STEPS_H
#define UNIT_ENGINE_STEPS_H

/*
 * engine_steps.h - events for an engine under test, one call each
 *
 * Each returns the effect that the engine wants, in static memory until the next call, or NULL for none. An effect that
 * was wanted is the one that the next answer() or located() is about. When the engine wants nothing, its invariants are
 * checked.
 */

#include "testing.h"

#include "engine_check.h"
#include "engine_rig.h"

/** struct steps - an engine, a clock, and what it wanted last */
struct steps {
    struct rig rig;
    uint64_t now_ns;
    struct effect last;
};

static inline const struct effect *steps_give(struct steps *s, struct event *ev)
{
    struct effect fx[ENGINE_FX_MAX];

    ev->time_ns = s->now_ns;
    if (engine_step(&s->rig.engine, ev, fx) == 0) {
        const char *wrong = engine_check(&s->rig.engine, s->now_ns);

        if (wrong)
            fail_msg("%s", wrong);
        return NULL;
    }
    s->last = fx[0];
    return &s->last;
}

static inline const struct effect *fault(struct steps *s, pgno_t p, bool write)
{
    struct event ev = {.kind = EVENT_FAULT, .fault = {.addr = rig_hva(&s->rig, p), .write = write}};

    return steps_give(s, &ev);
}

static inline const struct effect *wp_fault(struct steps *s, pgno_t p)
{
    struct event ev = {.kind = EVENT_WP_FAULT,
                       .fault = {.addr = rig_hva(&s->rig, p), .write = true}};

    return steps_give(s, &ev);
}

static inline const struct effect *discard(struct steps *s, pgno_t first, pgno_t end)
{
    uint64_t page_bytes = geom_page_bytes(&s->rig.block.geom);
    struct event ev = {.kind = EVENT_REMOVE,
                       .remove = {.start = rig_hva(&s->rig, first),
                                  .end = rig_hva(&s->rig, end - 1) + page_bytes}};

    return steps_give(s, &ev);
}

static inline const struct effect *located(struct steps *s, enum located where, pgno_t first,
                                           pgno_t end)
{
    struct event ev = {.kind = EVENT_LOCATED,
                       .located = {.asked = s->last, .where = where, .first = first, .end = end}};

    return steps_give(s, &ev);
}

static inline const struct effect *fetched(struct steps *s, pgno_t first, pgno_t end, bool ok)
{
    struct event ev = {.kind = EVENT_FETCHED, .fetched = {.first = first, .end = end, .ok = ok}};

    return steps_give(s, &ev);
}

static inline const struct effect *answer(struct steps *s, enum outcome outcome,
                                          uint64_t pages_done)
{
    struct event ev = {.kind = EVENT_DONE,
                       .done = {.asked = s->last, .outcome = outcome, .pages_done = pages_done}};

    return steps_give(s, &ev);
}

static inline const struct effect *done(struct steps *s)
{
    return answer(s, OUTCOME_DONE, s->last.end - s->last.first);
}

static inline const struct effect *tick(struct steps *s)
{
    struct event ev = {.kind = EVENT_TICK};

    return steps_give(s, &ev);
}

/** wait_for_tick() - let the time pass that the engine asked for, then TICK */
static inline const struct effect *wait_for_tick(struct steps *s)
{
    uint64_t deadline = engine_deadline_ns(&s->rig.engine);

    assert_int_not_equal(deadline, ENGINE_NEVER);
    s->now_ns = max_u64(s->now_ns, deadline);
    return tick(s);
}

static inline void steps_init(struct steps *s, const struct rig_spec *spec)
{
    *s = (struct steps){.now_ns = NS_PER_S};
    assert_int_equal(rig_init(&s->rig, spec), 0);
}

static inline void steps_deinit(struct steps *s)
{
    rig_deinit(&s->rig);
}

static inline enum page_state state_of(const struct steps *s, pgno_t p)
{
    return pagetab_get(&s->rig.block.pages, p);
}

static inline bool waits(const struct steps *s, pgno_t p)
{
    return bitset_has(&s->rig.block.waiting, p) || bitset_has(&s->rig.block.waiting_wp, p);
}

static inline const struct counters *counted(const struct steps *s)
{
    return &s->rig.block.header->counters;
}

/** assert_wants() - @fx is an effect of @kind for @page about [@first, @end) */
static inline void assert_wants(const struct effect *fx, enum effect_kind kind, pgno_t page,
                                pgno_t first, pgno_t end)
{
    assert_non_null(fx);
    assert_int_equal(fx->kind, kind);
    assert_int_equal(fx->page, page);
    assert_int_equal(fx->first, first);
    assert_int_equal(fx->end, end);
}

static inline void assert_stops(const struct effect *fx, enum stop_reason why)
{
    assert_non_null(fx);
    assert_int_equal(fx->kind, EFFECT_STOP);
    assert_int_equal(fx->stop, why);
}

#endif
