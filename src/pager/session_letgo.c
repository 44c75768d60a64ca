/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_letgo.c - ranges that nobody needs to hear of are given back to the kernel
 *
 * A page that reads as zero whoever answers its fault needs no pager: unregistered, the kernel answers by itself, in a
 * fiftieth of the time. That is done when there is nothing else to do, for
 *
 *     long zero runs of the image     found by asking the source for one window after the other
 *     long ranges that were removed   remembered when their discard was read
 *     everything                      once every page is there, if the pager is to leave then
 *
 * and never while writes are tracked, nor with huge pages, where a pool that has run dry would kill the VMM instead of making
 * it wait. Each range cuts the VMM's mapping in up to three: so only long ranges count (LETGO_BYTES), and not more than
 * LETGO_MAX of them.
 *
 * What is in such a range. Pages that were ABSENT are ZERO from then on; REMOVED ones stay what they are: zero, as far as we
 * know. A range with a page of the image's bytes in it, or with a thread that waits, stays registered: the page's removal must
 * be heard of. A fault that was under way is repeated by the kernel itself, which wakes all waiters of what is unregistered.
 *
 * Leaving. After the last range is unregistered a discard may still be on its way: it has seen the registration, and it
 * will wait until its message is read. Nobody would read it. But it is announced before it lets go of the mapping that
 * UNREGISTER waits for: from then on every copy is refused with EAGAIN. So messages are read until a copy is refused for
 * another reason.
 */
#include "base/err.h"
#include "pager/session_private.h"
#include "uffd/install.h"

#define LETGO_BYTES  (2 * MIB)
#define LETGO_MAX    256u      /* mappings of a process are limited, to 65,530 by default */
#define WINDOW_BYTES (2 * MIB) /* of the image, asked for at once */
#define LOOKS_A_TURN 16u

static struct counters *counters(struct session *s)
{
    return &s->p.block->header->counters;
}

void letgo_init(struct session *s)
{
    struct letgo *l = &s->letgo;
    bool small = s->engine.config.zero_runs; /* pages of 4 KiB, whose writes are not tracked */

    l->on = small && !s->p.keep_registered;
    if (s->p.leave_when_full && !small)
        log_line(s->p.log, THAW_LOG_WARN,
                 "msg=\"will not leave\" why=\"huge pages that are discarded need a pager\"");
}

/* may_let_go() - does every page of [first, end) read as zero, and is nobody waiting? */
static bool may_let_go(const struct session *s, pgno_t first, pgno_t end, bool image_is_zero)
{
    const struct block *b = s->p.block;
    pgno_t waits = min_u64(bitset_next(&b->waiting, first), bitset_next(&b->waiting_wp, first));

    if (waits < end || pagetab_find(&b->pages, PAGE_CLEAN, first, end) < end)
        return false;
    return image_is_zero || pagetab_find(&b->pages, PAGE_ABSENT, first, end) == end;
}

/* settle() - what was ABSENT in [first, end) is ZERO */
static void settle(struct session *s, pgno_t first, pgno_t end)
{
    struct pagetab *pages = &s->p.block->pages;

    while ((first = pagetab_find(pages, PAGE_ABSENT, first, end)) < end) {
        pgno_t next = pagetab_find_other(pages, PAGE_ABSENT, first, end);

        pagetab_step(pages, PAGE_EV_ZEROFILL, first, next);
        first = next;
    }
}

/* let_go() - unregister [first, end), which lies in one region, if that may be and is worth it */
static void let_go(struct session *s, pgno_t first, pgno_t end, bool image_is_zero)
{
    const struct geom *g = &s->p.block->geom;
    struct install_result r;

    if (end - first < LETGO_BYTES >> g->page_shift || !may_let_go(s, first, end, image_is_zero))
        return;
    if (counters(s)->ranges_let_go >= LETGO_MAX) {
        s->letgo.on = false;
        return;
    }
    /* Counted before: a pager killed in between must not leave a range of which it says nothing. */
    counters(s)->ranges_let_go++;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    r = uffd_unregister(s->p.uffd, geom_hva_of(g, geom_find_page(g, first), first),
                        (end - first) << g->page_shift);
    if (r.outcome == OUTCOME_GONE)
        session_stop_because(s, STOP_VMM_GONE, "the VMM is gone");
    if (r.outcome != OUTCOME_DONE) {
        counters(s)->ranges_let_go--;
        return; /* it stays ours */
    }
    settle(s, first, end);
    counters(s)->pages_let_go += end - first;
}

void letgo_removed(struct session *s, hva_t start, hva_t end)
{
    struct letgo *l = &s->letgo;
    const struct geom *g = &s->p.block->geom;
    const struct geom_region *r = geom_find_hva(g, start);

    if (!l->on || end - start < LETGO_BYTES || !r || l->n_removed == LETGO_REMOVED)
        return;
    l->removed[l->n_removed++] = (struct prefetch_run){
        .first = geom_page_of(g, r, start),
        .end = min_u64(geom_page_of(g, r, end - 1) + 1, geom_region_end(g, r)),
    };
}

/* end_run() - of zeroes in the image; the next one begins at @next */
static void end_run(struct session *s, pgno_t next)
{
    struct letgo *l = &s->letgo;

    if (l->run.end > l->run.first)
        let_go(s, l->run.first, l->run.end, true);
    l->run.first = l->run.end = next;
}

/* look_on() - ask the source about the next window */
static void look_on(struct session *s)
{
    struct letgo *l = &s->letgo;
    const struct geom *g = &s->p.block->geom;
    const struct geom_region *r = geom_find_page(g, l->next);
    pgno_t window_end = min_u64(geom_region_end(g, r), l->next + (WINDOW_BYTES >> g->page_shift));
    struct effect ask = {.page = l->next, .first = l->next, .end = window_end, .ahead = true};
    struct event answer;

    session_locate(s, &ask, &answer);
    if (answer.located.where == LOCATED_FAILED) {
        l->next = s->p.block->geom.n_pages; /* who needs those bytes will hear of it */
        end_run(s, l->next);
        return;
    }
    if (answer.located.where == LOCATED_ZERO)
        l->run.end = answer.located.end;
    else
        end_run(s, answer.located.end);
    l->next = answer.located.end;
    if (l->next == geom_region_end(g, r))
        end_run(s, l->next);
}

bool letgo_is_due(const struct session *s)
{
    const struct letgo *l = &s->letgo;

    return l->on && engine_deadline_ns(&s->engine) == ENGINE_NEVER &&
           (l->n_removed > 0 || l->next < s->p.block->geom.n_pages);
}

void letgo_take(struct session *s)
{
    struct letgo *l = &s->letgo;
    unsigned looks = 0;

    while (letgo_is_due(s) && s->stop == STOP_NONE && looks++ < LOOKS_A_TURN) {
        if (l->n_removed > 0) {
            l->n_removed--;
            let_go(s, l->removed[l->n_removed].first, l->removed[l->n_removed].end, false);
        } else {
            look_on(s);
        }
        if (session_take_messages(s))
            return;
    }
}

/* ---- leaving -------------------------------------------------------------------------------------------------- */

/* unregister_all() - Return: is nothing registered any more? */
static bool unregister_all(struct session *s)
{
    const struct geom *g = &s->p.block->geom;

    for (unsigned i = 0; i < g->n_regions; i++) {
        struct install_result r =
            uffd_unregister(s->p.uffd, g->regions[i].hva, g->regions[i].len_bytes);

        if (r.outcome == OUTCOME_GONE)
            session_stop_because(s, STOP_VMM_GONE, "the VMM is gone");
        if (r.outcome != OUTCOME_DONE)
            return false;
    }
    return true;
}

/* discards_are_over() - is there no discard that has seen a registration and whose message is still to come? */
static bool discards_are_over(struct session *s)
{
    hva_t dst = s->p.block->geom.regions[0].hva;

    while (s->stop == STOP_NONE && session_take_messages(s))
        continue;
    /* From where nothing can be read: if the range were registered again by somebody, nothing is installed. */
    return uffd_copy(s->p.uffd, dst, s->unreadable, 4 * KIB, false).outcome != OUTCOME_AGAIN;
}

bool leave_is_due(const struct session *s)
{
    const struct block *b = s->p.block;
    pgno_t n = b->geom.n_pages;

    if (!s->p.leave_when_full || s->letgo.stays || !s->ahead.over || !s->engine.config.zero_runs)
        return false;
    return engine_deadline_ns(&s->engine) == ENGINE_NEVER && bitset_next(&b->waiting, 0) >= n &&
           bitset_next(&b->waiting_wp, 0) >= n && pagetab_find(&b->pages, PAGE_ABSENT, 0, n) == n;
}

void leave(struct session *s)
{
    if (!s->letgo.leaving && !unregister_all(s)) {
        s->letgo.stays = true;
        log_line(s->p.log, THAW_LOG_WARN,
                 "msg=\"cannot leave\" error=\"the kernel does not let go of the VM's memory\"");
        return;
    }
    s->letgo.leaving = true;
    if (s->stop == STOP_NONE && discards_are_over(s)) {
        s->p.block->header->let_go = 1;
        session_stop_because(s, STOP_LEFT, "every page is installed");
    }
}
