/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_GEOM_H
#define CORE_GEOM_H

/*
 * geom.h - where guest memory lies: in the VMM's address space, in the image, and in page numbers
 *
 * Pages are numbered 0..n_pages-1 through the regions in the order of their image offsets; gaps between regions
 * have no numbers. All regions have one page size. Regions do not overlap, neither in memory nor in the image.
 */

#include "base/base.h"

#define GEOM_MAX_REGIONS 8192u

/** struct geom_region - one contiguous piece of guest memory; part of the state file's format */
struct geom_region {
    hva_t hva;          /* first byte, multiple of the page size */
    uint64_t len_bytes; /* multiple of the page size, not 0 */
    imgoff_t imgoff;    /* where its bytes begin in the image; multiple of the page size */
    pgno_t first;       /* its first page number; computed by geom_init() */
    uint32_t
        by_hva; /* index of the i-th region in the order of addresses; computed by geom_init() */
    uint32_t pad;
};
static_assert(sizeof(struct geom_region) == 40, "part of the state file's format");

/** struct geom - a view on an array of regions that somebody else owns */
struct geom {
    struct geom_region *regions; /* (borrow), ordered by imgoff */
    unsigned n_regions;
    unsigned page_shift; /* 12 or 21 */
    pgno_t n_pages;
};

enum {
    _GEOM_E_SUCCESS,
    GEOM_E_UNALIGNED, /* *bad: a region whose address, length or offset is no multiple of the page size, or length 0 */
    GEOM_E_OVERLAP_MEMORY, /* *bad: a region that begins inside another one's addresses */
    GEOM_E_OVERLAP_IMAGE,  /* *bad: a region that begins inside another one's image range */
    GEOM_E_RANGE,          /* *bad: address or offset plus length overflows */
};

/**
 * geom_init() - check regions, order them, number their pages
 * @g:           set up on success
 * @regions:     (borrow for the life of @g) hva, len_bytes and imgoff filled in; reordered by imgoff
 * @n_regions:   1..GEOM_MAX_REGIONS
 * @page_shift:  12 or 21
 * @bad:         hva of the offending region on a positive return
 *
 * Return: 0 or GEOM_E_*.
 */
int geom_init(struct geom *g, struct geom_region *regions, unsigned n_regions, unsigned page_shift,
              hva_t *bad);

/** geom_view() - a geom over regions that geom_init() ordered before (from a state file) */
void geom_view(struct geom *g, struct geom_region *regions, unsigned n_regions,
               unsigned page_shift);

/** geom_find_hva() - the region that contains @addr, or NULL */
const struct geom_region *geom_find_hva(const struct geom *g, hva_t addr);

/** geom_find_page() - the region of page @p; @p < n_pages */
const struct geom_region *geom_find_page(const struct geom *g, pgno_t p);

/** geom_window() - the @n_pages (a power of two) around page @p, aligned in the image, cut at the region's ends */
void geom_window(const struct geom *g, pgno_t p, pgno_t n_pages, pgno_t *first, pgno_t *end);

/** geom_find_imgoff() - the region whose bytes in the image contain @off, or NULL */
const struct geom_region *geom_find_imgoff(const struct geom *g, imgoff_t off);

/** geom_first_after() - index, in the order of addresses, of the first region that ends above @addr; n_regions if none */
unsigned geom_first_after(const struct geom *g, hva_t addr);

/** geom_region_by_hva() - the @i-th region in the order of addresses */
const struct geom_region *geom_region_by_hva(const struct geom *g, unsigned i);

static inline uint64_t geom_page_bytes(const struct geom *g)
{
    return 1ull << g->page_shift;
}

static inline pgno_t geom_region_pages(const struct geom *g, const struct geom_region *r)
{
    return r->len_bytes >> g->page_shift;
}

static inline pgno_t geom_region_end(const struct geom *g, const struct geom_region *r)
{
    return r->first + geom_region_pages(g, r);
}

static inline pgno_t geom_page_of(const struct geom *g, const struct geom_region *r, hva_t addr)
{
    return r->first + ((addr - r->hva) >> g->page_shift);
}

static inline hva_t geom_hva_of(const struct geom *g, const struct geom_region *r, pgno_t p)
{
    return r->hva + ((p - r->first) << g->page_shift);
}

static inline imgoff_t geom_imgoff_of(const struct geom *g, const struct geom_region *r, pgno_t p)
{
    return r->imgoff + ((p - r->first) << g->page_shift);
}

#endif
