/* SPDX-License-Identifier: Apache-2.0 */
/*
 * roles.c - what writers, readers and removers do until they are told to stop
 *
 * Half of all operations go to a few hot pages, for conflict. The others go to cold ones: half of those to pages that are
 * touched for the first time or were a moment ago, the rest to any page that was reached so far. Which pages are reached
 * grows with time, so that there are snapshot pages to be brought until the end.
 *
 * A fault that the pager forgot is answered when another thread wants the same page, or one beside it that is filled in
 * together with it, and so it would seldom be noticed. So every thread has a lonely page, in the midst of pages where nobody
 * else goes: there it waits for ever.
 */
#include "stress.h"

#define FRESH         256u /* pages behind the frontier that are touched first */
#define LONELY_STRIDE 64u
#define LONELY_FIRST  16u /* of a stride: nobody goes to pages from here on ... */
#define LONELY_PAGE   40u /* ... but one thread, to this one */
#define LONELY_ODDS   16u

const char *const role_names[N_ROLES] = {"writer", "reader", "remover"};

uint64_t actor_random(struct actor *a)
{
    uint64_t x = a->rng;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    a->rng = x;
    return x * 0x2545f4914f6cdd1du >> 1;
}

static unsigned percent(struct actor *a)
{
    return (unsigned)(actor_random(a) % 100);
}

void world_choose_pages(struct world *w, uint64_t seed, unsigned n_threads)
{
    const struct region *second = w->guest.n_regions > 1 ? w->guest.by_hva[1] : NULL;
    uint64_t i, page, x = seed | 1;

    w->n_lonely = w->n_pages / LONELY_STRIDE / 2;
    if (w->n_lonely > n_threads)
        w->n_lonely = n_threads;
    for (i = 0; i < N_HOT; i += 2) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        page = (x >> 20) % (w->n_pages - 1);
        if (i == 0 && second)
            page = ((uint64_t)(second->hva - w->hva[0]) / w->page_bytes) - 1;
        w->hot[i] = page;
        w->hot[i + 1] = page + 1;
    }
}

static uint64_t choose_cold(struct actor *a)
{
    uint64_t reached = atomic_load_explicit(&a->world->frontier, memory_order_relaxed);
    uint64_t fresh = reached < FRESH ? reached : FRESH;

    if (actor_random(a) % 2)
        return reached - 1 - actor_random(a) % fresh;
    return actor_random(a) % reached;
}

static bool is_lonely(const struct world *w, uint64_t page)
{
    return page % LONELY_STRIDE >= LONELY_FIRST && page / LONELY_STRIDE < w->n_lonely;
}

static uint64_t choose_page(struct actor *a)
{
    uint64_t page;

    do {
        page = actor_random(a) % 2 ? a->world->hot[actor_random(a) % N_HOT] : choose_cold(a);
    } while (is_lonely(a->world, page));
    return page;
}

/* 1 page more often than not, sometimes as many as a balloon gives back at once. */
static uint64_t choose_length(struct actor *a)
{
    unsigned dice = percent(a);

    if (dice < 55)
        return 1 + actor_random(a) % 2;
    if (dice < 95)
        return 1 + actor_random(a) % 16;
    return 1 + actor_random(a) % RUN_MAX;
}

static void read_somehow(struct actor *a, uint64_t page)
{
    uint32_t n = (uint32_t)(a->world->page_bytes / 8);
    unsigned dice = percent(a);

    if (dice < 55)
        op_read(a, page);
    else if (dice < 85)
        op_read_word(a, page, dice < 65 ? 0 : (uint32_t)(actor_random(a) % n));
    else
        op_read_by_syscall(a, page);
}

static void write_somehow(struct actor *a, uint64_t page)
{
    unsigned dice = percent(a);

    if (dice < 35)
        op_write_cell(a, page, (unsigned)(actor_random(a) % N_CELLS));
    else if (dice < 65)
        op_add(a, page);
    else if (dice < 85)
        op_fill(a, page);
    else
        op_fill_by_syscall(a, page);
}

static void remove_somewhere(struct actor *a)
{
    uint64_t page = choose_page(a), n = choose_length(a), reached = a->world->frontier;

    if (n > 2 && page >= n / 2) /* a run around the page, not always from it on */
        page -= actor_random(a) % (n / 2 + 1);
    if (page < reached && n > reached - page)
        n = reached - page; /* what nobody has touched is to be touched first */
    op_remove(a, page, n);
}

static void visit_lonely(struct actor *a)
{
    uint64_t page = a->id * LONELY_STRIDE + LONELY_PAGE;

    op_remove(a, page, 1);
    if (actor_random(a) % 2)
        write_somehow(a, page);
    else
        read_somehow(a, page);
}

void role_run(struct actor *a)
{
    while (!atomic_load_explicit(&a->world->stop, memory_order_relaxed)) {
        uint64_t page = choose_page(a);
        unsigned i;

        if (a->id < a->world->n_lonely && actor_random(a) % LONELY_ODDS == 0)
            visit_lonely(a);
        switch (a->role) {
        case ROLE_WRITER:
            write_somehow(a, page);
            if (actor_random(a) % 4 == 0)
                read_somehow(a, page);
            break;
        case ROLE_REMOVER:
            remove_somewhere(a);
            for (i = 0; i < 4; i++) /* what was removed is worth nothing if nobody looks */
                read_somehow(a, choose_page(a));
            break;
        default:
            read_somehow(a, page);
        }
    }
}
