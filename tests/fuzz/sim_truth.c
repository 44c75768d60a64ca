/* SPDX-License-Identifier: Apache-2.0 */
#include "../unit/engine_check.h"
#include "sim_world.h"

/* The oracle: what the engine may want, what may go into a page, and what it may believe between two events. */

#define PAGE "page %llu: "

static unsigned long long nr(pgno_t p)
{
    return (unsigned long long)p;
}

static enum page_state believed(const struct sim *s, pgno_t p)
{
    return pagetab_get(&s->rig.block.pages, p);
}

static bool is_waited_for(const struct sim *s, pgno_t p)
{
    return bitset_has(&s->rig.block.waiting, p) || bitset_has(&s->rig.block.waiting_wp, p);
}

void truth_check_page_put(struct sim *s, pgno_t p, bool image)
{
    const struct sim_page *page = &s->pages[p];

    if (image && page->heard)
        sim_wrong(s, PAGE "image bytes after its REMOVE was read", nr(p));
    else if (image && page->zapped)
        sim_wrong(s, PAGE "image bytes where the guest discarded them", nr(p));
    else if (!image && !page->heard && !page->zapped && page->image != LOCATED_ZERO)
        sim_wrong(s, PAGE "zeroes where the image's bytes belong", nr(p));
}

/* ---- effects ------------------------------------------------------------------------------------------------------ */

static void check_armed(struct sim *s, const struct effect *fx)
{
    if (fx->arm != s->track)
        sim_wrong(s, PAGE "is armed where writes are not tracked, or the other way round",
                  nr(fx->page));
}

/* check_slice() - a part of one run of the plan, no longer than it may be */
static void check_slice(struct sim *s, const struct effect *fx)
{
    pgno_t most = max_u64(1, s->rig.engine.config.ahead_pages);
    bool planned = false;

    for (unsigned i = 0; i < s->n_runs; i++)
        planned = planned || (fx->first >= s->plan[i].first && fx->end <= s->plan[i].end);
    if (!planned)
        sim_wrong(s, PAGE "nobody waits there, and it is not in the plan", nr(fx->page));
    else if (fx->first != fx->page || fx->end - fx->first > most || fx->write || fx->unprotect)
        sim_wrong(s, PAGE "is no slice of the plan", nr(fx->page));
    else if (pagetab_get(&s->rig.block.pages, fx->page) != PAGE_ABSENT)
        sim_wrong(s, PAGE "is planned and not ABSENT", nr(fx->page));
    check_armed(s, fx);
}

static void check_run(struct sim *s, const struct effect *fx)
{
    const struct geom *g = &s->rig.block.geom;
    const struct engine_config *config = &s->rig.engine.config;
    const struct geom_region *r;
    uint64_t first;
    uint64_t last;

    if (fx->page >= s->n_pages || fx->first > fx->page || fx->end <= fx->page) {
        sim_wrong(s, PAGE "is not in its own run", nr(fx->page));
        return;
    }
    r = geom_find_page(g, fx->page);
    if (fx->first < r->first || fx->end > geom_region_end(g, r)) {
        sim_wrong(s, PAGE "its run leaves the region", nr(fx->page));
        return;
    }
    if (fx->ahead) {
        check_slice(s, fx);
        return;
    }
    first = geom_imgoff_of(g, r, fx->first) >> g->page_shift;
    last = geom_imgoff_of(g, r, fx->end - 1) >> g->page_shift;
    if (first / config->around_pages != last / config->around_pages)
        sim_wrong(s, PAGE "its run leaves the fault-around window", nr(fx->page));
    check_armed(s, fx);
}

/* may_copy() - bytes in memory; or those that a fetch could not keep there, for the page alone that is waited for */
static bool may_copy(const struct sim *s, const struct effect *fx, pgno_t p)
{
    const struct sim_page *page = &s->pages[p];

    return page->image == LOCATED_MEMORY ||
           (s->keeps_nothing && page->fetched && fx->end - fx->first == 1 && !fx->ahead);
}

static void check_source(struct sim *s, const struct effect *fx)
{
    for (pgno_t p = fx->first; p < fx->end; p++) {
        if (believed(s, p) != PAGE_ABSENT)
            sim_wrong(s, PAGE "the image is asked for what is not ABSENT", nr(p));
        else if (fx->kind == EFFECT_COPY && !may_copy(s, fx, p))
            sim_wrong(s, PAGE "is copied and not in memory", nr(p));
    }
}

static void check_stop(struct sim *s, const struct effect *fx)
{
    bool justified = false;

    switch (fx->stop) {
    case STOP_VMM_GONE:
        justified = s->vmm_gone;
        break;
    case STOP_SOURCE:
        justified = s->source_broken;
        for (pgno_t p = 0; p < s->n_pages; p++)
            justified = justified || (s->pages[p].unreadable && is_waited_for(s, p));
        break;
    case STOP_NOMEM:
        justified = s->nomem && s->now_ns - s->nomem_since_ns > ENGINE_NOMEM_LIMIT_NS;
        break;
    case STOP_NONE:
    case STOP_ASKED:
    case STOP_LEFT:
    case STOP_REFUSED:
    case STOP_STRAY_FAULT:
    case STOP_UNKNOWN_EVENT:
        break;
    }
    if (!justified)
        sim_wrong(s, "stops for no reason: %s", stop_reason_name(fx->stop));
}

void truth_check_effect(struct sim *s, const struct effect *fx)
{
    switch (fx->kind) {
    case EFFECT_LOCATE:
    case EFFECT_FETCH:
    case EFFECT_COPY:
        check_run(s, fx);
        if (!s->wrong)
            check_source(s, fx);
        break;
    case EFFECT_ZERO:
        check_run(s, fx);
        if (fx->end - fx->first > 1 && !s->rig.engine.config.zero_runs)
            sim_wrong(s, PAGE "zero pages that cost memory are filled in ahead", nr(fx->page));
        break;
    case EFFECT_UNPROTECT:
    case EFFECT_WAKE:
        if (fx->page >= s->n_pages || !is_waited_for(s, fx->page))
            sim_wrong(s, PAGE "is woken and nobody waits there", nr(fx->page));
        break;
    case EFFECT_STOP:
        check_stop(s, fx);
        return;
    }
    if (s->now_ns < s->blocked_until_ns && fx->kind != EFFECT_WAKE && fx->kind != EFFECT_FETCH)
        sim_wrong(s, PAGE "is tried before the time", nr(fx->page));
}

/* ---- beliefs ------------------------------------------------------------------------------------------------------ */

static void check_removed(struct sim *s, pgno_t p)
{
    const struct sim_page *page = &s->pages[p];
    enum page_state state = believed(s, p);

    if (page_state_reads[state] == PAGE_READS_IMAGE && page->told)
        sim_wrong(s, PAGE "is %s after its REMOVE", nr(p), page_state_names[state]);
    else if (page->present && !page->unrecorded && state == PAGE_ABSENT)
        sim_wrong(s, PAGE "is there and believed ABSENT", nr(p));
    else if (page->present && !page->unrecorded && state == PAGE_REMOVED &&
             !guest_zap_is_coming(s, p))
        sim_wrong(s, PAGE "is there, nobody will discard it, and it is believed REMOVED", nr(p));
}

static void check_tracked(struct sim *s, pgno_t p)
{
    const struct sim_page *page = &s->pages[p];
    enum page_state state = believed(s, p);

    if (!page->present || page->unregistered || page->unrecorded || state == PAGE_DIRTY ||
        is_waited_for(s, p) || guest_zap_is_coming(s, p))
        return;
    if (!page->armed)
        sim_wrong(s, PAGE "can be written to unseen and is %s", nr(p), page_state_names[state]);
    else if (!page->parted && ((state == PAGE_CLEAN && page->bytes != BYTES_IMAGE) ||
                               (state == PAGE_ZERO && page->bytes != BYTES_ZERO)))
        sim_wrong(s, PAGE "holds other bytes than %s says", nr(p), page_state_names[state]);
}

static void check_sleeper(struct sim *s, const struct sim_thread *t)
{
    if (t->doing == SLEEPS && !t->queued && t->handled && !is_waited_for(s, t->page))
        sim_wrong(s, PAGE "somebody sleeps there and is forgotten", nr(t->page));
}

void truth_check(struct sim *s)
{
    const char *broken;

    if (s->wrong || s->stopped)
        return;
    broken = engine_check(&s->rig.engine, s->now_ns);
    if (broken)
        sim_wrong(s, "%s", broken);
    for (pgno_t p = 0; p < s->n_pages && !s->wrong; p++) {
        check_removed(s, p);
        if (s->track)
            check_tracked(s, p);
    }
    for (unsigned i = 0; i < s->n_threads && !s->wrong; i++)
        check_sleeper(s, &s->threads[i]);
}

/* check_plan() - it is walked to its end, and what of it is not there was left behind for a reason */
static void check_plan(struct sim *s)
{
    if (!prefetch_is_over(&s->rig.engine.ahead))
        sim_wrong(s, "the plan does not come to its end");
    if (s->left_behind || s->rig.block.header->counters.ahead_left > 0)
        return;
    for (unsigned i = 0; i < s->n_runs; i++) {
        for (pgno_t p = s->plan[i].first; p < s->plan[i].end; p++) {
            if (believed(s, p) == PAGE_ABSENT)
                sim_wrong(s, PAGE "is planned, and passed over", nr(p));
        }
    }
}

void truth_check_end(struct sim *s)
{
    if (s->wrong || s->stopped || s->vmm_gone)
        return;
    for (unsigned i = 0; i < s->n_threads; i++) {
        if (s->threads[i].doing != RUNS)
            sim_wrong(s, PAGE "a thread never goes on", nr(s->threads[i].page));
    }
    if (bitset_next(&s->rig.block.waiting, 0) != BITSET_NONE ||
        bitset_next(&s->rig.block.waiting_wp, 0) != BITSET_NONE)
        sim_wrong(s, "nobody sleeps and the engine believes that somebody does");
    if (s->rig.engine.fetches.n != 0)
        sim_wrong(s, "no worker works and the engine believes that one does");
    if (engine_deadline_ns(&s->rig.engine) != ENGINE_NEVER)
        sim_wrong(s, "nothing is left to do and the timer is set");
    check_plan(s);
}
