/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_world.h"

/* The userfaultfd: messages out, installs in. Each function is one system call; the guest may run between two of them. */

/* ---- messages ----------------------------------------------------------------------------------------------------- */

static bool has_message(const struct sim_thread *t, bool remove)
{
    return remove ? t->doing == DISCARDS && t->phase == REMOVE_QUEUED
                  : t->doing == SLEEPS && t->queued;
}

static struct sim_thread *oldest(struct sim *s, bool remove)
{
    struct sim_thread *found = NULL;

    for (unsigned i = 0; i < s->n_threads; i++) {
        struct sim_thread *t = &s->threads[i];

        if (has_message(t, remove) && (!found || t->serial < found->serial))
            found = t;
    }
    return found;
}

static struct event hand_out_fault(struct sim *s, struct sim_thread *t)
{
    t->queued = false;
    return (struct event){
        .kind = t->protected ? EVENT_WP_FAULT : EVENT_FAULT,
        .fault = {.addr = rig_hva(&s->rig, t->page), .write = t->write},
    };
}

static struct event hand_out_remove(struct sim *s, struct sim_thread *t)
{
    t->phase = REMOVE_READ;
    for (pgno_t p = 0; p < s->n_pages; p++) {
        if (guest_covers_whole(s, t->start, t->end, p))
            s->pages[p].heard = true;
    }
    return (struct event){.kind = EVENT_REMOVE, .remove = {.start = t->start, .end = t->end}};
}

bool kernel_readable(const struct sim *s)
{
    for (unsigned i = 0; i < s->n_threads; i++) {
        if (has_message(&s->threads[i], false) || has_message(&s->threads[i], true))
            return true;
    }
    return false;
}

unsigned kernel_read(struct sim *s, struct event *messages, unsigned max)
{
    unsigned n = 0;

    while (n < max) {
        struct sim_thread *fault = oldest(s, false);
        struct sim_thread *discard = fault ? NULL : oldest(s, true);

        if (fault)
            messages[n++] = hand_out_fault(s, fault);
        else if (discard)
            messages[n++] = hand_out_remove(s, discard);
        else
            break;
    }
    return n;
}

/* ---- installs ----------------------------------------------------------------------------------------------------- */

static bool costs_memory(const struct sim *s, const struct effect *fx)
{
    return fx->kind == EFFECT_COPY || !s->rig.engine.config.zero_runs;
}

static void put(struct sim *s, const struct effect *fx, pgno_t p)
{
    struct sim_page *page = &s->pages[p];

    truth_check_page_put(s, p, fx->kind == EFFECT_COPY);
    if (costs_memory(s, fx))
        s->nomem_since_ns = s->now_ns;
    page->present = true;
    page->armed = fx->arm;
    page->bytes = fx->kind == EFFECT_COPY ? BYTES_IMAGE : BYTES_ZERO;
    if (guest_zap_is_coming(s, p))
        s->stats->zapped_again++;
    guest_wake(s, p);
}

static bool is_huge(const struct sim *s)
{
    return s->rig.block.geom.page_shift > 12;
}

/* say_exists() - EEXIST, and what the pager makes of it: for a huge page it may mean that there is no memory */
static enum outcome say_exists(struct sim *s, const struct effect *fx, pgno_t p)
{
    struct sim_page *page = &s->pages[p];

    if (is_huge(s) && !s->may_look)
        return OUTCOME_UNSURE;
    if (!page->present)
        return OUTCOME_NOMEM;
    if (pagetab_get(&s->rig.block.pages, p) == PAGE_ABSENT && (fx->ahead || p <= fx->page))
        page->unrecorded = false; /* the engine knows of it when it is told so now */
    return OUTCOME_EXISTS;
}

/* refusal() - why page @p, the @done-th of its run, is not put in place; OUTCOME_DONE: nothing is in the way */
static enum outcome refusal(struct sim *s, const struct effect *fx, pgno_t p, uint64_t done)
{
    const struct sim_page *page = &s->pages[p];

    if (page->unregistered)
        return OUTCOME_UNMAPPED;
    if (s->nomem && costs_memory(s, fx) && !is_huge(s))
        return OUTCOME_NOMEM;
    if (page->present || (s->nomem && costs_memory(s, fx)))
        return done == 0 || sim_chance(s, 3) ? say_exists(s, fx, p) : OUTCOME_AGAIN;
    if (fx->kind == EFFECT_COPY && page->unreadable)
        return OUTCOME_SOURCE;
    if (done > 0 && sim_chance(s, 40))
        return OUTCOME_AGAIN; /* interrupted */
    return OUTCOME_DONE;
}

static enum outcome install(struct sim *s, const struct effect *fx, uint64_t *done)
{
    if (s->mmap_changing > 0 || sim_chance(s, 60))
        return OUTCOME_AGAIN;
    for (pgno_t p = fx->first; p < fx->end; p++) {
        enum outcome why = refusal(s, fx, p, *done);

        if (why != OUTCOME_DONE)
            return why;
        put(s, fx, p);
        ++*done;
    }
    return OUTCOME_DONE;
}

static enum outcome unprotect(struct sim *s, pgno_t p)
{
    if (s->mmap_changing > 0 || sim_chance(s, 60))
        return OUTCOME_AGAIN;
    if (s->pages[p].unregistered)
        return OUTCOME_UNMAPPED;
    s->pages[p].armed = false;
    guest_wake(s, p);
    return OUTCOME_DONE;
}

static enum outcome apply(struct sim *s, const struct effect *fx, uint64_t *done)
{
    if (s->vmm_gone)
        return OUTCOME_GONE;
    switch (fx->kind) {
    case EFFECT_COPY:
        s->stats->copies++;
        return install(s, fx, done);
    case EFFECT_ZERO:
        s->stats->zeroes++;
        return install(s, fx, done);
    case EFFECT_UNPROTECT:
        s->stats->unprotects++;
        return unprotect(s, fx->page);
    case EFFECT_WAKE:
        s->stats->wakes++;
        guest_wake(s, fx->page);
        return OUTCOME_DONE;
    case EFFECT_LOCATE:
    case EFFECT_FETCH:
    case EFFECT_STOP:
        break;
    }
    assert(false);
    return OUTCOME_REFUSED;
}

struct event kernel_apply(struct sim *s, const struct effect *fx)
{
    struct event ev = {.kind = EVENT_DONE};

    ev.done.asked = *fx;
    ev.done.outcome = apply(s, fx, &ev.done.pages_done);
    s->stats->outcomes[ev.done.outcome]++;
    return ev;
}
