/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/map/picture.h"

#include <errno.h>
#include <stdlib.h>

/* How much of the others' colour is left where nearly all of a cell's pages are ground. */
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

void picture_plan(struct picture_plan *plan, const struct picture_subject *subject,
                  const struct picture_limits *limits)
{
    assert(is_power_of_two(limits->min_columns) && is_power_of_two(limits->max_columns));
    assert(limits->min_columns <= limits->max_columns && limits->max_rows >= PICTURE_MAX_BANDS);
    assert(subject->n_ranges > 0 && subject->n_ranges <= PICTURE_MAX_BANDS);
    *plan = (struct picture_plan){.pages_per_cell = 1, .n_bands = subject->n_ranges};
    for (unsigned i = 0; i < subject->n_ranges; i++) {
        plan->bands[i].first = subject->ranges[i].first;
        plan->bands[i].end = subject->ranges[i].end;
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

/* The kinds' colours in the proportions of @weights, which add up to 1. */
static uint32_t mix(const struct picture_subject *subject, const double weights[PICTURE_MAX_KINDS])
{
    uint32_t colour = 0;

    for (unsigned shift = 0; shift < 24; shift += 8) {
        double channel = 0;

        for (unsigned k = 0; k < subject->n_kinds; k++)
            channel += weights[k] * (double)((subject->kinds[k].colour >> shift) & 0xff);
        colour |= (uint32_t)(channel + 0.5) << shift;
    }
    return colour;
}

/* What a kind weighs among the @n pages that are not ground: a few weigh more than their share. */
static double weight(uint64_t count, uint64_t n)
{
    return (double)count / ((double)count + (double)n / 8);
}

uint32_t picture_colour(const struct picture_subject *subject,
                        const uint64_t counts[PICTURE_MAX_KINDS])
{
    double weights[PICTURE_MAX_KINDS] = {0};
    uint64_t n_others = 0;
    double sum = 0;
    double strength;

    for (unsigned k = 1; k < subject->n_kinds; k++)
        n_others += counts[k];
    if (n_others == 0)
        return subject->kinds[0].colour;
    for (unsigned k = 1; k < subject->n_kinds; k++)
        sum += weights[k] = weight(counts[k], n_others);
    strength = FAINTEST + (1 - FAINTEST) * (double)n_others / (double)(n_others + counts[0]);
    weights[0] = 1 - strength;
    for (unsigned k = 1; k < subject->n_kinds; k++)
        weights[k] *= strength / sum;
    return mix(subject, weights);
}

unsigned picture_kind_of(const struct picture_subject *subject,
                         const uint64_t counts[PICTURE_MAX_KINDS])
{
    unsigned best = 0;

    for (unsigned k = 1; k < subject->n_kinds; k++) {
        if (counts[k] > 0 && (best == 0 || counts[k] > counts[best]))
            best = k;
    }
    return best;
}

static void draw_band(struct picture *p, const struct picture_band *b)
{
    const struct picture_subject *subject = p->subject;
    struct picture_cell *cells = &p->cells[(size_t)b->first_row * p->plan.columns];

    for (uint64_t i = 0; i < b->n_cells; i++) {
        uint64_t first = b->first + i * p->plan.pages_per_cell;
        uint64_t end = min_u64(first + p->plan.pages_per_cell, b->end);
        uint64_t counts[PICTURE_MAX_KINDS] = {0};

        subject->count(subject->ctx, first, end, counts);
        for (unsigned k = 0; k < subject->n_kinds; k++)
            p->counts[k] += counts[k];
        cells[i] = (struct picture_cell){
            .colour = picture_colour(subject, counts),
            .kind = (uint8_t)picture_kind_of(subject, counts),
            .used = true,
        };
    }
}

int picture_new(struct picture **out, const struct picture_subject *subject,
                const struct picture_limits *limits)
{
    _cleanup_(picture_freep) struct picture *p = NULL;

    assert(subject->n_kinds > 0 && subject->n_kinds <= PICTURE_MAX_KINDS);
    p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->subject = subject;
    picture_plan(&p->plan, subject, limits);
    assert(p->plan.n_rows > 0);
    p->cells = calloc((size_t)p->plan.n_rows * p->plan.columns, sizeof(*p->cells));
    if (!p->cells)
        return -ENOMEM;
    for (unsigned i = 0; i < p->plan.n_bands; i++)
        draw_band(p, &p->plan.bands[i]);
    *out = TAKE(p);
    return 0;
}

uint64_t picture_n_pages(const struct picture *p)
{
    uint64_t n = 0;

    for (unsigned k = 0; k < p->subject->n_kinds; k++)
        n += p->counts[k];
    return n;
}

struct picture *picture_free(struct picture *p)
{
    if (p)
        free(p->cells);
    free(p);
    return NULL;
}
