/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_MAP_PICTURE_H
#define CLI_MAP_PICTURE_H

/*
 * picture.h - memory as coloured cells: how many pages share a cell, where each cell lies, what
 * colour it has
 *
 * What is drawn is a subject: pages, each of one of a few kinds, in bands. A picture is a stack of
 * these bands; within a band cells run in rows from left to right, addresses going up. A cell is one
 * page, or the same power of two of pages everywhere in the picture. This part knows nothing of
 * pixels and characters, which picture_image.h and picture_term.h do, and nothing of what the pages
 * are: map/map_subject.h draws a guest that is served, image/image_subject.h an image.
 *
 * A cell of several pages shows a mixture, made so that a single page cannot vanish: pages of the
 * first kind, the ground, only dim the colour of the others, and only so far; among the others a
 * kind of which there are few weighs more than its share.
 */

#include "base/base.h"

#define PICTURE_MAX_BANDS 16u
#define PICTURE_MAX_KINDS 8u

/** struct picture_kind - what a page can be */
struct picture_kind {
    uint32_t colour; /* 0xrrggbb */
    char letter;     /* where there are no colours */
    const char *name;
    const char *meaning;
};

/** struct picture_range - pages that make a band */
struct picture_range {
    uint64_t first;
    uint64_t end; /* exclusive */
};

/** struct picture_subject - what is drawn */
struct picture_subject {
    const struct picture_kind *kinds; /* the first one is the ground */
    unsigned n_kinds;                 /* at most PICTURE_MAX_KINDS */
    unsigned page_shift;
    unsigned n_ranges; /* at most PICTURE_MAX_BANDS */
    struct picture_range ranges[PICTURE_MAX_BANDS];
    const void *ctx;
    /* sets how many of the pages from @first to @end are of each kind; called with addresses going up */
    void (*count)(const void *ctx, uint64_t first, uint64_t end,
                  uint64_t counts[PICTURE_MAX_KINDS]);
    /* what stands above the band @range; NUL terminated, cut if it does not fit */
    void (*label)(const void *ctx, unsigned range, char *buf, size_t len);
};

/** struct picture_limits - how large a picture may be, in cells */
struct picture_limits {
    unsigned min_columns; /* power of two */
    unsigned max_columns; /* power of two, >= min_columns */
    unsigned max_rows;    /* >= PICTURE_MAX_BANDS */
};

/** struct picture_band - where a range of the subject is */
struct picture_band {
    uint64_t first;
    uint64_t end; /* exclusive */
    uint64_t n_cells;
    unsigned first_row;
    unsigned n_rows;
};

/** struct picture_plan - where every page goes */
struct picture_plan {
    uint64_t pages_per_cell; /* power of two */
    unsigned columns;        /* cells a row; a power of two */
    unsigned n_rows;         /* of all bands */
    unsigned n_bands;
    struct picture_band bands[PICTURE_MAX_BANDS];
};

/** struct picture_cell - what one cell shows */
struct picture_cell {
    uint32_t colour; /* 0xrrggbb */
    uint8_t kind;    /* the most frequent one, the ground only if there is no other */
    bool used;       /* false: past the end of its band */
};

/** struct picture - a subject as cells */
struct picture {
    const struct picture_subject *subject; /* borrowed */
    struct picture_plan plan;
    uint64_t counts[PICTURE_MAX_KINDS]; /* pages of each kind, as many as the cells show */
    struct picture_cell *cells;         /* plan.n_rows x plan.columns */
};

/**
 * picture_plan() - choose the smallest group of pages that fits
 * @plan:    set up
 * @subject: (borrow until return)
 * @limits:  see struct picture_limits
 *
 * The shape is as near to a square as powers of two and @limits allow.
 */
void picture_plan(struct picture_plan *plan, const struct picture_subject *subject,
                  const struct picture_limits *limits);

/** picture_colour() - the colour of a cell with @counts pages of each kind, 0xrrggbb; not all of them 0 */
uint32_t picture_colour(const struct picture_subject *subject,
                        const uint64_t counts[PICTURE_MAX_KINDS]);

/** picture_kind_of() - the most frequent kind of @counts, the ground only if there is no other */
unsigned picture_kind_of(const struct picture_subject *subject,
                         const uint64_t counts[PICTURE_MAX_KINDS]);

/**
 * picture_new() - draw
 * @out:     (give)
 * @subject: (borrow until picture_free())
 * @limits:  see struct picture_limits
 *
 * Return: 0 or -ENOMEM.
 */
int picture_new(struct picture **out, const struct picture_subject *subject,
                const struct picture_limits *limits);

/** picture_free() - Return: NULL */
struct picture *picture_free(struct picture *p);

static inline const struct picture_cell *picture_at(const struct picture *p, unsigned row,
                                                    unsigned column)
{
    assert(row < p->plan.n_rows && column < p->plan.columns);
    return &p->cells[(size_t)row * p->plan.columns + column];
}

/** picture_bytes() - of so many pages */
static inline uint64_t picture_bytes(const struct picture *p, uint64_t n_pages)
{
    return n_pages << p->subject->page_shift;
}

/** picture_n_pages() - all that the cells show */
uint64_t picture_n_pages(const struct picture *p);

DEFINE_CLEANUP(struct picture *, picture_free);

#endif
