/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/map/picture.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/map/size_text.h"

/* How much of the others' colour is left where nearly all of a cell's pages are absent. */
#define FAINTEST 0.5

static uint64_t ceil_div(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

/* The bands' cells and rows for plan->pages_per_cell and plan->columns. */
static void stack_bands(struct picture_plan *plan)
{
    plan->n_rows = 0;
    for (unsigned i = 0; i < plan->n_bands; i++) {
        struct picture_band *b = &plan->bands[i];
        uint64_t n_rows;

        b->n_cells = ceil_div(b->end - b->first, plan->pages_per_cell);
        n_rows = ceil_div(b->n_cells, plan->columns);
        b->first_row = plan->n_rows;
        b->n_rows = n_rows > UINT32_MAX / 2 ? UINT32_MAX / 2 : (unsigned)n_rows;
        plan->n_rows = (unsigned)min_u64((uint64_t)plan->n_rows + b->n_rows, UINT32_MAX / 2);
    }
}

static uint64_t n_cells(const struct picture_plan *plan)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < plan->n_bands; i++)
        n += ceil_div(plan->bands[i].end - plan->bands[i].first, plan->pages_per_cell);
    return n;
}

void picture_plan(struct picture_plan *plan, const struct geom *geom,
                  const struct picture_limits *limits)
{
    assert(is_power_of_two(limits->min_columns) && is_power_of_two(limits->max_columns));
    assert(limits->min_columns <= limits->max_columns && limits->max_rows >= PICTURE_MAX_BANDS);
    *plan = (struct picture_plan){.pages_per_cell = 1};
    if (geom->n_regions > PICTURE_MAX_BANDS) {
        plan->n_bands = 1;
        plan->bands[0].end = geom->n_pages;
    } else {
        plan->n_bands = geom->n_regions;
        for (unsigned i = 0; i < geom->n_regions; i++) {
            plan->bands[i].first = geom->regions[i].first;
            plan->bands[i].end = geom_region_end(geom, &geom->regions[i]);
        }
    }
    for (;; plan->pages_per_cell *= 2) {
        uint64_t cells = n_cells(plan);

        plan->columns = limits->min_columns;
        while (plan->columns < limits->max_columns &&
               (uint64_t)plan->columns * plan->columns < cells)
            plan->columns *= 2;
        stack_bands(plan);
        if (plan->n_rows <= limits->max_rows)
            return;
    }
}

uint32_t picture_state_colour(enum page_state state)
{
    assert(state < N_PAGE_STATES);
    return (uint32_t)strtoul(page_state_colours[state] + 1, NULL, 16);
}

/* struct palette - the states' colours as numbers */
struct palette {
    uint32_t rgb[N_PAGE_STATES];
};

static struct palette palette_make(void)
{
    struct palette p;

    for (unsigned s = 0; s < N_PAGE_STATES; s++)
        p.rgb[s] = picture_state_colour((enum page_state)s);
    return p;
}

/* The states' colours in the proportions of @weights, which add up to 1. */
static uint32_t mix(const struct palette *palette, const double weights[N_PAGE_STATES])
{
    uint32_t colour = 0;

    for (unsigned shift = 0; shift < 24; shift += 8) {
        double channel = 0;

        for (unsigned s = 0; s < N_PAGE_STATES; s++)
            channel += weights[s] * (double)((palette->rgb[s] >> shift) & 0xff);
        colour |= (uint32_t)(channel + 0.5) << shift;
    }
    return colour;
}

/* What a state weighs among the @n pages that are not absent: a few weigh more than their share. */
static double weight(uint64_t count, uint64_t n)
{
    return (double)count / ((double)count + (double)n / 8);
}

static uint32_t cell_colour(const struct palette *palette, const uint64_t counts[N_PAGE_STATES])
{
    double weights[N_PAGE_STATES] = {0};
    uint64_t n_others = 0;
    double sum = 0;
    double strength;

    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        if (s != PAGE_ABSENT)
            n_others += counts[s];
    }
    if (n_others == 0)
        return palette->rgb[PAGE_ABSENT];
    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        if (s != PAGE_ABSENT)
            sum += weights[s] = weight(counts[s], n_others);
    }
    strength =
        FAINTEST + (1 - FAINTEST) * (double)n_others / (double)(n_others + counts[PAGE_ABSENT]);
    for (unsigned s = 0; s < N_PAGE_STATES; s++)
        weights[s] = s == PAGE_ABSENT ? 1 - strength : strength * weights[s] / sum;
    return mix(palette, weights);
}

uint32_t picture_colour(const uint64_t counts[N_PAGE_STATES])
{
    struct palette palette = palette_make();

    return cell_colour(&palette, counts);
}

enum page_state picture_state(const uint64_t counts[N_PAGE_STATES])
{
    enum page_state best = PAGE_ABSENT;

    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        if (s != PAGE_ABSENT && counts[s] > 0 && (best == PAGE_ABSENT || counts[s] > counts[best]))
            best = (enum page_state)s;
    }
    return best;
}

static void draw_band(struct picture *p, const struct palette *palette, const struct pagetab *pages,
                      const struct picture_band *b)
{
    struct picture_cell *cells = &p->cells[(size_t)b->first_row * p->plan.columns];

    for (uint64_t i = 0; i < b->n_cells; i++) {
        pgno_t first = b->first + i * p->plan.pages_per_cell;
        pgno_t end = min_u64(first + p->plan.pages_per_cell, b->end);
        uint64_t counts[N_PAGE_STATES];

        pagetab_count(pages, first, end, counts);
        for (unsigned s = 0; s < N_PAGE_STATES; s++)
            p->counts[s] += counts[s];
        cells[i] = (struct picture_cell){
            .colour = cell_colour(palette, counts),
            .state = (uint8_t)picture_state(counts),
            .used = true,
        };
    }
}

int picture_new(struct picture **out, const struct block *block,
                const struct picture_limits *limits)
{
    _cleanup_(picture_freep) struct picture *p = NULL;
    struct palette palette;

    p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    picture_plan(&p->plan, &block->geom, limits);
    assert(p->plan.n_rows > 0);
    p->cells = calloc((size_t)p->plan.n_rows * p->plan.columns, sizeof(*p->cells));
    if (!p->cells)
        return -ENOMEM;
    palette = palette_make();
    for (unsigned i = 0; i < p->plan.n_bands; i++)
        draw_band(p, &palette, &block->pages, &p->plan.bands[i]);
    *out = TAKE(p);
    return 0;
}

struct picture *picture_free(struct picture *p)
{
    if (p)
        free(p->cells);
    free(p);
    return NULL;
}

void picture_band_text(const struct picture *p, const struct geom *geom, unsigned band, char *buf,
                       size_t len)
{
    const struct picture_band *b = &p->plan.bands[band];
    const struct geom_region *r;

    if (p->plan.n_bands < geom->n_regions) {
        (void)snprintf(buf, len, "%u regions end to end, %s", geom->n_regions,
                       size_text(geom->n_pages << geom->page_shift));
        return;
    }
    r = geom_find_page(geom, b->first);
    (void)snprintf(buf, len, "region %u of %u: 0x%" PRIx64 ", %s, from byte %s of the snapshot on",
                   band + 1, geom->n_regions, r->hva, size_text(r->len_bytes),
                   count_text(r->imgoff));
}
