/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_world.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The schedule: what there is, who runs next, and how it ends. See sim.h for the theory. */

#define FINISH_ROUNDS 20000u

static char verdict[256];

unsigned sim_pick(struct sim *s, unsigned n)
{
    unsigned byte;

    if (s->n_bytes == 0)
        return 0;
    byte = *s->bytes++;
    s->n_bytes--;
    return byte % n;
}

bool sim_chance(struct sim *s, unsigned n)
{
    return sim_pick(s, n) == n - 1;
}

void sim_wrong(struct sim *s, const char *fmt, ...)
{
    va_list args;

    if (s->wrong)
        return;
    va_start(args, fmt);
    (void)vsnprintf(verdict, sizeof(verdict), fmt, args);
    va_end(args);
    s->wrong = verdict;
}

/* ---- what there is ------------------------------------------------------------------------------------------------ */

/* lay_out_regions() - up to three; they touch or leave gaps, and their image offsets are in another order sometimes */
static void lay_out_regions(struct sim *s, struct rig_spec *spec)
{
    static const unsigned sizes[] = {3, 1, 8, 20, 40, 53};
    uint64_t at = sim_pick(s, 20);
    uint64_t image = sim_pick(s, 20);

    spec->n_regions = 1 + sim_pick(s, 3);
    for (unsigned i = 0; i < spec->n_regions; i++) {
        unsigned n = sizes[sim_pick(s, ARRAY_LEN(sizes))];

        spec->regions[i] = (struct rig_region){.from = at, .to = at + n, .image = image};
        at += n + sim_pick(s, 3);
        image += n + sim_pick(s, 3);
    }
    if (spec->n_regions == 3 && sim_chance(s, 2)) {
        uint64_t first = spec->regions[0].image;

        spec->regions[0].image = spec->regions[2].image + 64;
        spec->regions[2].image = first + 512;
    }
}

static void lay_out_image(struct sim *s)
{
    static const enum located kinds[] = {LOCATED_ZERO, LOCATED_MEMORY, LOCATED_MEMORY,
                                         LOCATED_ELSEWHERE};

    for (pgno_t p = 0; p < s->n_pages;) {
        enum located kind = kinds[sim_pick(s, ARRAY_LEN(kinds))];

        for (unsigned n = 1 + sim_pick(s, 24); n > 0 && p < s->n_pages; n--)
            s->pages[p++].image = kind;
    }
}

/* storm() - more threads than there are places for fetches, each on a page of its own */
static void storm(struct sim *s)
{
    s->n_threads = SIM_THREADS;
    for (unsigned i = 0; i < SIM_THREADS; i++) {
        s->threads[i].doing = WANTS;
        s->threads[i].page = i * s->n_pages / SIM_THREADS;
        s->threads[i].write = (i & 1) != 0;
    }
}

/* lay_out_plan() - runs of pages, no page in two of them, in any order; some pages are in none */
static void lay_out_plan(struct sim *s)
{
    const struct geom *g = &s->rig.block.geom;

    s->rig.engine.config.ahead_pages = sim_pick(s, 12);
    for (pgno_t p = 0; p < s->n_pages && s->n_runs < SIM_RUNS;) {
        struct prefetch_run run = {.first = p + sim_pick(s, 3)};

        if (run.first >= s->n_pages)
            break;
        run.end = min_u64(run.first + 1 + sim_pick(s, 24),
                          geom_region_end(g, geom_find_page(g, run.first)));
        p = run.end;
        s->plan[s->n_runs++] = run;
    }
    for (unsigned i = 1; i < s->n_runs; i++) {
        unsigned other = sim_pick(s, i + 1);
        struct prefetch_run run = s->plan[i];

        s->plan[i] = s->plan[other];
        s->plan[other] = run;
    }
    pager_ahead_restart(s);
}

static void build(struct sim *s)
{
    unsigned flags = sim_pick(s, 256);
    struct rig_spec spec = {.page_shift = (flags & 1) ? 21 : 12};
    int r;

    s->track = (flags & 2) != 0;
    s->may_unregister = (flags & 0x1c) == 0x1c;
    s->may_restart = (flags & 0x60) == 0x60;
    s->may_fail = (flags & 0x98) == 0x98;
    s->may_look = sim_chance(s, 2);
    s->keeps_nothing = sim_chance(s, 6);
    spec.config = (struct engine_config){
        .around_pages = 1ull << sim_pick(s, 6),
        .track = s->track,
        .zero_runs = spec.page_shift == 12 && !s->track,
    };
    lay_out_regions(s, &spec);
    r = rig_init(&s->rig, &spec);
    assert(r == 0);
    (void)r;
    s->n_pages = s->rig.block.geom.n_pages;
    assert(s->n_pages <= SIM_PAGES);
    lay_out_image(s);
    s->n_threads = 1 + sim_pick(s, 6);
    if (sim_chance(s, 12))
        storm(s);
    if (sim_chance(s, 2))
        lay_out_plan(s);
}

/* ---- who runs next ------------------------------------------------------------------------------------------------ */

static void let_time_pass(struct sim *s)
{
    static const uint64_t steps_us[] = {0, 1, 10, 100, 1000, 6000};

    s->now_ns += steps_us[sim_pick(s, ARRAY_LEN(steps_us))] * NS_PER_US;
    if (!s->may_fail || !sim_chance(s, 8))
        return;
    for (unsigned i = 0; i < 13; i++) { /* long enough to give up for want of memory */
        s->now_ns += 900 * NS_PER_MS;
        pager_tick(s);
    }
}

/* change_source() - the page cache gains or loses a page */
static void change_source(struct sim *s)
{
    struct sim_page *page = &s->pages[sim_pick(s, (unsigned)s->n_pages)];

    if (page->image == LOCATED_MEMORY)
        page->image = LOCATED_ELSEWHERE;
    else if (page->image == LOCATED_ELSEWHERE)
        page->image = LOCATED_MEMORY;
}

/* change_memory() - there is none, or some again; a pager that did not look meanwhile cannot know of a short while */
static void change_memory(struct sim *s)
{
    if (s->nomem)
        s->memory_since_ns = s->now_ns;
    else if (s->now_ns - s->memory_since_ns > NS_PER_S)
        s->nomem_since_ns = s->now_ns;
    s->nomem = !s->nomem;
}

static void make_trouble(struct sim *s)
{
    switch (sim_pick(s, s->may_fail ? 5 : 2)) {
    case 0:
        change_source(s);
        break;
    case 1:
        change_memory(s);
        break;
    case 2:
        s->source_broken = sim_chance(s, 4);
        break;
    case 3:
        s->pages[sim_pick(s, (unsigned)s->n_pages)].unreadable = true;
        break;
    default:
        s->vmm_gone = sim_chance(s, 4);
        break;
    }
}

static void step(struct sim *s)
{
    unsigned what = sim_pick(s, 32);

    if (what < 12)
        guest_step(s);
    else if (what < 14)
        pager_ahead(s);
    else if (what < 20)
        pager_read(s);
    else if (what < 24)
        pager_tick(s);
    else if (what < 27)
        let_time_pass(s);
    else if (what < 30)
        pager_fetch_ends(s);
    else
        make_trouble(s);
}

/* finish_round() - everybody does what can be done now. Return: whether there was anything */
static bool finish_round(struct sim *s)
{
    uint64_t deadline;

    if (guest_finish(s))
        return true;
    if (kernel_readable(s)) {
        pager_read(s);
        return true;
    }
    deadline = engine_deadline_ns(&s->rig.engine);
    if (deadline != ENGINE_NEVER) {
        s->now_ns = max_u64(s->now_ns, deadline);
        pager_tick(s);
        return true;
    }
    if (s->n_fetches > 0) {
        pager_fetch_ends(s);
        return true;
    }
    if (!prefetch_is_over(&s->rig.engine.ahead)) {
        pager_ahead(s);
        return true;
    }
    return false;
}

static void finish(struct sim *s)
{
    s->finishing = true;
    s->n_bytes = 0;
    s->nomem = false;
    s->source_broken = false;
    for (unsigned round = 0; !s->wrong && !s->stopped && !s->vmm_gone; round++) {
        if (round == FINISH_ROUNDS)
            sim_wrong(s, "it does not come to an end");
        if (!finish_round(s))
            break;
    }
    truth_check_end(s);
}

const char *sim_run(const uint8_t *bytes, size_t n_bytes, struct sim_stats *stats)
{
    static struct sim sim;
    struct sim_stats unused = {0};
    struct sim *s = &sim;

    memset(s, 0, sizeof(*s));
    s->bytes = bytes;
    s->n_bytes = n_bytes;
    s->now_ns = 1000;
    s->stats = stats ? stats : &unused;
    s->stats->schedules++;
    build(s);
    while (s->n_bytes > 0 && !s->wrong && !s->stopped)
        step(s);
    finish(s);
    rig_deinit(&s->rig);
    return s->wrong;
}
