/* SPDX-License-Identifier: Apache-2.0 */
/* test_image_stat.c - an image counted run by run is the image counted page by page */
#include "images.h"

#include "image/image_stat.h"

/* naive() - what each page is, one after the other */
static uint8_t *naive(const struct manifest *m)
{
    uint64_t n_pages = m->image_bytes / IMAGE_PAGE;
    uint8_t *pages = calloc(n_pages, 1);

    assert_non_null(pages);
    for (uint64_t i = 0; i < m->n_runs; i++) {
        bool own = m->has_own_pack && m->frames[m->runs[i].frame].pack == 0;

        for (uint32_t k = 0; k < m->runs[i].n; k++)
            pages[m->runs[i].first + k] = own ? IMAGE_PAGE_OWN : IMAGE_PAGE_PARENT;
    }
    for (uint64_t i = 0; i < m->n_hot; i++) {
        for (uint64_t k = 0; k < m->hot[i].n; k++)
            pages[m->hot[i].first + k] += IMAGE_PAGE_HOT_ZERO;
    }
    return pages;
}

static void any_part_of_an_image_is_counted_as_page_by_page(void **state)
{
    struct rng r = rng_init("image parts");

    (void)state;
    for (unsigned round = 0; round < 100; round++) {
        struct manifest *m = images_random(&r, 1 + (uint32_t)rng_below(&r, 80));
        uint64_t n_pages = m->image_bytes / IMAGE_PAGE;
        uint8_t *pages = naive(m);
        struct image_pages p;

        assert_int_equal(image_pages_init(&p, m), 0);
        for (unsigned part = 0; part < 50; part++) {
            uint64_t first = rng_below(&r, n_pages);
            uint64_t end = first + rng_below(&r, n_pages - first + 1);
            uint64_t expected[N_IMAGE_PAGES] = {[IMAGE_PAGE_OWN] = part};
            uint64_t found[N_IMAGE_PAGES] = {[IMAGE_PAGE_OWN] = part};

            for (uint64_t page = first; page < end; page++)
                expected[pages[page]]++;
            image_pages_count(&p, first, end, found);
            assert_memory_equal(found, expected, sizeof(found));
        }
        image_pages_deinit(&p);
        free(pages);
        m = manifest_free(m);
    }
}

static void sums_are_those_of_the_tables(void **state)
{
    struct rng r = rng_init("image sums");

    (void)state;
    for (unsigned round = 0; round < 100; round++) {
        struct manifest *m = images_random(&r, 1 + (uint32_t)rng_below(&r, 80));
        uint64_t by_page[N_IMAGE_PAGES] = {0};
        uint8_t *pages = naive(m);
        uint64_t stored_bytes = 0;
        uint64_t n_hot = 0;
        uint64_t n = 0;
        struct image_stat s;

        assert_int_equal(image_stat_init(&s, m), 0);
        assert_int_equal(s.n_pages, m->image_bytes / IMAGE_PAGE);
        for (uint64_t page = 0; page < s.n_pages; page++)
            by_page[pages[page]]++;
        assert_memory_equal(s.by_page, by_page, sizeof(by_page));
        for (uint32_t i = 0; i < m->n_frames; i++)
            stored_bytes += m->frames[i].stored_bytes;
        assert_int_equal(s.frames.n, m->n_frames);
        assert_int_equal(s.frames.stored_bytes, stored_bytes);
        for (unsigned i = 0; i < N_FRAME_CODECS; i++) {
            n += s.by_codec[i].n;
            stored_bytes -= s.by_codec[i].stored_bytes;
        }
        assert_int_equal(n, m->n_frames);
        assert_int_equal(stored_bytes, 0);
        n = 0;
        for (uint32_t i = 0; i < m->n_packs; i++) {
            n += s.packs[i].n_pages;
            n_hot += s.packs[i].n_hot;
            stored_bytes += s.packs[i].frames.stored_bytes;
        }
        assert_int_equal(n, s.n_pages - by_page[IMAGE_PAGE_ZERO] - by_page[IMAGE_PAGE_HOT_ZERO]);
        assert_int_equal(n_hot, by_page[IMAGE_PAGE_HOT_PARENT] + by_page[IMAGE_PAGE_HOT_OWN]);
        assert_int_equal(stored_bytes, s.frames.stored_bytes);
        if (m->has_own_pack)
            assert_int_equal(s.packs[0].n_pages,
                             by_page[IMAGE_PAGE_OWN] + by_page[IMAGE_PAGE_HOT_OWN]);
        image_stat_deinit(&s);
        free(pages);
        m = manifest_free(m);
    }
}

static void the_largest_image_of_zeroes_costs_nothing(void **state)
{
    struct manifest *m = NULL;
    struct image_stat s;

    (void)state;
    assert_int_equal(manifest_new(&m, IMAGE_BYTES_MAX), 0);
    assert_int_equal(image_stat_init(&s, m), 0);
    assert_int_equal(s.by_page[IMAGE_PAGE_ZERO], IMAGE_BYTES_MAX / IMAGE_PAGE);
    image_stat_deinit(&s);
    m = manifest_free(m);
}

static void a_small_image_by_hand(void **state)
{
    static const uint64_t expected[N_IMAGE_PAGES] = {
        [IMAGE_PAGE_ZERO] = 80,     [IMAGE_PAGE_PARENT] = 1,  [IMAGE_PAGE_OWN] = 5,
        [IMAGE_PAGE_HOT_ZERO] = 10, [IMAGE_PAGE_HOT_OWN] = 4,
    };
    struct manifest *m = images_small();
    struct image_stat s;

    (void)state;
    assert_int_equal(image_stat_init(&s, m), 0);
    assert_memory_equal(s.by_page, expected, sizeof(expected));
    assert_int_equal(s.packs[0].n_pages, 9);
    assert_int_equal(s.packs[0].n_hot, 4);
    assert_int_equal(s.packs[1].n_pages, 1);
    assert_int_equal(s.packs[1].frames.stored_bytes, 50);
    assert_int_equal(s.by_codec[FRAME_ZSTD].n_pages, 8);
    image_stat_deinit(&s);
    m = manifest_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_part_of_an_image_is_counted_as_page_by_page),
        cmocka_unit_test(sums_are_those_of_the_tables),
        cmocka_unit_test(the_largest_image_of_zeroes_costs_nothing),
        cmocka_unit_test(a_small_image_by_hand),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
