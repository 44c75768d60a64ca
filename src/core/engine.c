/* SPDX-License-Identifier: Apache-2.0 */
#include "core/engine.h"

#include "core/engine_ahead.h"

/* See engine.h for the theory. Functions named on_*() take one kind of event; each returns the number of effects. */

static struct counters *counters(struct engine *e)
{
    return &e->block->header->counters;
}

static unsigned emit_stop(struct effect *fx, enum stop_reason why)
{
    *fx = (struct effect){.kind = EFFECT_STOP, .stop = why};
    return 1;
}

static unsigned emit_page(struct effect *fx, enum effect_kind kind, pgno_t page)
{
    *fx = (struct effect){.kind = kind, .page = page, .first = page, .end = page + 1};
    return 1;
}

/* emit_alone() - the same for the page that was asked about, without its neighbours: they may be in the way */
static unsigned emit_alone(struct effect *fx, const struct effect *asked)
{
    *fx = *asked;
    fx->first = asked->page;
    fx->end = asked->page + 1;
    return 1;
}

/* answered() - whoever waited in [first, end) has been woken, by an install or by a wake */
static void answered(struct engine *e, pgno_t first, pgno_t end)
{
    bitset_drop_range(&e->block->waiting, first, end);
    bitset_drop_range(&e->block->waiting_wp, first, end);
}

static void retry_by(struct engine *e, uint64_t time_ns)
{
    if (!e->blocked)
        e->retry_at_ns = min_u64(e->retry_at_ns, time_ns);
}

/* put_off_again() - the kernel refuses all installs for now: nothing is tried until the retry time */
static void put_off_again(struct engine *e, uint64_t now_ns)
{
    counters(e)->again++;
    e->blocked = true;
    e->retry_at_ns = now_ns + e->backoff_ns;
    e->backoff_ns = min_u64(e->backoff_ns * 2, ENGINE_BACKOFF_MAX_NS);
    if (e->in_pass && e->cursor > 0)
        e->cursor--; /* whom it was refused comes first the next time */
    e->in_pass = false;
}

/* progressed() - the kernel did not refuse: the address space is not changing */
static void progressed(struct engine *e)
{
    e->backoff_ns = ENGINE_BACKOFF_MIN_NS;
}

static bool is_blocked(const struct engine *e, uint64_t now_ns)
{
    return e->blocked && now_ns < e->retry_at_ns;
}

/* is_installed() - do we believe so? */
static bool is_installed(const struct engine *e, pgno_t p)
{
    enum page_state state = pagetab_get(&e->block->pages, p);

    return state != PAGE_ABSENT && state != PAGE_REMOVED;
}

/* is_in_doubt() - is there perhaps no huge page for @p? Then it waits until e->doubt_until_ns */
static bool is_in_doubt(const struct engine *e, pgno_t p, uint64_t now_ns)
{
    return now_ns < e->doubt_until_ns && !is_installed(e, p);
}

/* ---- what a waiting page is answered with --------------------------------------------------------------------- */

static unsigned emit_zero(struct engine *e, pgno_t p, bool write, struct effect *fx)
{
    enum page_state state = pagetab_get(&e->block->pages, p);
    pgno_t lo;
    pgno_t hi;

    (void)emit_page(fx, EFFECT_ZERO, p);
    fx->write = write;
    fx->arm = e->config.track;
    if (e->config.zero_runs && state == PAGE_REMOVED) {
        geom_window(&e->block->geom, p, e->config.around_pages, &lo, &hi);
        pagetab_run(&e->block->pages, state, p, lo, hi, &fx->first, &fx->end);
    }
    return 1;
}

static unsigned emit_locate(struct engine *e, pgno_t p, bool write, struct effect *fx)
{
    pgno_t lo;
    pgno_t hi;

    geom_window(&e->block->geom, p, e->config.around_pages, &lo, &hi);
    (void)emit_page(fx, EFFECT_LOCATE, p);
    fx->write = write;
    fx->arm = e->config.track;
    pagetab_run(&e->block->pages, PAGE_ABSENT, p, lo, hi, &fx->first, &fx->end);
    return 1;
}

/* answer_missing() - the page's current state decides, whenever the question comes up; 0: it is being fetched */
static unsigned answer_missing(struct engine *e, pgno_t p, bool write, struct effect *fx)
{
    if (page_state_answers[pagetab_get(&e->block->pages, p)] == PAGE_ANSWER_ZERO)
        return emit_zero(e, p, write, fx);
    if (fetch_table_join(&e->fetches, p, write))
        return 0;
    return emit_locate(e, p, write, fx);
}

/*
 * A write-protect fault on a page that we believe not installed: either stale (the page was discarded since) or we
 * never knew of the page. Answer it as a missing fault: an install settles the first case, EXISTS proves the second.
 */
static unsigned answer_protected(struct engine *e, pgno_t p, struct effect *fx)
{
    unsigned n;

    if (is_installed(e, p))
        return emit_page(fx, EFFECT_UNPROTECT, p);
    n = answer_missing(e, p, true, fx);
    if (n > 0)
        fx->unprotect = true;
    return n;
}

/* ---- events from the kernel ----------------------------------------------------------------------------------- */

static unsigned on_fault(struct engine *e, const struct event *ev, struct effect *fx)
{
    bool protected = ev->kind == EVENT_WP_FAULT;
    const struct geom_region *r = geom_find_hva(&e->block->geom, ev->fault.addr);
    unsigned n;
    pgno_t p;

    if (protected)
        counters(e)->wp_faults++;
    else
        counters(e)->faults++;
    if (!r) {
        counters(e)->stray++;
        return emit_stop(fx, STOP_STRAY_FAULT);
    }
    p = geom_page_of(&e->block->geom, r, ev->fault.addr);
    bitset_add(protected ? &e->block->waiting_wp : &e->block->waiting, p);
    if (is_in_doubt(e, p, ev->time_ns))
        retry_by(e, e->doubt_until_ns);
    if (is_blocked(e, ev->time_ns) || is_in_doubt(e, p, ev->time_ns)) {
        counters(e)->deferred++;
        return 0;
    }
    n = protected ? answer_protected(e, p, fx) : answer_missing(e, p, ev->fault.write, fx);
    if (n == 0)
        counters(e)->merged++;
    return n;
}

/* remove_in() - the part [start, end) of region @r is discarded: whole pages are gone, touched ones differ */
static void remove_in(struct engine *e, const struct geom_region *r, hva_t start, hva_t end,
                      uint64_t now_ns)
{
    const struct geom *g = &e->block->geom;
    uint64_t mask = geom_page_bytes(g) - 1;
    pgno_t first = geom_page_of(g, r, start);
    pgno_t last = geom_page_of(g, r, end - 1);
    pgno_t whole_first = (start & mask) != 0 ? first + 1 : first;
    pgno_t whole_end = (end & mask) != 0 ? last : last + 1;

    if (whole_first > first)
        pagetab_step(&e->block->pages, PAGE_EV_REMOVE_PART, first, first + 1);
    if (whole_end <= last && (last != first || whole_first == first))
        pagetab_step(&e->block->pages, PAGE_EV_REMOVE_PART, last, last + 1);
    if (whole_first >= whole_end)
        return;
    pagetab_step(&e->block->pages, PAGE_EV_REMOVE, whole_first, whole_end);
    counters(e)->pages_removed += whole_end - whole_first;
    /* Somebody may wait there for bytes on their way, which are not wanted any more: answer with zeroes, soon. */
    if (bitset_next_in(&e->block->waiting, whole_first, whole_end) != BITSET_NONE ||
        bitset_next_in(&e->block->waiting_wp, whole_first, whole_end) != BITSET_NONE)
        retry_by(e, now_ns);
}

static unsigned on_remove(struct engine *e, const struct event *ev)
{
    const struct geom *g = &e->block->geom;
    hva_t covered = 0;

    counters(e)->removes++;
    e->backoff_ns = min_u64(e->backoff_ns, ENGINE_BUSY_NS);
    for (unsigned i = geom_first_after(g, ev->remove.start); i < g->n_regions; i++) {
        const struct geom_region *r = geom_region_by_hva(g, i);
        hva_t start = max_u64(ev->remove.start, r->hva);
        hva_t end = min_u64(ev->remove.end, r->hva + r->len_bytes);

        if (start >= end)
            break;
        remove_in(e, r, start, end, ev->time_ns);
        covered += end - start;
    }
    if (covered == 0)
        counters(e)->stray++;
    return 0;
}

/* ---- events from the source ----------------------------------------------------------------------------------- */

static unsigned on_located(struct engine *e, const struct event *ev, struct effect *fx)
{
    const struct effect *asked = &ev->located.asked;

    *fx = *asked;
    fx->first = ev->located.first;
    fx->end = ev->located.end;
    assert(asked->first <= fx->first && fx->first <= asked->page);
    assert(asked->page < fx->end && fx->end <= asked->end);
    switch (ev->located.where) {
    case LOCATED_ZERO:
        if (!e->config.zero_runs)
            (void)emit_alone(fx, asked);
        fx->kind = EFFECT_ZERO;
        return 1;
    case LOCATED_MEMORY:
        fx->kind = EFFECT_COPY;
        return 1;
    case LOCATED_ELSEWHERE:
        if (asked->fetched && ev->located.slow) {
            /* It does not stay in memory: better to wait for the storage once than to read it for ever. */
            (void)emit_alone(fx, asked);
            fx->kind = EFFECT_COPY;
            return 1;
        }
        if (!fetch_table_add(&e->fetches, fx->first, fx->end, asked->write))
            return 0; /* it waits; the next fetch that ends has it tried again */
        counters(e)->fetches++;
        fx->kind = EFFECT_FETCH;
        fx->fetched = false;
        return 1;
    case LOCATED_FAILED:
        break;
    }
    return emit_stop(fx, STOP_SOURCE);
}

/* next_wanted() - the first page of [first, end) that somebody waits for and that still is the image's; else @end */
static pgno_t next_wanted(const struct engine *e, pgno_t first, pgno_t end)
{
    const struct block *b = e->block;

    for (pgno_t p = first; p < end; p++) {
        p = min_u64(bitset_next_in(&b->waiting, p, end), bitset_next_in(&b->waiting_wp, p, end));
        if (p == BITSET_NONE)
            break;
        if (pagetab_get(&b->pages, p) == PAGE_ABSENT)
            return p;
    }
    return end;
}

static unsigned on_fetched(struct engine *e, const struct event *ev, struct effect *fx)
{
    pgno_t first = ev->fetched.first;
    pgno_t end = ev->fetched.end;
    bool write = false;
    bool known = fetch_table_drop(&e->fetches, first, end, &write);
    pgno_t p;

    assert(known);
    p = next_wanted(e, first, end);
    if (p < end && !ev->fetched.ok && end - first == 1)
        return emit_stop(fx, STOP_SOURCE);
    /* A place in the table is free, and pages of this run may have been removed meanwhile: look at who waits. */
    retry_by(e, ev->time_ns);
    if (p == end) {
        counters(e)->fetches_dropped++;
        return 0;
    }
    if (is_blocked(e, ev->time_ns)) {
        counters(e)->deferred++;
        return 0;
    }
    /* What another read brings too waits for that one: the source drew its lines differently then. */
    while (p < end && fetch_table_join(&e->fetches, p, write))
        p = next_wanted(e, p + 1, end);
    if (p == end)
        return 0;
    /* Asked again, not copied blindly: the page cache may have lost the bytes meanwhile. */
    (void)emit_locate(e, p, write, fx);
    fx->unprotect = bitset_has(&e->block->waiting_wp, p);
    if (!ev->fetched.ok) /* the page alone: it may be what is beside it that cannot be read */
        return emit_alone(fx, fx);
    fx->fetched = true;
    return 1;
}

/* ---- outcomes ------------------------------------------------------------------------------------------------- */

/* installed() - [first, end) of an effect is in place and its waiters are awake */
static void installed(struct engine *e, const struct effect *asked, pgno_t end)
{
    bool copy = asked->kind == EFFECT_COPY;
    bool written = asked->write && !asked->arm && asked->page < end;
    enum page_event ev = copy ? PAGE_EV_INSTALL : PAGE_EV_ZEROFILL;
    enum page_event ev_write = copy ? PAGE_EV_INSTALL_WRITE : PAGE_EV_ZEROFILL_WRITE;
    struct pagetab *pages = &e->block->pages;
    uint64_t was[N_PAGE_STATES];

    pagetab_count(pages, asked->first, end, was);
    if (copy) {
        counters(e)->pages_installed += end - asked->first;
        counters(e)->pages_around += end - asked->first - (asked->page < end ? 1 : 0);
    } else {
        counters(e)->pages_zeroed += end - asked->first;
        counters(e)->pages_refaulted += was[PAGE_REMOVED];
    }
    if (!written) {
        pagetab_step(pages, ev, asked->first, end);
    } else {
        if (asked->first < asked->page)
            pagetab_step(pages, ev, asked->first, asked->page);
        pagetab_step(pages, ev_write, asked->page, asked->page + 1);
        if (asked->page + 1 < end)
            pagetab_step(pages, ev, asked->page + 1, end);
    }
    answered(e, asked->first, end);
    progressed(e);
    if (copy || !e->config.zero_runs)
        e->nomem_since_ns = 0; /* zero pages that cost no memory say nothing about it */
}

static unsigned no_memory(struct engine *e, uint64_t now_ns, struct effect *fx)
{
    counters(e)->nomem++;
    /* Whoever waits is tried again soon. When nobody was for long, the last shortage is over, and this is another. */
    if (e->nomem_since_ns == 0 || now_ns - e->nomem_last_ns > ENGINE_NOMEM_GAP_NS)
        e->nomem_since_ns = max_u64(now_ns, 1);
    e->nomem_last_ns = now_ns;
    if (now_ns > e->nomem_since_ns + ENGINE_NOMEM_LIMIT_NS)
        return emit_stop(fx, STOP_NOMEM);
    retry_by(e, now_ns + ENGINE_NOMEM_RETRY_NS);
    return 0;
}

/*
 * doubted() - UNSURE for a page that we believe not installed: it is there, or there is no memory for it
 *
 * Taken for "there", it would be answered with zeroes once there is memory. So its state stays, its waiters are woken
 * (which settles the first case), and if they fault again they are kept waiting for a moment: the second case counts as a
 * shortage.
 */
static unsigned doubted(struct engine *e, pgno_t p, uint64_t now_ns, struct effect *fx)
{
    unsigned n = no_memory(e, now_ns, fx);

    if (n > 0)
        return n;
    e->doubt_until_ns = now_ns + ENGINE_NOMEM_RETRY_NS;
    return emit_page(fx, EFFECT_WAKE, p);
}

/* exists() - page @p is there already: its waiters are still asleep */
static unsigned exists(struct engine *e, const struct effect *asked, pgno_t p, uint64_t now_ns,
                       struct effect *fx)
{
    /*
     * A neighbour that is REMOVED and there still is about to be zapped (its REMOVE was read, the VMM's thread has not run
     * on): it stays REMOVED. A neighbour believed ABSENT was put there by somebody else.
     */
    if (p == asked->page || pagetab_get(&e->block->pages, p) == PAGE_ABSENT)
        pagetab_step(&e->block->pages, PAGE_EV_FOUND, p, p + 1);
    counters(e)->pages_found++;
    progressed(e);
    if (p == asked->page) {
        /* A write-protect fault that a pager before us did not finish may be lifted already: UNPROTECT records it. */
        bool protected = asked->unprotect || bitset_has(&e->block->waiting_wp, p);

        return emit_page(fx, protected ? EFFECT_UNPROTECT : EFFECT_WAKE, p);
    }
    if (bitset_has(&e->block->waiting, p) || bitset_has(&e->block->waiting_wp, p))
        retry_by(e, now_ns);
    return emit_alone(fx, asked);
}

static unsigned on_install_done(struct engine *e, const struct event *ev, struct effect *fx)
{
    const struct effect *asked = &ev->done.asked;
    pgno_t next = asked->first + ev->done.pages_done;
    bool alone = asked->end - asked->first == 1;

    assert(next <= asked->end);
    if (asked->ahead && (next > asked->first || ev->done.outcome != OUTCOME_AGAIN))
        return ahead_done(e, ev, fx);
    if (ev->done.pages_done > 0)
        installed(e, asked, next);
    if (ev->done.outcome == OUTCOME_GONE)
        return emit_stop(fx, STOP_VMM_GONE);
    if (asked->page < next)
        return 0; /* whoever waited is served; neighbours are a courtesy */
    switch (ev->done.outcome) {
    case OUTCOME_DONE: /* of a run that ends before the page: not made by anybody */
    case OUTCOME_AGAIN:
        if (ev->done.pages_done > 0) {
            counters(e)->partial++;
            *fx = *asked;
            fx->first = next;
            return 1;
        }
        put_off_again(e, ev->time_ns);
        return 0;
    case OUTCOME_UNSURE:
        if (next != asked->page) /* a neighbour: whether it is there or not, nobody asked for it */
            return emit_alone(fx, asked);
        if (!asked->unprotect && !is_installed(e, next))
            return doubted(e, next, ev->time_ns, fx);
        return exists(e, asked, next, ev->time_ns, fx);
    case OUTCOME_EXISTS:
        return exists(e, asked, next, ev->time_ns, fx);
    case OUTCOME_UNMAPPED:
        if (!alone)
            return emit_alone(fx, asked);
        counters(e)->unmapped++;
        return emit_page(fx, EFFECT_WAKE, asked->page);
    case OUTCOME_NOMEM:
        return alone ? no_memory(e, ev->time_ns, fx) : emit_alone(fx, asked);
    case OUTCOME_SOURCE:
        return alone ? emit_stop(fx, STOP_SOURCE) : emit_alone(fx, asked);
    case OUTCOME_GONE:
    case OUTCOME_REFUSED:
        break;
    }
    return alone ? emit_stop(fx, STOP_REFUSED) : emit_alone(fx, asked);
}

static unsigned on_wake_done(struct engine *e, const struct event *ev, struct effect *fx)
{
    pgno_t p = ev->done.asked.page;

    switch (ev->done.outcome) {
    case OUTCOME_DONE:
        if (ev->done.asked.kind == EFFECT_UNPROTECT) {
            pagetab_step(&e->block->pages, PAGE_EV_WRITTEN, p, p + 1);
            counters(e)->pages_written++;
            progressed(e);
        } else {
            counters(e)->wakes++;
        }
        answered(e, p, p + 1);
        return 0;
    case OUTCOME_AGAIN:
        put_off_again(e, ev->time_ns);
        return 0;
    case OUTCOME_UNMAPPED:
        counters(e)->unmapped++;
        if (ev->done.asked.kind == EFFECT_UNPROTECT)
            return emit_page(fx, EFFECT_WAKE, p);
        answered(e, p, p + 1); /* nobody can wait on a range that is registered with nobody */
        return 0;
    case OUTCOME_GONE:
        return emit_stop(fx, STOP_VMM_GONE);
    case OUTCOME_NOMEM:
        return no_memory(e, ev->time_ns, fx);
    case OUTCOME_EXISTS:
    case OUTCOME_UNSURE:
    case OUTCOME_SOURCE:
    case OUTCOME_REFUSED:
        break;
    }
    return emit_stop(fx, STOP_REFUSED);
}

static unsigned on_done(struct engine *e, const struct event *ev, struct effect *fx)
{
    switch (ev->done.asked.kind) {
    case EFFECT_COPY:
    case EFFECT_ZERO:
        return on_install_done(e, ev, fx);
    case EFFECT_UNPROTECT:
    case EFFECT_WAKE:
        return on_wake_done(e, ev, fx);
    case EFFECT_LOCATE:
    case EFFECT_FETCH:
    case EFFECT_STOP:
        break;
    }
    assert(false); /* an effect that has no outcome */
    return 0;
}

/* ---- retries -------------------------------------------------------------------------------------------------- */

/* next_answer() - the effect for the next waiting page from the cursor on; 0: there is none */
static unsigned next_answer(struct engine *e, struct effect *fx)
{
    unsigned n = 0;
    pgno_t p;

    while (!e->cursor_wp && n == 0) {
        p = bitset_next(&e->block->waiting, e->cursor);
        e->cursor_wp = p == BITSET_NONE;
        e->cursor = p == BITSET_NONE ? 0 : p + 1;
        if (p != BITSET_NONE)
            n = answer_missing(e, p, true, fx);
    }
    while (n == 0) {
        p = bitset_next(&e->block->waiting_wp, e->cursor);
        if (p == BITSET_NONE)
            return 0;
        e->cursor = p + 1;
        n = answer_protected(e, p, fx);
    }
    return n;
}

/*
 * One pass over both sets of waiting pages, one page a step. A page that is still being fetched is passed over: its
 * FETCHED event asks for another pass. AGAIN ends the pass and blocks (put_off_again); the next one begins there and goes
 * around, or threads that fault again and again in low pages would keep everybody else waiting.
 */
static unsigned on_tick(struct engine *e, const struct event *ev, struct effect *fx)
{
    unsigned n;

    if (!e->in_pass) {
        if (ev->time_ns < e->retry_at_ns)
            return 0;
        e->in_pass = true;
        e->retry_at_ns = ENGINE_NEVER;
        e->blocked = false;
        e->began_late = e->cursor > 0 || e->cursor_wp;
    }
    while ((n = next_answer(e, fx)) == 0) {
        e->cursor = 0;
        e->cursor_wp = false;
        e->in_pass = e->began_late;
        if (!e->in_pass)
            return 0;
        e->began_late = false;
    }
    return n;
}

/* ---- the door ------------------------------------------------------------------------------------------------- */

void engine_init(struct engine *e, struct block *block, const struct engine_config *config)
{
    assert(is_power_of_two(config->around_pages));
    *e = (struct engine){
        .block = block,
        .config = *config,
        .retry_at_ns = ENGINE_NEVER,
        .backoff_ns = ENGINE_BACKOFF_MIN_NS,
    };
    if (bitset_next(&block->waiting, 0) != BITSET_NONE ||
        bitset_next(&block->waiting_wp, 0) != BITSET_NONE)
        e->retry_at_ns = 0;
}

unsigned engine_step(struct engine *e, const struct event *ev, struct effect fx[ENGINE_FX_MAX])
{
    switch (ev->kind) {
    case EVENT_FAULT:
    case EVENT_WP_FAULT:
        return on_fault(e, ev, fx);
    case EVENT_REMOVE:
        return on_remove(e, ev);
    case EVENT_LOCATED:
        return ev->located.asked.ahead ? ahead_located(e, ev, fx) : on_located(e, ev, fx);
    case EVENT_FETCHED:
        return on_fetched(e, ev, fx);
    case EVENT_DONE:
        return on_done(e, ev, fx);
    case EVENT_TICK:
        return on_tick(e, ev, fx);
    case EVENT_AHEAD:
        return ahead_begin(e, ev, fx);
    }
    assert(false); /* an event of no kind */
    return 0;
}

uint64_t engine_deadline_ns(const struct engine *e)
{
    return e->in_pass ? 0 : e->retry_at_ns;
}
