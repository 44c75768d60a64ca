/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_world.h"

/* The pager's loop as pager/session.c has it: read, REMOVEs first, each event to its end; the source; the timer. */

#define MAX_MESSAGES (2 * SIM_THREADS)
#define MAX_EFFECTS  (8 * SIM_PAGES) /* of one event */

/* restart() - the pager was killed, another one took over: what is in the block is all that it knows */
static void restart(struct sim *s)
{
    rig_restart(&s->rig);
    pager_ahead_restart(s);
    s->n_fetches = 0;
    s->blocked_until_ns = 0;
    s->stats->restarts++;
}

static struct event locate(struct sim *s, const struct effect *fx)
{
    struct event ev = {.kind = EVENT_LOCATED};
    enum located where = s->pages[fx->page].image;
    pgno_t first = fx->page;
    pgno_t end = fx->page + 1;

    /* Sometimes the source knows of less than it could. */
    while (first > fx->first && s->pages[first - 1].image == where && !sim_chance(s, 30))
        first--;
    while (end < fx->end && s->pages[end].image == where && !sim_chance(s, 30))
        end++;
    ev.located.asked = *fx;
    ev.located.where = s->source_broken ? LOCATED_FAILED : where;
    ev.located.slow = s->keeps_nothing;
    ev.located.first = first;
    ev.located.end = end;
    return ev;
}

/* read_ahead() - of the plan: nobody waits, so let it be done at once */
static void read_ahead(struct sim *s, const struct effect *fx)
{
    if (s->keeps_nothing || s->source_broken) { /* as the session does when nobody can read it */
        s->left_behind = true;
        prefetch_pass(&s->rig.engine.ahead, fx->end);
        return;
    }
    for (pgno_t p = fx->first; p < fx->end; p++) {
        if (s->pages[p].image == LOCATED_ELSEWHERE && !sim_chance(s, 50))
            s->pages[p].image = LOCATED_MEMORY;
    }
}

static void begin_fetch(struct sim *s, const struct effect *fx)
{
    s->stats->fetches++;
    if (s->n_fetches == SIM_FETCHES) {
        sim_wrong(s, "more fetches than workers can be told of");
        return;
    }
    s->fetches[s->n_fetches++] = (struct sim_fetch){.first = fx->first, .end = fx->end};
}

/* apply() - an ioctl, while the guest runs on and the pager may be killed. Return: false if it was */
static bool apply(struct sim *s, const struct effect *fx, struct event *answer)
{
    if (sim_chance(s, 4))
        guest_step(s);
    if (s->may_restart && sim_chance(s, 40)) {
        restart(s);
        return false;
    }
    *answer = kernel_apply(s, fx);
    if (sim_chance(s, 8))
        guest_step(s);
    if (s->may_restart && sim_chance(s, 40)) {
        for (pgno_t p = fx->first; p < fx->end && fx->kind != EFFECT_UNPROTECT; p++)
            s->pages[p].unrecorded = s->pages[p].unrecorded || s->pages[p].present;
        restart(s);
        return false;
    }
    return true;
}

/* carry_out() - one effect. Return: whether there is an answer to it */
static bool carry_out(struct sim *s, const struct effect *fx, struct event *answer)
{
    switch (fx->kind) {
    case EFFECT_LOCATE:
        *answer = locate(s, fx);
        return true;
    case EFFECT_FETCH:
        if (fx->ahead)
            read_ahead(s, fx);
        else
            begin_fetch(s, fx);
        return false;
    case EFFECT_STOP:
        s->stats->stops[fx->stop]++;
        s->stopped = true;
        return false;
    case EFFECT_COPY:
    case EFFECT_ZERO:
    case EFFECT_UNPROTECT:
    case EFFECT_WAKE:
        break;
    }
    return apply(s, fx, answer);
}

static bool was_refused(const struct event *ev)
{
    return ev->kind == EVENT_DONE && ev->done.outcome == OUTCOME_AGAIN && ev->done.pages_done == 0;
}

static void deliver(struct sim *s, struct event ev)
{
    struct effect fx[ENGINE_FX_MAX];

    for (unsigned n = 0; !s->wrong && !s->stopped; n++) {
        ev.time_ns = s->now_ns;
        if (engine_step(&s->rig.engine, &ev, fx) == 0) {
            if (was_refused(&ev))
                s->blocked_until_ns = engine_deadline_ns(&s->rig.engine);
            break;
        }
        if (n == MAX_EFFECTS) {
            sim_wrong(s, "one event has effects without end");
            return;
        }
        truth_check_effect(s, fx);
        if (s->wrong || !carry_out(s, fx, &ev))
            break;
    }
    truth_check(s);
}

static void note_told(struct sim *s, const struct event *ev)
{
    for (pgno_t p = 0; p < s->n_pages; p++) {
        if (guest_covers_whole(s, ev->remove.start, ev->remove.end, p))
            s->pages[p].told = true;
    }
}

static void note_handled(struct sim *s, const struct event *ev)
{
    for (unsigned i = 0; i < s->n_threads; i++) {
        struct sim_thread *t = &s->threads[i];

        if (t->doing == SLEEPS && !t->queued && rig_hva(&s->rig, t->page) == ev->fault.addr &&
            t->protected == (ev->kind == EVENT_WP_FAULT))
            t->handled = true;
    }
}

void pager_read(struct sim *s)
{
    static const unsigned sizes[] = {MAX_MESSAGES, 1, 2, 5};
    struct event messages[MAX_MESSAGES];
    unsigned n = kernel_read(s, messages, sizes[sim_pick(s, ARRAY_LEN(sizes))]);

    for (unsigned i = 0; i < n; i++) {
        if (messages[i].kind != EVENT_REMOVE)
            continue;
        s->stats->removes++;
        note_told(s, &messages[i]);
        deliver(s, messages[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        if (messages[i].kind == EVENT_REMOVE)
            continue;
        if (messages[i].kind == EVENT_FAULT)
            s->stats->faults++;
        else
            s->stats->wp_faults++;
        note_handled(s, &messages[i]);
        deliver(s, messages[i]);
    }
}

void pager_tick(struct sim *s)
{
    for (unsigned n = 0; engine_deadline_ns(&s->rig.engine) <= s->now_ns; n++) {
        if (s->wrong || s->stopped || sim_chance(s, 6))
            return;
        if (n > 8 * SIM_PAGES) {
            sim_wrong(s, "retries without end at one point in time");
            return;
        }
        if (s->now_ns >= s->blocked_until_ns)
            s->blocked_until_ns = 0;
        deliver(s, (struct event){.kind = EVENT_TICK});
    }
}

void pager_fetch_ends(struct sim *s)
{
    struct event ev = {.kind = EVENT_FETCHED};
    unsigned i;

    if (s->n_fetches == 0)
        return;
    i = sim_pick(s, s->n_fetches);
    ev.fetched.first = s->fetches[i].first;
    ev.fetched.end = s->fetches[i].end;
    ev.fetched.ok = !s->source_broken;
    s->n_fetches--;
    for (; i < s->n_fetches; i++) /* in order: when no choice is left, the oldest ends first */
        s->fetches[i] = s->fetches[i + 1];
    for (pgno_t p = ev.fetched.first; p < ev.fetched.end && ev.fetched.ok; p++) {
        s->pages[p].fetched = true;
        if (!s->keeps_nothing && !sim_chance(s, 50)) /* the page cache may lose it at once */
            s->pages[p].image = LOCATED_MEMORY;
    }
    deliver(s, ev);
}

/* ---- ahead -------------------------------------------------------------------------------------------------------- */

void pager_ahead_restart(struct sim *s)
{
    prefetch_init(&s->rig.engine.ahead, s->plan, s->n_runs);
}

/* decide() - what is to be done about the next slice, up to the install. Return: false if there is none now */
static bool decide(struct sim *s, struct effect *fx)
{
    struct event ev = {.kind = EVENT_AHEAD, .time_ns = s->now_ns, .ahead.many = true};

    for (unsigned n = 0; n < 2; n++) {
        if (engine_step(&s->rig.engine, &ev, fx) == 0)
            return false;
        truth_check_effect(s, fx);
        if (s->wrong || (fx->kind != EFFECT_LOCATE && fx->kind != EFFECT_FETCH))
            break;
        if (!carry_out(s, fx, &ev))
            return false;
        ev.time_ns = s->now_ns;
    }
    return !s->wrong;
}

/* hide() - what an install has done and the engine has not been told of yet; or now it is */
static void hide(struct sim *s, const struct event *done, bool hidden)
{
    const struct effect *fx = &done->done.asked;
    pgno_t end = fx->first + done->done.pages_done;

    if (done->done.outcome == OUTCOME_EXISTS)
        end++;
    for (pgno_t p = fx->first; p < end; p++)
        s->pages[p].unrecorded = (hidden && s->pages[p].present) || s->pages[p].unregistered;
}

/* burst() - several slices are decided, then installed, then the engine is told of each */
static void burst(struct sim *s)
{
    struct effect asked[SIM_BURST];
    struct event done[SIM_BURST];
    uint64_t restarts;
    unsigned n = 0;

    while (n < SIM_BURST && decide(s, &asked[n])) {
        for (unsigned i = 0; i < n; i++) {
            if (asked[n].first < asked[i].end && asked[i].first < asked[n].end)
                sim_wrong(s, "one page is in two slices at once");
        }
        n++;
    }
    s->stats->bursts += n > 1;
    for (unsigned i = 0; i < n && !s->wrong; i++) {
        s->stats->slices++;
        if (!apply(s, &asked[i], &done[i]))
            return;
        hide(s, &done[i], true);
        s->left_behind = s->left_behind || done[i].done.outcome != OUTCOME_DONE;
    }
    restarts = s->stats->restarts;
    for (unsigned i = 0; i < n && !s->wrong && !s->stopped && s->stats->restarts == restarts; i++) {
        hide(s, &done[i], false);
        deliver(s, done[i]);
    }
}

void pager_ahead(struct sim *s)
{
    if (sim_chance(s, 3)) {
        burst(s);
        return;
    }
    s->stats->slices++;
    deliver(s, (struct event){.kind = EVENT_AHEAD});
}
