/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_handshake.c - the handshake's text: refused with a sentence, or a geometry that can be trusted
 *
 * The text also goes through the reader that finds its end in a byte stream, once whole and once cut into pieces whose
 * lengths the text itself chooses: both must find the same end, and not before the parser would.
 */

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "fuzz.h"
#include "pager/regions_json.h"

static void use(bool truth)
{
    if (!truth)
        abort();
}

static void check_geometry(struct regions *r)
{
    unsigned shift = (unsigned)__builtin_ctzll(r->page_bytes);
    struct geom g;
    hva_t bad;

    if (geom_init(&g, r->list, r->n, shift, &bad) != 0)
        return;
    for (unsigned i = 0; i < g.n_regions; i++) {
        const struct geom_region *region = &g.regions[i];
        hva_t last = region->hva + region->len_bytes - 1;

        use(geom_find_hva(&g, region->hva) == region);
        use(geom_find_hva(&g, last) == region);
        use(geom_find_page(&g, geom_page_of(&g, region, last)) == region);
    }
}

/* Return: how many bytes belong to the array; 0 if it is none or has no end */
static size_t find_end(const char *text, size_t len, bool in_pieces)
{
    struct json_span span = {0};
    size_t at = 0;

    while (at < len && !span.done) {
        size_t piece = in_pieces ? 1 + ((size_t)text[at] & 7) : len;
        size_t used = 0;

        piece = min_u64(piece, len - at);
        if (json_span_feed(&span, text + at, piece, &used) != 0)
            return 0;
        use(used <= piece && (used == piece || span.done));
        at += used;
    }
    return span.done ? at : 0;
}

static bool is_blank(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!strchr(" \t\r\n", text[i]) || text[i] == '\0')
            return false;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    size_t end = find_end(text, size, false);
    struct regions r;

    use(find_end(text, size, true) == end);
    if (regions_parse(&r, text, size) < 0) {
        use(r.list == NULL && r.n == 0);
        use(strlen(err_text()) > 0);
        use(strncmp(err_text(), "handshake: ", strlen("handshake: ")) == 0);
    } else {
        use(r.n > 0 && r.n <= GEOM_MAX_REGIONS);
        use(r.page_bytes == 4 * KIB || r.page_bytes == 2 * MIB);
        use(end > 0 && is_blank(text + end, size - end));
        check_geometry(&r);
    }
    regions_deinit(&r);
    return 0;
}
