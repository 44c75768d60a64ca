/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <string.h>

#include "core/geom.h"

#define HVA 0x7f0000000000ull

static struct geom_region region(uint64_t hva_page, uint64_t n_pages, uint64_t image_page)
{
    return (struct geom_region){
        .hva = HVA + hva_page * 4096, .len_bytes = n_pages * 4096, .imgoff = image_page * 4096};
}

static int init_error(struct geom_region *regions, unsigned n, hva_t *bad)
{
    struct geom g;

    return geom_init(&g, regions, n, 12, bad);
}

/* ---- a model that looks at every region ------------------------------------------------------------------------- */

static const struct geom_region *model_find_hva(const struct geom *g, hva_t addr)
{
    for (unsigned i = 0; i < g->n_regions; i++) {
        if (addr >= g->regions[i].hva && addr - g->regions[i].hva < g->regions[i].len_bytes)
            return &g->regions[i];
    }
    return NULL;
}

static const struct geom_region *model_first_after(const struct geom *g, hva_t addr)
{
    const struct geom_region *best = NULL;

    for (unsigned i = 0; i < g->n_regions; i++) {
        const struct geom_region *r = &g->regions[i];

        if (r->hva + r->len_bytes > addr && (!best || r->hva < best->hva))
            best = r;
    }
    return best;
}

static void check_address(const struct geom *g, hva_t addr)
{
    const struct geom_region *r = model_find_hva(g, addr);
    const struct geom_region *after = model_first_after(g, addr);
    unsigned i = geom_first_after(g, addr);

    assert_ptr_equal(geom_find_hva(g, addr), r);
    if (after)
        assert_ptr_equal(geom_region_by_hva(g, i), after);
    else
        assert_int_equal(i, g->n_regions);
    if (r) {
        pgno_t p = geom_page_of(g, r, addr);

        assert_ptr_equal(geom_find_page(g, p), r);
        assert_int_equal(geom_hva_of(g, r, p), align_down(addr, geom_page_bytes(g)));
        assert_int_equal(geom_imgoff_of(g, r, p) - r->imgoff, geom_hva_of(g, r, p) - r->hva);
    }
}

static void check_order(const struct geom *g)
{
    pgno_t next = 0;

    for (unsigned i = 0; i < g->n_regions; i++) {
        const struct geom_region *r = &g->regions[i];

        assert_int_equal(r->first, next);
        next = geom_region_end(g, r);
        if (i > 0) {
            assert_true(r[-1].imgoff + r[-1].len_bytes <= r->imgoff);
            assert_true(geom_region_by_hva(g, i - 1)->hva < geom_region_by_hva(g, i)->hva);
        }
    }
    assert_int_equal(g->n_pages, next);
}

/* make_regions() - @n regions that touch or leave gaps, memory and image in different random orders */
static struct geom_region *make_regions(struct rng *r, unsigned n, unsigned page_shift)
{
    struct geom_region *list = calloc(n, sizeof(*list));
    uint64_t hva = rng_below(r, 8);
    uint64_t image = rng_below(r, 4);

    assert_non_null(list);
    for (unsigned i = 0; i < n; i++) {
        uint64_t pages = 1 + rng_below(r, 5);

        list[i] = (struct geom_region){.hva = HVA + (hva << page_shift),
                                       .len_bytes = pages << page_shift};
        hva += pages + (rng_below(r, 2) ? 0 : rng_below(r, 9));
    }
    for (unsigned i = n; i > 1; i--) {
        unsigned j = (unsigned)rng_below(r, i);
        struct geom_region swap = list[i - 1];

        list[i - 1] = list[j];
        list[j] = swap;
    }
    for (unsigned i = 0; i < n; i++) {
        list[i].imgoff = image << page_shift;
        image += (list[i].len_bytes >> page_shift) + rng_below(r, 3);
    }
    for (unsigned i = n; i > 1; i--) {
        unsigned j = (unsigned)rng_below(r, i);
        struct geom_region swap = list[i - 1];

        list[i - 1] = list[j];
        list[j] = swap;
    }
    return list;
}

static void check_random_geometry(struct rng *r, unsigned n, unsigned page_shift)
{
    struct geom_region *list = make_regions(r, n, page_shift);
    struct geom g;
    hva_t bad = 0;

    assert_int_equal(geom_init(&g, list, n, page_shift, &bad), 0);
    check_order(&g);
    for (unsigned i = 0; i < 300; i++) {
        const struct geom_region *some = &g.regions[rng_below(r, n)];

        check_address(&g, some->hva + rng_below(r, some->len_bytes));
        check_address(&g, some->hva);
        check_address(&g, some->hva - 1);
        check_address(&g, some->hva + some->len_bytes - 1);
        check_address(&g, some->hva + some->len_bytes);
    }
    check_address(&g, 0);
    check_address(&g, UINT64_MAX);
    free(list);
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

static void pages_are_numbered_through_the_regions_in_image_order(void **state)
{
    struct geom_region list[] = {region(100, 10, 20), region(0, 20, 0), region(50, 5, 40)};
    struct geom g;
    hva_t bad;

    (void)state;
    assert_int_equal(geom_init(&g, list, 3, 12, &bad), 0);
    assert_int_equal(g.n_pages, 35);
    assert_int_equal(geom_find_hva(&g, HVA)->first, 0);
    assert_int_equal(geom_find_hva(&g, HVA + 100 * 4096)->first, 20);
    assert_int_equal(geom_find_hva(&g, HVA + 50 * 4096)->first, 30);
    assert_int_equal(geom_find_page(&g, 34)->hva, HVA + 50 * 4096);
}

static void an_address_in_a_gap_has_no_region_and_one_after_it(void **state)
{
    struct geom_region list[] = {region(0, 2, 0), region(4, 2, 4)};
    struct geom g;
    hva_t bad;

    (void)state;
    assert_int_equal(geom_init(&g, list, 2, 12, &bad), 0);
    assert_null(geom_find_hva(&g, HVA - 1));
    assert_non_null(geom_find_hva(&g, HVA + 2 * 4096 - 1));
    assert_null(geom_find_hva(&g, HVA + 2 * 4096));
    assert_null(geom_find_hva(&g, HVA + 6 * 4096));
    assert_int_equal(geom_first_after(&g, 0), 0);
    assert_int_equal(geom_first_after(&g, HVA + 2 * 4096), 1);
    assert_int_equal(geom_first_after(&g, HVA + 6 * 4096), 2);
}

static void lookups_agree_with_a_model_that_looks_at_every_region(void **state)
{
    struct rng r = rng_init("geom");

    (void)state;
    for (unsigned round = 0; round < 200; round++)
        check_random_geometry(&r, 1 + (unsigned)rng_below(&r, 40), rng_below(&r, 2) ? 12 : 21);
}

static void as_many_regions_as_a_handshake_may_have_are_found(void **state)
{
    struct rng r = rng_init("geom regions");

    (void)state;
    check_random_geometry(&r, GEOM_MAX_REGIONS, 12);
}

static void regions_at_the_ends_of_the_address_space_are_fine(void **state)
{
    struct geom_region list[] = {
        {.hva = UINT64_MAX - 8191, .len_bytes = 4096, .imgoff = 0},
        {.hva = 0, .len_bytes = 1ull << 47, .imgoff = 1ull << 50},
    };
    struct geom g;
    hva_t bad;

    (void)state;
    assert_int_equal(geom_init(&g, list, 2, 12, &bad), 0);
    assert_int_equal(g.n_pages, (1ull << 35) + 1);
    assert_non_null(geom_find_hva(&g, UINT64_MAX - 4096));
    assert_null(geom_find_hva(&g, UINT64_MAX));
}

static void what_is_not_aligned_is_named(void **state)
{
    struct geom_region list[] = {region(0, 2, 0), region(4, 2, 4), region(8, 2, 8)};
    struct geom_region copy[3];
    hva_t bad = 0;

    (void)state;
    memcpy(copy, list, sizeof(list));
    copy[1].hva += 1;
    assert_int_equal(init_error(copy, 3, &bad), GEOM_E_UNALIGNED);
    assert_int_equal(bad, list[1].hva + 1);
    memcpy(copy, list, sizeof(list));
    copy[2].len_bytes += 512;
    assert_int_equal(init_error(copy, 3, &bad), GEOM_E_UNALIGNED);
    assert_int_equal(bad, list[2].hva);
    memcpy(copy, list, sizeof(list));
    copy[0].imgoff = 100;
    assert_int_equal(init_error(copy, 3, &bad), GEOM_E_UNALIGNED);
    assert_int_equal(bad, list[0].hva);
    memcpy(copy, list, sizeof(list));
    copy[1].len_bytes = 0;
    assert_int_equal(init_error(copy, 3, &bad), GEOM_E_UNALIGNED);
    assert_int_equal(bad, list[1].hva);
}

static void a_small_page_is_no_multiple_of_a_huge_one(void **state)
{
    struct geom_region list[] = {{.hva = HVA + 4096, .len_bytes = 2 * MIB, .imgoff = 0}};
    struct geom g;
    hva_t bad = 0;

    (void)state;
    assert_int_equal(geom_init(&g, list, 1, 21, &bad), GEOM_E_UNALIGNED);
    assert_int_equal(bad, HVA + 4096);
}

static void an_overlap_in_memory_names_the_region_that_begins_inside_another(void **state)
{
    struct geom_region list[] = {region(20, 8, 0), region(0, 8, 20), region(7, 8, 40)};
    hva_t bad = 0;

    (void)state;
    assert_int_equal(init_error(list, 3, &bad), GEOM_E_OVERLAP_MEMORY);
    assert_int_equal(bad, HVA + 7 * 4096);
}

static void an_overlap_in_the_image_names_the_region_that_begins_inside_another(void **state)
{
    struct geom_region list[] = {region(0, 8, 40), region(20, 8, 8), region(40, 8, 15)};
    hva_t bad = 0;

    (void)state;
    assert_int_equal(init_error(list, 3, &bad), GEOM_E_OVERLAP_IMAGE);
    assert_int_equal(bad, HVA + 40 * 4096);
}

static void the_same_region_twice_overlaps(void **state)
{
    struct geom_region list[] = {region(3, 2, 0), region(3, 2, 10)};
    struct geom_region image[] = {region(3, 2, 0), region(9, 2, 0)};
    hva_t bad = 0;

    (void)state;
    assert_int_equal(init_error(list, 2, &bad), GEOM_E_OVERLAP_MEMORY);
    assert_int_equal(bad, HVA + 3 * 4096);
    assert_int_equal(init_error(image, 2, &bad), GEOM_E_OVERLAP_IMAGE);
}

static void sums_that_overflow_are_named(void **state)
{
    struct geom_region memory[] = {region(0, 2, 0), region(4, 2, 4)};
    struct geom_region image[] = {region(0, 2, 0), region(4, 2, 4)};
    hva_t bad = 0;

    (void)state;
    memory[1].hva = UINT64_MAX - 4095;
    assert_int_equal(init_error(memory, 2, &bad), GEOM_E_RANGE);
    assert_int_equal(bad, UINT64_MAX - 4095);
    image[0].imgoff = UINT64_MAX - 4095;
    assert_int_equal(init_error(image, 2, &bad), GEOM_E_RANGE);
    assert_int_equal(bad, HVA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_numbered_through_the_regions_in_image_order),
        cmocka_unit_test(an_address_in_a_gap_has_no_region_and_one_after_it),
        cmocka_unit_test(lookups_agree_with_a_model_that_looks_at_every_region),
        cmocka_unit_test(as_many_regions_as_a_handshake_may_have_are_found),
        cmocka_unit_test(regions_at_the_ends_of_the_address_space_are_fine),
        cmocka_unit_test(what_is_not_aligned_is_named),
        cmocka_unit_test(a_small_page_is_no_multiple_of_a_huge_one),
        cmocka_unit_test(an_overlap_in_memory_names_the_region_that_begins_inside_another),
        cmocka_unit_test(an_overlap_in_the_image_names_the_region_that_begins_inside_another),
        cmocka_unit_test(the_same_region_twice_overlaps),
        cmocka_unit_test(sums_that_overflow_are_named),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("geom", tests, NULL, NULL);
}
