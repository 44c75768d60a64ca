/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_world.h"

/*
 * The VMM's threads: each touches pages, or discards a range as a balloon does. What a sleeping thread was about to do
 * is done again from the beginning when it is woken, as the hardware does.
 */

static struct block *block_of(struct sim *s)
{
    return &s->rig.block;
}

static void fall_asleep(struct sim *s, struct sim_thread *t, bool protected)
{
    t->doing = SLEEPS;
    t->protected = protected;
    t->queued = true;
    t->handled = false;
    t->serial = ++s->next_serial;
}

static void touch(struct sim *s, struct sim_thread *t)
{
    struct sim_page *page = &s->pages[t->page];

    if (page->unregistered) {
        if (!page->present)
            page->bytes = BYTES_ZERO; /* the kernel's own zero-fill */
        page->present = true;
    } else if (!page->present) {
        fall_asleep(s, t, false);
        return;
    } else if (t->write && page->armed) {
        fall_asleep(s, t, true);
        return;
    } else if (sim_chance(s, 24)) {
        s->stats
            ->stale_faults++; /* it looked before the page was put there, and went to sleep after that */
        fall_asleep(s, t, false);
        return;
    }
    if (t->write)
        page->bytes = BYTES_OWN;
    t->doing = RUNS;
}

/* ---- discards ----------------------------------------------------------------------------------------------------- */

static hva_t page_start(const struct sim *s, pgno_t p)
{
    return rig_hva(&s->rig, p);
}

static hva_t page_end(const struct sim *s, pgno_t p)
{
    return page_start(s, p) + geom_page_bytes(&s->rig.block.geom);
}

bool guest_covers_whole(const struct sim *s, hva_t start, hva_t end, pgno_t p)
{
    return start <= page_start(s, p) && page_end(s, p) <= end;
}

static bool overlaps(const struct sim *s, const struct sim_thread *t, pgno_t p)
{
    return t->start < page_end(s, p) && page_start(s, p) < t->end;
}

bool guest_zap_is_coming(const struct sim *s, pgno_t p)
{
    for (unsigned i = 0; i < s->n_threads; i++) {
        const struct sim_thread *t = &s->threads[i];

        if (t->doing == DISCARDS && t->phase != REMOVE_QUEUED && overlaps(s, t, p))
            return true;
    }
    return false;
}

/* begin_discard() - pages from @p on, sometimes into a gap or the next region; huge pages sometimes in part */
static void begin_discard(struct sim *s, struct sim_thread *t, pgno_t p)
{
    uint64_t page_bytes = geom_page_bytes(&block_of(s)->geom);

    t->doing = DISCARDS;
    t->phase = REMOVE_QUEUED;
    t->start = page_start(s, p);
    t->end = t->start + page_bytes * (1 + sim_pick(s, 9));
    if (page_bytes > 4096) {
        if (sim_chance(s, 3))
            t->start += 4096;
        if (sim_chance(s, 3))
            t->end -= page_bytes - 4096;
    }
    t->serial = ++s->next_serial;
    s->mmap_changing++;
}

static void zap(struct sim *s, struct sim_thread *t)
{
    for (pgno_t p = 0; p < s->n_pages; p++) {
        struct sim_page *page = &s->pages[p];

        if (guest_covers_whole(s, t->start, t->end, p)) {
            page->present = false;
            page->armed = false;
            page->zapped = true;
        } else if (overlaps(s, t, p)) {
            page->parted = true;
            page->bytes = BYTES_OWN;
        }
    }
    t->doing = RUNS;
}

static bool go_on_discarding(struct sim *s, struct sim_thread *t)
{
    switch (t->phase) {
    case REMOVE_QUEUED:
        return false;
    case REMOVE_READ:
        s->mmap_changing--;
        t->phase = ZAP_TO_COME;
        return true;
    case ZAP_TO_COME:
        zap(s, t);
        return true;
    }
    return false;
}

/* ---- what the pager does not hear of ------------------------------------------------------------------------------ */

/* discard_unheard() - as by mmap(MAP_FIXED) or a hole in the file: only of pages that the pager knows to be there */
static void discard_unheard(struct sim *s, pgno_t p)
{
    struct sim_page *page = &s->pages[p];

    if (!page->present || page->unregistered || page->unrecorded ||
        pagetab_get(&block_of(s)->pages, p) == PAGE_ABSENT)
        return;
    page->present = false;
    page->armed = false;
    page->zapped = true;
}

/* unregister() - the kernel serves the range itself from here on; some of its sleepers are not woken */
static void unregister(struct sim *s, pgno_t p)
{
    pgno_t end = min_u64(p + 1 + sim_pick(s, 4), s->n_pages);

    for (; p < end; p++) {
        s->pages[p].unregistered = true;
        s->pages[p].unrecorded = true;
        s->pages[p].armed = false;
        if (sim_chance(s, 2))
            guest_wake(s, p);
    }
}

/* ---- the schedule ------------------------------------------------------------------------------------------------- */

void guest_wake(struct sim *s, pgno_t p)
{
    for (unsigned i = 0; i < s->n_threads; i++) {
        struct sim_thread *t = &s->threads[i];

        if (t->doing == SLEEPS && t->page == p) {
            t->doing = WANTS;
            t->queued = false; /* a message that nobody read goes with its thread */
        }
    }
}

static void begin_something(struct sim *s, struct sim_thread *t)
{
    unsigned what = sim_pick(s, 16);

    t->page = sim_pick(s, (unsigned)s->n_pages);
    if (what < 12) {
        t->write = (what & 1) != 0;
        touch(s, t);
    } else if (what < 14) {
        begin_discard(s, t, t->page);
    } else if (what == 14) {
        discard_unheard(s, t->page);
    } else if (s->may_unregister) {
        unregister(s, t->page);
    }
}

void guest_step(struct sim *s)
{
    struct sim_thread *t = &s->threads[sim_pick(s, s->n_threads)];

    if (s->vmm_gone || s->finishing)
        return;
    switch (t->doing) {
    case RUNS:
        begin_something(s, t);
        break;
    case WANTS:
        touch(s, t);
        break;
    case SLEEPS:
        if (sim_chance(s, 32))
            t->doing = RUNS; /* killed, or a signal; a message that was read stays read */
        break;
    case DISCARDS:
        (void)go_on_discarding(s, t);
        break;
    }
}

bool guest_finish(struct sim *s)
{
    bool any = false;

    for (unsigned i = 0; i < s->n_threads; i++) {
        struct sim_thread *t = &s->threads[i];

        if (t->doing == WANTS) {
            touch(s, t);
            any = true;
        } else if (t->doing == DISCARDS && go_on_discarding(s, t)) {
            any = true;
        }
    }
    return any;
}
