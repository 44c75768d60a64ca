/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_block.c - a state file with any content is refused, or harmless to whoever reads it
 *
 * The input is a list of changes to a good block of 300 pages in two regions: two bytes of position, one of length, and
 * that many bytes to put there. A position with its top bit set counts from the start of the parts behind the header, so
 * that few bytes reach everything. A first byte of 0xff means that the rest is the block itself.
 */

#include <stdlib.h>
#include <string.h>

#include "../unit/engine_rig.h"
#include "fuzz.h"

static void use(bool truth)
{
    if (!truth)
        abort();
}

/* read_it() - what `thaw map` does with somebody else's block */
static void read_it(const struct block *b)
{
    uint64_t counts[N_PAGE_STATES];
    uint64_t n = 0;

    pagetab_count(&b->pages, 0, b->pages.n_pages, counts);
    for (unsigned s = 0; s < N_PAGE_STATES; s++)
        n += counts[s];
    use(n == b->pages.n_pages);
    for (unsigned i = 0; i < b->geom.n_regions; i++) {
        const struct geom_region *r = geom_region_by_hva(&b->geom, i);

        use(geom_find_hva(&b->geom, r->hva) == r);
        use(geom_find_page(&b->geom, r->first) == r);
        use(geom_find_page(&b->geom, geom_region_end(&b->geom, r) - 1) == r);
    }
    use(hist_quantile(&b->header->fault_ns, 0.5) <= b->header->fault_ns.max);
    use(memchr(b->header->memory_path, '\0', sizeof(b->header->memory_path)) != NULL);
}

/* take_over() - what a new pager does with it: it answers whoever waits */
static void take_over(struct block *b)
{
    const struct engine_config config = {.around_pages = 16};
    struct engine e;

    engine_init(&e, b, &config);
    for (pgno_t n = 0; engine_deadline_ns(&e) != ENGINE_NEVER; n++) {
        struct event ev = {.kind = EVENT_TICK, .time_ns = NS_PER_S};
        struct effect fx[ENGINE_FX_MAX];

        use(n <= 2 * b->pages.n_pages + 1);
        if (engine_step(&e, &ev, fx) == 0)
            break;
        use(fx[0].first <= fx[0].page && fx[0].page < fx[0].end);
        use(fx[0].end <= b->pages.n_pages);
    }
}

static void change(uint8_t *mem, size_t len, const uint8_t *data, size_t size)
{
    while (size >= 3) {
        size_t at = (size_t)data[0] | ((size_t)data[1] << 8);
        size_t n = min_u64(data[2], size - 3);

        at = at & 0x8000 ? sizeof(struct block_header) + (at & 0x7fff) : at;
        if (at < len)
            memcpy(mem + at, data + 3, min_u64(n, len - at));
        data += 3 + n;
        size -= 3 + n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct rig_spec spec = {
        .page_shift = 12,
        .n_regions = 2,
        .regions = {{0, 200, RIG_IMAGE_SAME}, {300, 400, 210}},
        .config = {.around_pages = 1},
    };
    struct rig rig;
    struct block view;
    size_t len;
    int r;

    r = rig_init(&rig, &spec);
    use(r == 0);
    len = (size_t)rig.block.header->total_bytes;
    if (size > 0 && data[0] == 0xff) {
        len = size - 1;
        free(rig.mem);
        rig.mem = malloc(len + 1);
        use(rig.mem != NULL);
        memcpy(rig.mem, data + 1, len);
    } else if (size > 0) {
        change(rig.mem, len, data + 1, size - 1);
    }
    if (block_open(&view, rig.mem, len) == 0) {
        read_it(&view);
        take_over(&view);
    }
    rig_deinit(&rig);
    return 0;
}
