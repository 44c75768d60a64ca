/* SPDX-License-Identifier: Apache-2.0 */
#include "core/block.h"

#include <string.h>

#define PART_ALIGN 4096ull

/* struct layout - where the parts of a block lie; the only place that decides it */
struct layout {
    uint64_t regions_off;
    uint64_t inbox_off;
    uint64_t pagetab_off;
    uint64_t waiting_off;
    uint64_t waiting_wp_off;
    uint64_t total_bytes;
};

static uint64_t place(uint64_t *cursor, uint64_t bytes)
{
    uint64_t at = *cursor;

    *cursor += align_up(bytes, PART_ALIGN);
    return at;
}

static struct layout lay_out(size_t header_bytes, unsigned n_regions, pgno_t n_pages)
{
    struct layout l;
    uint64_t cursor = 0;

    (void)place(&cursor, header_bytes);
    l.regions_off = place(&cursor, n_regions * sizeof(struct geom_region));
    l.inbox_off = place(&cursor, BLOCK_INBOX_BYTES);
    l.pagetab_off = place(&cursor, pagetab_bytes(n_pages));
    l.waiting_off = place(&cursor, bitset_bytes(n_pages));
    l.waiting_wp_off = place(&cursor, bitset_bytes(n_pages));
    l.total_bytes = cursor;
    return l;
}

static void view(struct block *b, struct block_header *h)
{
    char *mem = (char *)h;

    b->header = h;
    geom_view(&b->geom, (struct geom_region *)(void *)(mem + h->regions_off), h->n_regions,
              h->page_shift);
    b->inbox = mem + h->inbox_off;
    pagetab_init(&b->pages, (uint64_t *)(void *)(mem + h->pagetab_off), h->n_pages);
    bitset_init(&b->waiting, mem + h->waiting_off, h->n_pages);
    bitset_init(&b->waiting_wp, mem + h->waiting_wp_off, h->n_pages);
}

size_t block_bytes(unsigned n_regions, pgno_t n_pages)
{
    return (size_t)lay_out(sizeof(struct block_header), n_regions, n_pages).total_bytes;
}

void block_format(struct block *b, void *mem, const struct geom *geom)
{
    struct layout l = lay_out(sizeof(struct block_header), geom->n_regions, geom->n_pages);
    struct block_header *h = mem;

    h->version = BLOCK_VERSION;
    h->header_bytes = sizeof(*h);
    h->total_bytes = l.total_bytes;
    h->page_shift = geom->page_shift;
    h->n_regions = geom->n_regions;
    h->n_pages = geom->n_pages;
    h->regions_off = l.regions_off;
    h->inbox_off = l.inbox_off;
    h->pagetab_off = l.pagetab_off;
    h->waiting_off = l.waiting_off;
    h->waiting_wp_off = l.waiting_wp_off;
    memcpy((char *)mem + l.regions_off, geom->regions,
           geom->n_regions * sizeof(struct geom_region));
    view(b, h);
    /* The magic is written last: a reader sees a whole block or none. */
    __atomic_store_n(&h->magic, BLOCK_MAGIC, __ATOMIC_RELEASE);
}

/* numbers_consistent() - each region by itself, in the order of the image: what geom_init() leaves behind */
static bool numbers_consistent(const struct block_header *h, const struct geom_region *r)
{
    uint64_t mask = (1ull << h->page_shift) - 1;
    imgoff_t image_end = 0;
    hva_t memory_end;
    pgno_t next = 0;

    for (unsigned i = 0; i < h->n_regions; i++) {
        if (r[i].first != next || r[i].len_bytes == 0 || r[i].imgoff < image_end ||
            ((r[i].hva | r[i].len_bytes | r[i].imgoff) & mask) != 0)
            return false;
        if (__builtin_add_overflow(r[i].imgoff, r[i].len_bytes, &image_end) ||
            __builtin_add_overflow(r[i].hva, r[i].len_bytes, &memory_end))
            return false;
        next += r[i].len_bytes >> h->page_shift;
        if (next > h->n_pages)
            return false;
    }
    return next == h->n_pages;
}

/* order_consistent() - by_hva goes through all regions, and none begins inside another */
static bool order_consistent(const struct block_header *h, const struct geom_region *r)
{
    hva_t memory_end = 0;

    for (unsigned i = 0; i < h->n_regions; i++) {
        const struct geom_region *next;

        if (r[i].by_hva >= h->n_regions)
            return false;
        next = &r[r[i].by_hva];
        if (next->hva < memory_end)
            return false;
        memory_end = next->hva + next->len_bytes;
    }
    return true;
}

/* open_version() - what all versions have in common; their headers differ in length only as far as this is concerned */
static int open_version(struct block *b, void *mem, size_t mem_bytes, uint32_t version,
                        size_t header_bytes)
{
    struct block_header *h = mem;
    const struct geom_region *regions;
    struct layout l;

    if (mem_bytes < sizeof(*h) || __atomic_load_n(&h->magic, __ATOMIC_ACQUIRE) != BLOCK_MAGIC)
        return BLOCK_E_FORMAT;
    if (h->version != version || h->header_bytes != header_bytes)
        return BLOCK_E_VERSION;
    /* A page costs more than a bit of file: the bound keeps the sums below from overflowing. */
    if ((h->page_shift != 12 && h->page_shift != 21) || h->n_regions == 0 ||
        h->n_regions > GEOM_MAX_REGIONS || h->n_pages == 0 || h->n_pages / 8 > mem_bytes)
        return BLOCK_E_FORMAT;
    l = lay_out(header_bytes, h->n_regions, h->n_pages);
    if (l.total_bytes != h->total_bytes || l.total_bytes > mem_bytes ||
        l.regions_off != h->regions_off || l.inbox_off != h->inbox_off ||
        l.pagetab_off != h->pagetab_off || l.waiting_off != h->waiting_off ||
        l.waiting_wp_off != h->waiting_wp_off)
        return BLOCK_E_FORMAT;
    regions = (const struct geom_region *)(const void *)((char *)mem + l.regions_off);
    if (!numbers_consistent(h, regions) || !order_consistent(h, regions))
        return BLOCK_E_FORMAT;
    if (!memchr(h->memory_path, '\0', sizeof(h->memory_path)))
        return BLOCK_E_FORMAT;
    view(b, h);
    return 0;
}

int block_open(struct block *b, void *mem, size_t mem_bytes)
{
    return open_version(b, mem, mem_bytes, BLOCK_VERSION, sizeof(struct block_header));
}

/* ---- the version before --------------------------------------------------------------------------------------- */

#define V2_N_COUNTERS 23u

/* struct v2_tail - what followed keeper_pid in version 2 */
struct v2_tail {
    struct hist fault_ns;
    uint64_t counters[V2_N_COUNTERS]; /* the first ones of core/counters.def */
};

#define V2_TAIL_OFF offsetof(struct block_header, may_resume)
static_assert(V2_TAIL_OFF == 1184, "version 2 of the state file");
static_assert(V2_TAIL_OFF + sizeof(struct v2_tail) == 6512, "version 2 of the state file");
static_assert(sizeof(struct counters) >= sizeof(((struct v2_tail *)NULL)->counters),
              "counters are appended, never taken away");

int block_open_before(struct block *b, void *mem, size_t mem_bytes)
{
    return open_version(b, mem, mem_bytes, 2, V2_TAIL_OFF + sizeof(struct v2_tail));
}

bool block_at_rest(const struct block *b)
{
    const uint8_t *inbox = b->inbox;

    for (unsigned i = 0; i < BLOCK_INBOX_BYTES; i += BLOCK_INBOX_MSG) {
        if (inbox[i] != 0)
            return false;
    }
    return bitset_next(&b->waiting, 0) == BITSET_NONE &&
           bitset_next(&b->waiting_wp, 0) == BITSET_NONE;
}

void block_upgrade(struct block *b, void *mem, const struct block *from)
{
    const struct block_header *h = from->header;
    const struct v2_tail *tail =
        (const struct v2_tail *)(const void *)((const char *)h + V2_TAIL_OFF);
    struct block_header *own;
    size_t facts = offsetof(struct block_header, pager_pid); /* where the layout ends */

    block_format(b, mem, &from->geom);
    own = b->header;
    memcpy((char *)own + facts, (const char *)h + facts, V2_TAIL_OFF - facts);
    own->may_resume = 1;
    own->fault_ns = tail->fault_ns;
    memcpy(&own->counters, tail->counters, sizeof(tail->counters));
    memcpy(b->inbox, from->inbox, BLOCK_INBOX_BYTES);
    memcpy(b->pages.words, from->pages.words, pagetab_bytes(h->n_pages));
    memcpy((char *)mem + own->waiting_off, (const char *)h + h->waiting_off,
           bitset_bytes(h->n_pages));
    memcpy((char *)mem + own->waiting_wp_off, (const char *)h + h->waiting_wp_off,
           bitset_bytes(h->n_pages));
}
