/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_MAP_PICTURE_H
#define CLI_MAP_PICTURE_H

/*
 * picture.h - guest memory as coloured cells: how many pages share a cell, where each cell lies,
 * what colour it has
 *
 * A picture is a stack of bands, one a region; within a band cells run in rows from left to right,
 * addresses going up. A cell is one page, or the same power of two of pages everywhere in the
 * picture. This part knows nothing of pixels and characters; picture_image.h and picture_term.h do.
 *
 * A cell of several pages shows a mixture, made so that a single page cannot vanish: pages that are
 * ABSENT only dim the colour of the others, and only so far; among the others a state of which there
 * are few weighs more than its share.
 */

#include "base/base.h"
#include "core/block.h"

/* More regions than this share one band, laid end to end. */
#define PICTURE_MAX_BANDS 16u

/** struct picture_limits - how large a picture may be, in cells */
struct picture_limits {
    unsigned min_columns; /* power of two */
    unsigned max_columns; /* power of two, >= min_columns */
    unsigned max_rows;    /* >= PICTURE_MAX_BANDS */
};

/** struct picture_band - one region, or all of them end to end */
struct picture_band {
    pgno_t first;
    pgno_t end; /* exclusive */
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
    uint8_t state;   /* enum page_state: the most frequent one, ABSENT only if there is no other */
    bool used;       /* false: past the end of its band */
};

/** struct picture - a page table as cells */
struct picture {
    struct picture_plan plan;
    uint64_t counts[N_PAGE_STATES]; /* pages in each state, as many as the cells show */
    struct picture_cell *cells;     /* plan.n_rows x plan.columns */
};

/**
 * picture_plan() - choose the smallest group of pages that fits
 * @plan:   set up
 * @geom:   (borrow until return)
 * @limits: see struct picture_limits
 *
 * The shape is as near to a square as powers of two and @limits allow.
 */
void picture_plan(struct picture_plan *plan, const struct geom *geom,
                  const struct picture_limits *limits);

/**
 * picture_colour() - the colour of a cell that holds @counts pages of each state, 0xrrggbb; not all
 * of them 0
 */
uint32_t picture_colour(const uint64_t counts[N_PAGE_STATES]);

/** picture_state_colour() - the colour of a state by itself, 0xrrggbb */
uint32_t picture_state_colour(enum page_state state);

/** picture_state() - the most frequent state of @counts, ABSENT only if there is no other */
enum page_state picture_state(const uint64_t counts[N_PAGE_STATES]);

/**
 * picture_new() - draw a page table
 * @out:    (give)
 * @block:  (borrow until return) the pages and their regions
 * @limits: see struct picture_limits
 *
 * Return: 0 or -ENOMEM.
 */
int picture_new(struct picture **out, const struct block *block,
                const struct picture_limits *limits);

/** picture_free() - Return: NULL */
struct picture *picture_free(struct picture *p);

static inline const struct picture_cell *picture_at(const struct picture *p, unsigned row,
                                                    unsigned column)
{
    assert(row < p->plan.n_rows && column < p->plan.columns);
    return &p->cells[(size_t)row * p->plan.columns + column];
}

/**
 * picture_band_text() - "region 2 of 3: 0x7f0000000000, 3 GiB, from 1 GiB of the snapshot on"
 * @buf: NUL terminated; cut if it is too small
 * @len: size of @buf, bytes
 */
void picture_band_text(const struct picture *p, const struct geom *geom, unsigned band, char *buf,
                       size_t len);

DEFINE_CLEANUP(struct picture *, picture_free);

#endif
