/* SPDX-License-Identifier: Apache-2.0 */
#include "core/geom.h"

#include <stdlib.h>

/*
 * Two orders over one array: the array itself is in image order, which is page number order; by_hva of the i-th entry
 * names the region that comes i-th by address. Both are searched by bisection.
 */

static int compare_imgoff(const void *a, const void *b)
{
    const struct geom_region *ra = a;
    const struct geom_region *rb = b;

    return (ra->imgoff > rb->imgoff) - (ra->imgoff < rb->imgoff);
}

/* Heap sort of the address order: qsort's comparison has no access to the array that the indices point into. */
static void sift_down(struct geom_region *r, unsigned root, unsigned n)
{
    for (;;) {
        unsigned child = 2 * root + 1;
        uint32_t swap;

        if (child >= n)
            return;
        if (child + 1 < n && r[r[child].by_hva].hva < r[r[child + 1].by_hva].hva)
            child++;
        if (r[r[root].by_hva].hva >= r[r[child].by_hva].hva)
            return;
        swap = r[root].by_hva;
        r[root].by_hva = r[child].by_hva;
        r[child].by_hva = swap;
        root = child;
    }
}

static void order_by_hva(struct geom_region *r, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        r[i].by_hva = i;
    for (unsigned i = n / 2; i-- > 0;)
        sift_down(r, i, n);
    for (unsigned end = n; end-- > 1;) {
        uint32_t top = r[0].by_hva;

        r[0].by_hva = r[end].by_hva;
        r[end].by_hva = top;
        sift_down(r, 0, end);
    }
}

static int check_regions(const struct geom_region *r, unsigned n, uint64_t page_bytes, hva_t *bad)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t end;

        *bad = r[i].hva;
        if (r[i].len_bytes == 0 || ((r[i].hva | r[i].len_bytes | r[i].imgoff) & (page_bytes - 1)))
            return GEOM_E_UNALIGNED;
        if (__builtin_add_overflow(r[i].hva, r[i].len_bytes, &end) ||
            __builtin_add_overflow(r[i].imgoff, r[i].len_bytes, &end))
            return GEOM_E_RANGE;
    }
    return 0;
}

static int check_overlaps(const struct geom_region *r, unsigned n, hva_t *bad)
{
    for (unsigned i = 1; i < n; i++) {
        const struct geom_region *low = &r[r[i - 1].by_hva];
        const struct geom_region *high = &r[r[i].by_hva];

        *bad = high->hva;
        if (high->hva - low->hva < low->len_bytes)
            return GEOM_E_OVERLAP_MEMORY;
        *bad = r[i].hva;
        if (r[i].imgoff - r[i - 1].imgoff < r[i - 1].len_bytes)
            return GEOM_E_OVERLAP_IMAGE;
    }
    return 0;
}

int geom_init(struct geom *g, struct geom_region *regions, unsigned n_regions, unsigned page_shift,
              hva_t *bad)
{
    pgno_t n_pages = 0;
    int r;

    assert(n_regions > 0 && n_regions <= GEOM_MAX_REGIONS);
    assert(page_shift == 12 || page_shift == 21);
    r = check_regions(regions, n_regions, 1ull << page_shift, bad);
    if (r != 0)
        return r;
    qsort(regions, n_regions, sizeof(*regions), compare_imgoff);
    order_by_hva(regions, n_regions);
    r = check_overlaps(regions, n_regions, bad);
    if (r != 0)
        return r;
    for (unsigned i = 0; i < n_regions; i++) {
        regions[i].first = n_pages;
        regions[i].pad = 0;
        n_pages += regions[i].len_bytes >> page_shift;
    }
    geom_view(g, regions, n_regions, page_shift);
    return 0;
}

void geom_view(struct geom *g, struct geom_region *regions, unsigned n_regions, unsigned page_shift)
{
    const struct geom_region *last = &regions[n_regions - 1];

    *g = (struct geom){
        .regions = regions,
        .n_regions = n_regions,
        .page_shift = page_shift,
        .n_pages = last->first + (last->len_bytes >> page_shift),
    };
}

const struct geom_region *geom_region_by_hva(const struct geom *g, unsigned i)
{
    assert(i < g->n_regions);
    return &g->regions[g->regions[i].by_hva];
}

unsigned geom_first_after(const struct geom *g, hva_t addr)
{
    unsigned low = 0;
    unsigned high = g->n_regions; /* the answer is in [low, high] */

    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        const struct geom_region *r = geom_region_by_hva(g, middle);

        if (r->hva + r->len_bytes > addr)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

const struct geom_region *geom_find_hva(const struct geom *g, hva_t addr)
{
    unsigned i = geom_first_after(g, addr);
    const struct geom_region *r;

    if (i == g->n_regions)
        return NULL;
    r = geom_region_by_hva(g, i);
    return addr >= r->hva ? r : NULL;
}

const struct geom_region *geom_find_page(const struct geom *g, pgno_t p)
{
    unsigned low = 0;
    unsigned high = g->n_regions;

    assert(p < g->n_pages);
    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;

        if (g->regions[middle].first <= p)
            low = middle;
        else
            high = middle;
    }
    return &g->regions[low];
}

const struct geom_region *geom_find_imgoff(const struct geom *g, imgoff_t off)
{
    unsigned low = 0;
    unsigned high = g->n_regions;

    while (high - low > 1) {
        unsigned middle = low + (high - low) / 2;

        if (g->regions[middle].imgoff <= off)
            low = middle;
        else
            high = middle;
    }
    return off >= g->regions[low].imgoff && off - g->regions[low].imgoff < g->regions[low].len_bytes
               ? &g->regions[low]
               : NULL;
}

void geom_window(const struct geom *g, pgno_t p, pgno_t n_pages, pgno_t *first, pgno_t *end)
{
    const struct geom_region *r = geom_find_page(g, p);
    pgno_t into = (geom_imgoff_of(g, r, p) >> g->page_shift) & (n_pages - 1);

    *first = p - r->first > into ? p - into : r->first;
    *end = min_u64(p - into + n_pages, geom_region_end(g, r));
}
