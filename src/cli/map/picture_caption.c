/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/map/picture_caption.h"

#include <ctype.h>
#include <stdio.h>

#include "cli/map/size_text.h"

void caption_scale(const struct picture *p, char line[CAPTION_BYTES])
{
    uint64_t per_cell = p->plan.pages_per_cell;
    const char *row = size_text(picture_bytes(p, per_cell * p->plan.columns));
    char ground[32];
    size_t i = 0;

    for (const char *from = p->subject->kinds[0].name; from[i] && i + 1 < sizeof(ground); i++)
        ground[i] = (char)tolower((unsigned char)from[i]);
    ground[i] = '\0';
    if (per_cell == 1)
        (void)snprintf(line, CAPTION_BYTES, "a cell is a page of %s, a row %s",
                       size_text(picture_bytes(p, 1)), row);
    else
        (void)snprintf(
            line, CAPTION_BYTES,
            "a cell is %s pages (%s), a row %s; mixed cells mix colours, %s pages only dim them",
            count_text(per_cell), size_text(picture_bytes(p, per_cell)), row, ground);
}

void caption_count(const struct picture *p, unsigned kind, char *buf, size_t len)
{
    uint64_t all = picture_n_pages(p);

    (void)snprintf(buf, len, "%13s %6.2f %% %11s", count_text(p->counts[kind]),
                   all ? 100.0 * (double)p->counts[kind] / (double)all : 0.0,
                   size_text(picture_bytes(p, p->counts[kind])));
}
