/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_MAP_CAIRO_LOAD_H
#define CLI_MAP_CAIRO_LOAD_H

/*
 * cairo_load.h - the drawing library, loaded when a picture is written and not before
 *
 * `thaw` is also the pager. Linked in the ordinary way, libcairo brings twenty libraries: 2.4 MiB
 * more resident memory and 1.3 ms more before main() for each VM that is served. So its functions
 * are looked up when they are wanted. Types and prototypes are those of its own header; a host
 * without the library loses pictures in files, nothing else.
 */

#include <cairo-svg.h>
#include <cairo.h>

#include "base/base.h"

/* Every function that is used, without its cairo_. */
#define CAIRO_FUNCTIONS(F)           \
    F(create)                        \
    F(destroy)                       \
    F(fill)                          \
    F(image_surface_create)          \
    F(image_surface_get_data)        \
    F(image_surface_get_stride)      \
    F(line_to)                       \
    F(move_to)                       \
    F(paint)                         \
    F(rectangle)                     \
    F(select_font_face)              \
    F(set_font_size)                 \
    F(set_line_width)                \
    F(set_source_rgb)                \
    F(set_source_surface)            \
    F(show_text)                     \
    F(status)                        \
    F(status_to_string)              \
    F(stroke)                        \
    F(surface_destroy)               \
    F(surface_finish)                \
    F(surface_mark_dirty)            \
    F(surface_status)                \
    F(surface_write_to_png_stream)   \
    F(svg_surface_create_for_stream) \
    F(svg_surface_set_document_unit) \
    F(text_extents)

/** struct cairo_api - the library's functions */
struct cairo_api {
#define F(name) __typeof__(cairo_##name) *(name);
    CAIRO_FUNCTIONS(F)
#undef F
};

/**
 * cairo_load() - load the library
 * @api: filled in; stays valid for the life of the process
 *
 * Return: 0, or -ENOENT with a text that says what to install.
 */
int cairo_load(struct cairo_api *api);

#endif
