/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/map/picture_term.h"

#include <string.h>

#include "cli/map/size_text.h"

#define MARGIN       12u /* characters left of the picture: the offset within the region */
#define MAX_LINES    64u
#define MIN_LINES    16u
#define AROUND_LINES 14u /* caption and legend */

struct picture_limits term_limits(enum term_style style, unsigned columns, unsigned lines)
{
    struct picture_limits l = {.min_columns = 64};
    unsigned rows = MAX_LINES;

    if (columns == 0)
        columns = 80;
    while (l.min_columns > 16 && l.min_columns + MARGIN > columns)
        l.min_columns /= 2;
    while (l.min_columns < 128 && l.min_columns * 2 + MARGIN <= columns)
        l.min_columns *= 2;
    l.max_columns = l.min_columns;
    if (lines > 0 && lines < MAX_LINES + AROUND_LINES)
        rows = lines < MIN_LINES + AROUND_LINES ? MIN_LINES : lines - AROUND_LINES;
    l.max_rows = style == TERM_COLOUR ? 2 * rows : rows;
    return l;
}

static void set_colour(FILE *out, unsigned layer, uint32_t colour)
{
    (void)fprintf(out, "\x1b[%u;2;%u;%u;%um", layer, colour >> 16, (colour >> 8) & 0xff,
                  colour & 0xff);
}

/* One line of characters: @upper and, if it exists, the row below it. */
static void draw_double_row(FILE *out, const struct picture *p, unsigned upper, unsigned end_row)
{
    for (unsigned x = 0; x < p->plan.columns; x++) {
        const struct picture_cell *a = picture_at(p, upper, x);
        const struct picture_cell *b = upper + 1 < end_row ? picture_at(p, upper + 1, x) : NULL;

        if (!a->used) /* cells of a row are used from the left: no more to come */
            break;
        set_colour(out, 38, a->colour);
        if (b && b->used)
            set_colour(out, 48, b->colour);
        else
            (void)fputs("\x1b[49m", out);
        (void)fputs("\xe2\x96\x80", out); /* upper half block */
    }
    (void)fputs("\x1b[0m\n", out);
}

static void draw_row(FILE *out, const struct picture *p, unsigned row)
{
    for (unsigned x = 0; x < p->plan.columns && picture_at(p, row, x)->used; x++)
        (void)fputc(p->subject->kinds[picture_at(p, row, x)->kind].letter, out);
    (void)fputc('\n', out);
}

static void draw_band(FILE *out, const struct picture *p, unsigned band, enum term_style style)
{
    const struct picture_band *b = &p->plan.bands[band];
    unsigned step = style == TERM_COLOUR ? 2 : 1;
    uint64_t row_bytes = picture_bytes(p, p->plan.pages_per_cell * p->plan.columns);
    char text[160];

    p->subject->label(p->subject->ctx, band, text, sizeof(text));
    (void)fprintf(out, "%s\n", text);
    for (unsigned row = 0; row < b->n_rows; row += step) {
        if (row / step % 8 == 0)
            (void)fprintf(out, "%*s ", (int)MARGIN - 1, row ? size_text(row * row_bytes) : "0");
        else
            (void)fprintf(out, "%*s", (int)MARGIN, "");
        if (style == TERM_COLOUR)
            draw_double_row(out, p, b->first_row + row, b->first_row + b->n_rows);
        else
            draw_row(out, p, b->first_row + row);
    }
}

static void draw_legend(FILE *out, const struct picture *p, enum term_style style)
{
    int width = 0;

    for (unsigned k = 0; k < p->subject->n_kinds; k++)
        width = (int)max_u64((uint64_t)width, strlen(p->subject->kinds[k].name));
    for (unsigned k = 0; k < p->subject->n_kinds; k++) {
        const struct picture_kind *kind = &p->subject->kinds[k];
        char counts[80];

        caption_count(p, k, counts, sizeof(counts));
        if (style == TERM_COLOUR) {
            set_colour(out, 48, kind->colour);
            (void)fputs("  \x1b[0m", out);
        } else {
            (void)fprintf(out, " %c", kind->letter);
        }
        (void)fprintf(out, " %-*s %s  %s\n", width, kind->name, counts, kind->meaning);
    }
}

void term_draw(FILE *out, const struct picture *p, const struct caption *c, enum term_style style)
{
    if (c)
        (void)fprintf(out, "%s\n", c->title);
    for (unsigned i = 0; c && i < CAPTION_LINES; i++)
        (void)fprintf(out, "%s\n", c->lines[i]);
    for (unsigned i = 0; i < p->plan.n_bands; i++)
        draw_band(out, p, i, style);
    draw_legend(out, p, style);
}
