/* SPDX-License-Identifier: Apache-2.0 */
/*
 * picture_image.c - a picture as a PNG or SVG file
 *
 *     title
 *     caption lines
 *     band label
 *     0 bytes |################|
 *     64 MiB  |################|      bands: offsets on the left, cells on the right
 *     legend: colour, kind, count, share, size, meaning
 *
 * All cells are one image that is put into the page as it is, pixel for pixel: a picture of 64 GiB
 * is as quick to write as one of 64 MiB, and an SVG stays small. (An enlargement would be smoothed
 * by some readers of the SVG.) The page's height comes out of the drawing order, so the same code
 * runs twice: first onto a surface that is thrown away, to learn the size, then for the file.
 */
#include "cli/map/picture_image.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/map/cairo_load.h"
#include "cli/map/size_text.h"

#define MAX_CELLS   512u /* columns, and rows */
#define GRID_PX     1024u /* width and height of all cells, at most, if they are larger than a pixel */
#define MAX_CELL_PX 16u
#define GAP_CELL_PX 8u /* from this size on a line separates the cells */

#define PAD         24.0
#define MARGIN      80.0 /* left of the cells, for the offsets */
#define TEXT_PX     13.0
#define TITLE_PX    20.0
#define LINE_PX     19.0
#define TICK_PX     64.0 /* at least so far apart are two offsets */
#define SWATCH_PX   13.0
#define FONT        "sans-serif"

#define INK         0x22262b
#define FAINT       0x6b737c
#define PAPER       0xffffff
#define FRAME       0x9aa2ab

/* struct drawing - one pass over the picture */
struct drawing {
    const struct cairo_api *c;
    const struct picture *p;
    const struct caption *caption;
    cairo_surface_t *cells; /* all of them, enlarged; NULL in the measuring pass */
    cairo_t *cr;
    unsigned cell_px; /* edge of a cell */
    double y;         /* where the next thing goes */
    double right;     /* how far to the right anything reached */
};

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text);
    size_t m = strlen(end);

    return n > m && strcasecmp(text + n - m, end) == 0;
}

bool image_kind_of(const char *path, enum image_kind *kind)
{
    *kind = ends_with(path, ".svg") ? IMAGE_SVG : IMAGE_PNG;
    return *kind == IMAGE_SVG || ends_with(path, ".png");
}

struct picture_limits image_limits(void)
{
    return (struct picture_limits){
        .min_columns = 16,
        .max_columns = MAX_CELLS,
        .max_rows = MAX_CELLS,
    };
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static void set_colour(struct drawing *d, uint32_t colour)
{
    d->c->set_source_rgb(d->cr, (double)(colour >> 16) / 255, (double)((colour >> 8) & 0xff) / 255,
                         (double)(colour & 0xff) / 255);
}

/* Text whose left (or right, if @align is 1) end is at @x; @y is the base line. */
static void text(struct drawing *d, double x, double y, double align, uint32_t colour,
                 const char *what)
{
    cairo_text_extents_t e;

    d->c->text_extents(d->cr, what, &e);
    x -= align * e.x_advance;
    set_colour(d, colour);
    d->c->move_to(d->cr, x, y);
    d->c->show_text(d->cr, what);
    d->right = larger(d->right, x + e.x_advance);
}

static void font(struct drawing *d, double size_px, bool bold)
{
    d->c->select_font_face(d->cr, FONT, CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    d->c->set_font_size(d->cr, size_px);
}

static void draw_caption(struct drawing *d)
{
    d->y = PAD + TITLE_PX;
    font(d, TITLE_PX, true);
    text(d, PAD, d->y, 0, INK, d->caption->title);
    d->y += 8;
    font(d, TEXT_PX, false);
    for (unsigned i = 0; i < CAPTION_LINES; i++) {
        d->y += LINE_PX;
        text(d, PAD, d->y, 0, INK, d->caption->lines[i]);
    }
    d->y += LINE_PX;
}

/* The band's rows out of the image of all cells. */
static void draw_cells(struct drawing *d, const struct picture_band *b, double x, double y,
                       double width, double height)
{
    d->c->set_source_surface(d->cr, d->cells, x, y - (double)b->first_row * d->cell_px);
    d->c->rectangle(d->cr, x, y, width, height);
    d->c->fill(d->cr);
}

/* White lines between cells that are large enough for them. */
static void draw_gaps(struct drawing *d, const struct picture_band *b, double x, double y,
                      double width, double height)
{
    const struct cairo_api *c = d->c;

    set_colour(d, PAPER);
    c->set_line_width(d->cr, 1);
    for (unsigned i = 1; i < d->p->plan.columns; i++) {
        double at = x + (double)(i * d->cell_px) - 0.5;

        c->move_to(d->cr, at, y);
        c->line_to(d->cr, at, y + height);
    }
    for (unsigned i = 1; i < b->n_rows; i++) {
        double at = y + (double)(i * d->cell_px) - 0.5;

        c->move_to(d->cr, x, at);
        c->line_to(d->cr, x + width, at);
    }
    c->stroke(d->cr);
}

static void draw_offsets(struct drawing *d, const struct picture_band *b, double y)
{
    uint64_t row_bytes = picture_bytes(d->p, d->p->plan.pages_per_cell * d->p->plan.columns);
    unsigned step = 1;

    while (step * d->cell_px < TICK_PX)
        step *= 2;
    for (unsigned row = 0; row < b->n_rows; row += step) {
        double at = y + (double)row * d->cell_px;
        const char *label = row == 0 ? "0" : size_text(row * row_bytes);

        text(d, PAD + MARGIN - 10, at + TEXT_PX * 0.75, 1, FAINT, label);
        d->c->move_to(d->cr, PAD + MARGIN - 6, at + 0.5);
        d->c->line_to(d->cr, PAD + MARGIN - 1, at + 0.5);
        set_colour(d, FRAME);
        d->c->set_line_width(d->cr, 1);
        d->c->stroke(d->cr);
    }
}

static void draw_band(struct drawing *d, unsigned band)
{
    const struct picture_band *b = &d->p->plan.bands[band];
    double x = PAD + MARGIN;
    double width = (double)(min_u64(b->n_cells, d->p->plan.columns) * d->cell_px);
    double height = (double)b->n_rows * d->cell_px;
    char label[160];

    d->p->subject->label(d->p->subject->ctx, band, label, sizeof(label));
    font(d, TEXT_PX, true);
    d->y += LINE_PX;
    text(d, x, d->y, 0, INK, label);
    d->y += 8;
    font(d, TEXT_PX, false);
    draw_offsets(d, b, d->y);
    if (d->cells) {
        draw_cells(d, b, x, d->y, width, height);
        if (d->cell_px >= GAP_CELL_PX)
            draw_gaps(d, b, x, d->y, width, height);
    }
    d->right = larger(d->right, x + width);
    /* A band may be lower than its label. */
    d->y += larger(height, TEXT_PX) + 8;
}

/* A count in columns that line up: each word of it ends at its column. */
static void draw_count(struct drawing *d, unsigned kind, double x)
{
    char percent[32];
    uint64_t n = d->p->counts[kind];

    (void)snprintf(percent, sizeof(percent), "%.2f %%",
                   100.0 * (double)n / (double)picture_n_pages(d->p));
    text(d, x + 90, d->y, 1, INK, count_text(n));
    text(d, x + 165, d->y, 1, INK, percent);
    text(d, x + 260, d->y, 1, INK, size_text(picture_bytes(d->p, n)));
}

static void draw_legend(struct drawing *d)
{
    const struct cairo_api *c = d->c;
    const double x = PAD + MARGIN;

    d->y += 12;
    for (unsigned k = 0; k < d->p->subject->n_kinds; k++) {
        const struct picture_kind *kind = &d->p->subject->kinds[k];

        d->y += LINE_PX;
        set_colour(d, kind->colour);
        c->rectangle(d->cr, x, d->y - SWATCH_PX + 2, SWATCH_PX, SWATCH_PX);
        c->fill(d->cr);
        font(d, TEXT_PX, true);
        text(d, x + SWATCH_PX + 8, d->y, 0, INK, kind->name);
        font(d, TEXT_PX, false);
        draw_count(d, k, x + 90);
        text(d, x + 370, d->y, 0, FAINT, kind->meaning);
    }
    d->y += PAD;
}

static void draw_all(struct drawing *d)
{
    set_colour(d, PAPER);
    d->c->paint(d->cr);
    draw_caption(d);
    for (unsigned i = 0; i < d->p->plan.n_bands; i++)
        draw_band(d, i);
    draw_legend(d);
}

/* One row of cells, enlarged sideways; those that belong to no page have the paper's colour. */
static void fill_line(const struct picture *p, unsigned row, unsigned cell_px, uint32_t *line)
{
    for (unsigned x = 0; x < p->plan.columns; x++) {
        const struct picture_cell *cell = picture_at(p, row, x);

        for (unsigned i = 0; i < cell_px; i++)
            *line++ = cell->used ? cell->colour : PAPER;
    }
}

static cairo_surface_t *cells_surface(const struct cairo_api *c, const struct picture *p,
                                      unsigned cell_px)
{
    cairo_surface_t *s = c->image_surface_create(
        CAIRO_FORMAT_RGB24, (int)(p->plan.columns * cell_px), (int)(p->plan.n_rows * cell_px));
    unsigned char *data = c->image_surface_get_data(s);
    size_t stride = (size_t)c->image_surface_get_stride(s);

    for (unsigned y = 0; data && y < p->plan.n_rows * cell_px; y++)
        fill_line(p, y / cell_px, cell_px, (uint32_t *)(void *)(data + y * stride));
    c->surface_mark_dirty(s);
    return s;
}

static cairo_status_t to_stream(void *closure, const unsigned char *data, unsigned length)
{
    FILE *f = closure;

    return fwrite(data, 1, length, f) == length ? CAIRO_STATUS_SUCCESS : CAIRO_STATUS_WRITE_ERROR;
}

/* One pass onto @surface, which is finished afterwards. */
static cairo_status_t draw_on(struct drawing *d, cairo_surface_t *surface)
{
    cairo_status_t status;

    d->cr = d->c->create(surface);
    d->right = 0;
    draw_all(d);
    status = d->c->status(d->cr);
    d->c->destroy(d->cr);
    d->cr = NULL;
    return status;
}

static cairo_status_t measure(struct drawing *d, double *width, double *height)
{
    cairo_surface_t *s = d->c->image_surface_create(CAIRO_FORMAT_RGB24, 8, 8);
    cairo_status_t status = draw_on(d, s);

    d->c->surface_destroy(s);
    *width = (int)(d->right + PAD) + 1;
    *height = (int)d->y + 1;
    return status;
}

static cairo_status_t draw_file(struct drawing *d, enum image_kind kind, FILE *f)
{
    const struct cairo_api *c = d->c;
    cairo_surface_t *surface;
    cairo_status_t status;
    double width;
    double height;

    status = measure(d, &width, &height);
    if (status != CAIRO_STATUS_SUCCESS)
        return status;
    d->cells = cells_surface(c, d->p, d->cell_px);
    if (kind == IMAGE_SVG) {
        surface = c->svg_surface_create_for_stream(to_stream, f, width, height);
        c->svg_surface_set_document_unit(surface, CAIRO_SVG_UNIT_PX);
    } else {
        surface = c->image_surface_create(CAIRO_FORMAT_RGB24, (int)width, (int)height);
    }
    status = draw_on(d, surface);
    if (status == CAIRO_STATUS_SUCCESS && kind == IMAGE_PNG)
        status = c->surface_write_to_png_stream(surface, to_stream, f);
    c->surface_finish(surface);
    if (status == CAIRO_STATUS_SUCCESS)
        status = c->surface_status(surface);
    c->surface_destroy(surface);
    c->surface_destroy(d->cells);
    d->cells = NULL;
    return status;
}

static unsigned choose_cell_px(const struct picture_plan *plan)
{
    uint64_t largest = max_u64(plan->columns, plan->n_rows);

    return (unsigned)min_u64(MAX_CELL_PX, max_u64(1, GRID_PX / largest));
}

int image_write(const char *path, enum image_kind kind, const struct picture *p,
                const struct caption *caption)
{
    struct cairo_api api;
    struct drawing d = {.c = &api, .p = p, .caption = caption};
    cairo_status_t status;
    char *bytes = NULL;
    size_t n_bytes = 0;
    FILE *f;
    int r;

    r = file_may_replace(path);
    if (r < 0)
        return r;
    r = cairo_load(&api);
    if (r < 0)
        return r;
    f = open_memstream(&bytes, &n_bytes);
    if (!f)
        return err_origin_errno(-errno, "no memory for the picture");
    d.cell_px = choose_cell_px(&p->plan);
    status = draw_file(&d, kind, f);
    if (fclose(f) != 0 && status == CAIRO_STATUS_SUCCESS)
        status = CAIRO_STATUS_NO_MEMORY;
    if (status == CAIRO_STATUS_SUCCESS)
        r = file_replace(path, bytes, n_bytes);
    else
        r = err_origin(-EIO, "drawing failed: %s", api.status_to_string(status));
    free(bytes);
    return r;
}
