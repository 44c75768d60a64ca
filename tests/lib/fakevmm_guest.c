/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakevmm_guest.c - mapping guest memory and handing it to a pager
 *
 * One address range is reserved and the regions are mapped into it. Two layouts:
 *
 *   gaps       regions in the order of the image with gaps between them, which are, in turn, mapped without
 *              rights, not mapped at all, and ordinary memory with a known content (a canary): three ways for a
 *              pager that goes beyond a region's end to be noticed.
 *   adjacent   regions touch each other, and their order in memory is not that of the image: the kernel makes
 *              one mapping of them, a discard can cover several, and what lies behind a region's end in memory
 *              is not what lies behind it in the image.
 *
 * Regions differ in size. Everything is decided by the seed.
 */
#include "fakevmm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "uffd_peer.h"

#define GAP_PAGES_MAX 3u

static uint64_t next_random(uint64_t *rng)
{
    uint64_t x = *rng;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *rng = x;
}

static void *must_alloc(size_t n, size_t bytes)
{
    void *p = calloc(n, bytes);

    if (!p)
        peer_die(PEER_EXIT_ABSENT, ENOMEM, "%zu x %zu bytes", n, bytes);
    return p;
}

/* Sizes: an equal share each, then every region gives a random part of its share to the next one. */
static void plan_sizes(struct guest *g, uint64_t *rng)
{
    uint64_t i, give, share = g->n_pages / g->n_regions, first = 0;

    for (i = 0; i < g->n_regions; i++)
        g->regions[i].len_bytes = share + (i < g->n_pages % g->n_regions);
    for (i = 0; i + 1 < g->n_regions; i++) {
        give = next_random(rng) % g->regions[i].len_bytes;
        g->regions[i].len_bytes -= give;
        g->regions[i + 1].len_bytes += give;
    }
    for (i = 0; i < g->n_regions; i++) {
        g->regions[i].first = first;
        g->regions[i].imgoff = first << g->page_shift;
        first += g->regions[i].len_bytes;
        g->regions[i].len_bytes <<= g->page_shift;
    }
}

static void plan_order(struct guest *g, bool shuffled, uint64_t *rng)
{
    uint64_t i, j;

    for (i = 0; i < g->n_regions; i++)
        g->by_hva[i] = &g->regions[i];
    for (i = g->n_regions - 1; shuffled && i > 0; i--) {
        struct region *r = g->by_hva[i];

        j = next_random(rng) % i;
        g->by_hva[i] = g->by_hva[j];
        g->by_hva[j] = r;
    }
}

static void map_gap(struct guest *g, uint8_t *at, uint64_t len_bytes, unsigned i)
{
    struct canary *c;
    uint64_t k;

    if (i % 3 == 0)
        return; /* stays reserved without rights */
    if (i % 3 == 1) {
        munmap(at, len_bytes);
        return;
    }
    if (mmap(at, len_bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot map a gap");
    c = &g->canaries[g->n_canaries++];
    c->word = (uint64_t *)at;
    c->n_words = len_bytes / 8;
    for (k = 0; k < c->n_words; k++)
        c->word[k] = ~(uint64_t)(uintptr_t)&c->word[k];
}

static void map_region(struct region *r, uint8_t *at, bool huge)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED | (huge ? MAP_HUGETLB : 0);

    r->hva = mmap(at, r->len_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (r->hva == MAP_FAILED)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot map %llu bytes of %s pages",
                 (unsigned long long)r->len_bytes, huge ? "huge" : "small");
}

static void reserve(struct guest *g, uint64_t span_bytes)
{
    uint64_t page_bytes = 1ull << g->page_shift;
    uint8_t *at = mmap(NULL, span_bytes + page_bytes, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot reserve %llu bytes",
                 (unsigned long long)span_bytes);
    g->base = at + (-(uintptr_t)at & (page_bytes - 1));
    g->span_bytes = span_bytes;
}

void guest_map(struct guest *g, const struct plan *plan)
{
    uint64_t rng = g->oracle.seed * 2 + 1, gap;
    uint8_t *at;
    unsigned i;

    g->page_shift = plan->page_shift;
    g->n_pages = plan->n_pages;
    g->n_regions = plan->n_regions;
    g->regions = must_alloc(g->n_regions, sizeof(*g->regions));
    g->by_hva = must_alloc(g->n_regions, sizeof(struct region *));
    g->canaries = must_alloc(g->n_regions + 1, sizeof(*g->canaries));
    g->state = must_alloc(g->n_pages, sizeof(*g->state));
    g->touched = must_alloc(g->n_pages, sizeof(*g->touched));
    plan_sizes(g, &rng);
    plan_order(g, plan->adjacent, &rng);
    reserve(g, (g->n_pages + (uint64_t)(g->n_regions + 1) * GAP_PAGES_MAX) << g->page_shift);
    gap = plan->adjacent ? 0 : 1;
    at = g->base;
    for (i = 0; i < g->n_regions; i++) {
        if (gap > 0)
            map_gap(g, at, gap << g->page_shift, i);
        at += gap << g->page_shift;
        map_region(g->by_hva[i], at, g->page_shift > 12);
        at += g->by_hva[i]->len_bytes;
        gap = plan->adjacent ? 0 : 1 + next_random(&rng) % GAP_PAGES_MAX;
    }
    map_gap(g, at, 1ull << g->page_shift, 2);
    g->span_bytes = (uint64_t)(at - g->base) + (1ull << g->page_shift);
}

static void print_page_size(FILE *f, const char *how, uint64_t page_bytes)
{
    bool both = !strcmp(how, "both");

    if (both || !strcmp(how, "new"))
        fprintf(f, ",\"page_size\":%llu", (unsigned long long)page_bytes);
    if (both || !strcmp(how, "old")) /* bytes, in spite of its name */
        fprintf(f, ",\"page_size_kib\":%llu", (unsigned long long)page_bytes);
    if (!strcmp(how, "kib"))
        fprintf(f, ",\"page_size_kib\":%llu", (unsigned long long)page_bytes / 1024);
}

/* handshake_text() - the JSON array. (give) */
static char *handshake_text(const struct guest *g, const struct plan *plan, size_t *len)
{
    uint64_t rng = g->oracle.seed * 6 + 1;
    unsigned i, start = plan->shuffle ? (unsigned)(next_random(&rng) % g->n_regions) : 0;
    char *text = NULL;
    FILE *f = open_memstream(&text, len);

    if (!f)
        peer_die(PEER_EXIT_ABSENT, errno, "open_memstream");
    for (i = 0; i < g->n_regions; i++) {
        const struct region *r =
            plan->shuffle ? g->by_hva[(start + i) % g->n_regions] : &g->regions[i];

        fprintf(f, "%c{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu", i ? ',' : '[',
                (unsigned long long)(uintptr_t)r->hva, (unsigned long long)r->len_bytes,
                (unsigned long long)r->imgoff);
        print_page_size(f, plan->page_field, 1ull << g->page_shift);
        fputc('}', f);
    }
    fputc(']', f);
    fclose(f);
    return text;
}

void guest_attach(struct guest *g, const struct plan *plan, const char *socket_path)
{
    size_t len;
    char *text = handshake_text(g, plan, &len);
    unsigned i;
    int r;

    g->uffd = peer_uffd_new(O_NONBLOCK, 0);
    for (i = 0; i < g->n_regions; i++)
        peer_uffd_register(g->uffd, g->regions[i].hva, g->regions[i].len_bytes);
    g->sock = peer_connect(socket_path);
    if (g->sock < 0)
        peer_die(PEER_EXIT_ABSENT, -g->sock, "cannot connect to %s", socket_path);
    r = peer_send(g->sock, text, len, &g->uffd, 1);
    if (r < 0)
        peer_die(PEER_EXIT_ABSENT, -r, "cannot send the handshake");
    free(text);
}
