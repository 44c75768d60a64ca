/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakevmm_pages.c - what each page must read as, and the operations that change it
 *
 * A page has one 32-bit state: what it holds (enum content) and a count of changes, odd while a change is under
 * way. Whoever changes a page (writes to it, discards it) claims it first; who comes second goes elsewhere. So
 * nobody ever waits for a thread that waits for the pager, and every answer is known:
 *
 *   The state was the same and even before and after a page was read: the read overlapped no change. Every word
 *   must be the one that the state says.
 *
 *   Otherwise the read raced a change. The kernel promises no more than that each word is from one side or the
 *   other (until madvise returns, another CPU can still reach the old page), so each word must be one of: what the
 *   page held before, what it holds after, a zero from a discard between, or what a change between wrote. Never
 *   the memory file's bytes when the page did not hold them at the start: those would be stale.
 *
 * A partial write ("stamp") is one word at a place that depends on the page, so that an answer to a write fault
 * with the wrong rest of the page is seen.
 */
#include "fakevmm.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "uffd_peer.h"

#define CONTENT_SHIFT 28
#define OP_MASK       ((1u << CONTENT_SHIFT) - 1)
#define RACE_OPS_MAX  64u /* a read that overlaps more changes than this is not judged */

static enum content state_content(uint32_t s)
{
    return (enum content)(s >> CONTENT_SHIFT);
}

static bool content_is_image(enum content c)
{
    return c == CONTENT_IMAGE || c == CONTENT_IMAGE_STAMPED;
}

static bool content_is_stamped(enum content c)
{
    return c == CONTENT_IMAGE_STAMPED || c == CONTENT_ZERO_STAMPED;
}

static const struct region *find_region(const struct guest *g, uint64_t page)
{
    unsigned lo = 0, hi = g->n_regions, mid;

    while (hi - lo > 1) {
        mid = lo + (hi - lo) / 2;
        if (g->regions[mid].first <= page)
            lo = mid;
        else
            hi = mid;
    }
    return &g->regions[lo];
}

uint8_t *guest_page(const struct guest *g, uint64_t page)
{
    const struct region *r = find_region(g, page);

    return r->hva + ((page - r->first) << g->page_shift);
}

uint64_t guest_region_end(const struct guest *g, uint64_t page)
{
    const struct region *r = find_region(g, page);

    return r->first + (r->len_bytes >> g->page_shift);
}

static unsigned blocks_per_page(const struct guest *g)
{
    return 1u << (g->page_shift - 12);
}

/* The block (of the image) and the word where stamps of this page go. */
static void stamp_place(const struct guest *g, uint64_t page, uint64_t *block, unsigned *word)
{
    uint64_t h = page * 0x9e3779b97f4a7c15u ^ g->oracle.seed;

    *block = page * blocks_per_page(g) + (h >> 40) % blocks_per_page(g);
    *word = (unsigned)((h >> 20) % BLOCK_WORDS);
}

static uint64_t expected_word(const struct guest *g, uint32_t s, uint64_t block, unsigned word)
{
    enum content c = state_content(s);
    uint32_t op =
        s & OP_MASK & ~1u; /* while a change is under way: that of the last finished one */
    uint64_t stamp_block;
    unsigned stamp_word;

    if (c == CONTENT_OWN)
        return oracle_own(&g->oracle, block, word, op);
    if (content_is_stamped(c)) {
        stamp_place(g, block / blocks_per_page(g), &stamp_block, &stamp_word);
        if (block == stamp_block && word == stamp_word)
            return oracle_own(&g->oracle, block, word, op);
    }
    return content_is_image(c) ? oracle_image(&g->oracle, block, word) : 0;
}

static bool may_read(const struct guest *g, uint32_t before, uint32_t after, uint64_t block,
                     unsigned word, uint64_t got)
{
    uint32_t op = before & OP_MASK & ~1u, n = ((after - before) & OP_MASK) + 3;

    if (got == 0 || n > RACE_OPS_MAX)
        return true;
    if (got == expected_word(g, before, block, word) || got == expected_word(g, after, block, word))
        return true;
    if (content_is_image(state_content(before)) && got == oracle_image(&g->oracle, block, word))
        return true;
    for (; n > 0; n--, op++) {
        if (got == oracle_own(&g->oracle, block, word, op & OP_MASK))
            return true;
    }
    return false;
}

static void judge_word(struct worker *w, uint64_t page, uint32_t before, uint32_t after,
                       uint64_t block, unsigned word, uint64_t got)
{
    const struct guest *g = w->guest;
    uint64_t expected = expected_word(g, before, block, word);

    if (got == expected)
        return;
    if ((before != after || (before & 1)) && may_read(g, before, after, block, word, got))
        return;
    worker_error(w, page, block, word, expected, got);
}

uint64_t clock_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Announce an access to the watchdog. Return: true when nobody touched the page before. */
static bool note_access(struct worker *w, uint64_t page, const char *what, uint8_t bits)
{
    atomic_store_explicit(&w->doing_page, page, memory_order_relaxed);
    atomic_store_explicit(&w->doing, what, memory_order_relaxed);
    if ((atomic_load_explicit(&w->guest->touched[page], memory_order_relaxed) & bits) == bits)
        return false;
    return !atomic_fetch_or(&w->guest->touched[page], bits);
}

static uint64_t load_word(const uint8_t *block, unsigned word)
{
    return ((const volatile uint64_t *)(const void *)block)[word];
}

/* The first load of a page, timed if somebody wants to know. */
static uint64_t first_load(struct worker *w, uint64_t page, const uint8_t *block, unsigned word)
{
    bool fresh = note_access(w, page, "reading", 1);
    uint64_t t, got;

    if (!fresh || !w->lat_ns || w->tally.n_lat == w->cap_lat)
        return load_word(block, word);
    t = clock_ns();
    got = load_word(block, word);
    t = clock_ns() - t;
    w->lat_ns[w->tally.n_lat++] = t < UINT32_MAX ? (uint32_t)t : UINT32_MAX;
    return got;
}

void guest_peek(struct worker *w, uint64_t page, uint64_t block_in_page, unsigned word)
{
    struct guest *g = w->guest;
    uint64_t block = page * blocks_per_page(g) + block_in_page, got;
    uint32_t before = atomic_load(&g->state[page]), after;

    got = first_load(w, page, guest_page(g, page) + block_in_page * BLOCK_BYTES, word);
    after = atomic_load(&g->state[page]);
    judge_word(w, page, before, after, block, word, got);
}

void guest_check(struct worker *w, uint64_t page)
{
    struct guest *g = w->guest;
    const uint8_t *at = guest_page(g, page);
    uint64_t block, n = blocks_per_page(g), r = worker_random(w);
    uint32_t before, after;
    unsigned i;

    /* Begin anywhere in the page: faults are not only raised by first words. */
    guest_peek(w, page, r % n, (unsigned)(r >> 32) % BLOCK_WORDS);
    for (block = 0; block < n; block++) {
        before = atomic_load(&g->state[page]);
        for (i = 0; i < BLOCK_WORDS; i++)
            w->copy[i] = load_word(at + block * BLOCK_BYTES, i);
        after = atomic_load(&g->state[page]);
        for (i = 0; i < BLOCK_WORDS; i++)
            judge_word(w, page, before, after, page * n + block, i, w->copy[i]);
    }
    w->tally.checks++;
    atomic_store_explicit(&w->doing, "between pages", memory_order_relaxed);
}

bool guest_claim(struct guest *g, uint64_t page)
{
    uint32_t s = atomic_load(&g->state[page]);

    if (s & 1)
        return false;
    return atomic_compare_exchange_strong(&g->state[page], &s,
                                          (s & ~OP_MASK) | ((s + 1) & OP_MASK));
}

uint32_t guest_op(const struct guest *g, uint64_t page)
{
    return (atomic_load(&g->state[page]) + 1) & OP_MASK;
}

enum content guest_content(const struct guest *g, uint64_t page)
{
    return state_content(atomic_load(&g->state[page]));
}

void guest_release(struct guest *g, uint64_t page, enum content content)
{
    atomic_store(&g->state[page], guest_op(g, page) | (uint32_t)content << CONTENT_SHIFT);
}

void guest_unclaim(struct guest *g, uint64_t page)
{
    atomic_fetch_sub(&g->state[page], 1);
}

bool guest_fill(struct worker *w, uint64_t page)
{
    struct guest *g = w->guest;
    volatile uint64_t *at = (volatile uint64_t *)(void *)guest_page(g, page);
    uint64_t block, n = blocks_per_page(g);
    uint32_t op;
    unsigned i;

    if (!guest_claim(g, page))
        return false;
    op = guest_op(g, page);
    note_access(w, page, "filling", 3);
    for (block = 0; block < n; block++) {
        for (i = 0; i < BLOCK_WORDS; i++)
            at[block * BLOCK_WORDS + i] = oracle_own(&g->oracle, page * n + block, i, op);
    }
    guest_release(g, page, CONTENT_OWN);
    w->tally.writes++;
    return true;
}

bool guest_stamp(struct worker *w, uint64_t page)
{
    struct guest *g = w->guest;
    uint64_t block;
    enum content c;
    unsigned word;

    if (guest_content(g, page) == CONTENT_OWN)
        return guest_fill(w, page);
    if (!guest_claim(g, page))
        return false;
    c = guest_content(g, page);
    if (c == CONTENT_OWN) {
        guest_unclaim(g, page);
        return false;
    }
    stamp_place(g, page, &block, &word);
    note_access(w, page, "stamping", 3);
    ((volatile uint64_t *)(void *)guest_page(
        g, page))[(block % blocks_per_page(g)) * BLOCK_WORDS + word] =
        oracle_own(&g->oracle, block, word, guest_op(g, page));
    guest_release(g, page, content_is_image(c) ? CONTENT_IMAGE_STAMPED : CONTENT_ZERO_STAMPED);
    w->tally.writes++;
    return true;
}

/* Claim pages from @page on, at most @n and not beyond the region. Return: how many, up to the first busy one. */
static uint64_t claim_run(struct guest *g, uint64_t page, uint64_t n)
{
    uint64_t i, end = guest_region_end(g, page);

    if (n > end - page)
        n = end - page;
    for (i = 0; i < n && guest_claim(g, page + i); i++)
        ;
    return i;
}

static void release_run(struct guest *g, uint64_t page, uint64_t n, enum content content)
{
    uint64_t i;

    for (i = 0; i < n; i++)
        guest_release(g, page + i, content);
}

static void note_discard(struct worker *w, uint64_t page, const char *what)
{
    atomic_store_explicit(&w->doing_page, page, memory_order_relaxed);
    atomic_store_explicit(&w->doing, what, memory_order_relaxed);
}

uint64_t guest_discard(struct worker *w, uint64_t page, uint64_t n)
{
    struct guest *g = w->guest;

    n = claim_run(g, page, n);
    if (n == 0)
        return 0;
    note_discard(w, page, "discarding");
    if (madvise(guest_page(g, page), n << g->page_shift, MADV_DONTNEED) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "MADV_DONTNEED of %llu pages", (unsigned long long)n);
    release_run(g, page, n, CONTENT_ZERO);
    w->tally.discards++;
    w->tally.pages_discarded += n;
    return n;
}

/* The pages of region @r that lie in [@lo, @hi). */
static uint64_t pages_between(const struct guest *g, const struct region *r, const uint8_t *lo,
                              const uint8_t *hi, uint64_t *page)
{
    const uint8_t *a = r->hva > lo ? r->hva : lo;
    const uint8_t *b = r->hva + r->len_bytes < hi ? r->hva + r->len_bytes : hi;

    if (a >= b)
        return 0;
    *page = r->first + ((uint64_t)(a - r->hva) >> g->page_shift);
    return (uint64_t)(b - a) >> g->page_shift;
}

uint64_t guest_discard_span(struct worker *w, uint64_t first_byte, uint64_t n_bytes)
{
    struct guest *g = w->guest;
    uint8_t *lo = g->base + first_byte, *hi = lo + n_bytes;
    uint64_t page = 0, n, got, total = 0;
    unsigned i;

    for (i = 0; i < g->n_regions; i++) {
        n = pages_between(g, g->by_hva[i], lo, hi, &page);
        got = n > 0 ? claim_run(g, page, n) : 0;
        if (got < n) /* somebody is changing that page: stop before it */
            hi = guest_page(g, page + got);
        total += got;
    }
    if (hi == lo)
        return 0;
    for (i = 0; i < g->n_canaries; i++) {
        if ((uint8_t *)g->canaries[i].word < hi && (uint8_t *)(g->canaries[i].word + 1) > lo)
            g->canaries[i].discarded = true;
        else if ((uint8_t *)g->canaries[i].word < lo &&
                 (uint8_t *)(g->canaries[i].word + g->canaries[i].n_words) > lo)
            g->canaries[i].discarded = true;
    }
    note_discard(w, 0, "discarding a span");
    if (madvise(lo, (size_t)(hi - lo), MADV_DONTNEED) < 0 && errno != ENOMEM)
        peer_die(PEER_EXIT_ABSENT, errno, "MADV_DONTNEED of a span");
    for (i = 0; i < g->n_regions; i++) {
        n = pages_between(g, g->by_hva[i], lo, hi, &page);
        if (n > 0)
            release_run(g, page, n, CONTENT_ZERO);
    }
    w->tally.discards++;
    w->tally.pages_discarded += total;
    return total;
}

uint64_t guest_remap(struct worker *w, uint64_t page, uint64_t n)
{
    struct guest *g = w->guest;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED |
                (g->page_shift > 12 ? MAP_HUGETLB : 0);

    n = claim_run(g, page, n);
    if (n == 0)
        return 0;
    note_discard(w, page, "remapping");
    if (mmap(guest_page(g, page), n << g->page_shift, PROT_READ | PROT_WRITE, flags, -1, 0) ==
        MAP_FAILED)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot map over %llu pages", (unsigned long long)n);
    release_run(g, page, n, CONTENT_ZERO);
    w->tally.remaps++;
    return n;
}

void guest_check_canaries(struct worker *w)
{
    const struct guest *g = w->guest;
    uint64_t k, want;
    unsigned i;

    for (i = 0; i < g->n_canaries; i++) {
        const struct canary *c = &g->canaries[i];

        for (k = 0; k < c->n_words; k++) {
            want = ~(uint64_t)(uintptr_t)&c->word[k];
            if (c->word[k] != want && !(c->discarded && c->word[k] == 0))
                worker_error(w, UINT64_MAX, (uintptr_t)&c->word[k], 0, want, c->word[k]);
        }
    }
}
