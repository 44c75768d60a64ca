/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <stdio.h>
#include <string.h>

#include "cli/map/map_subject.h"
#include "cli/map/picture.h"
#include "cli/map/picture_caption.h"
#include "cli/map/picture_term.h"
#include "cli/map/size_text.h"

#define MAX_TEST_REGIONS 40u

static const struct picture_limits file_limits = {
    .min_columns = 16, .max_columns = 512, .max_rows = 512};

/* struct guest - a block in memory, as a pager has it in its state file */
struct guest {
    struct geom_region regions[MAX_TEST_REGIONS];
    struct block block;
    struct map_subject subject;
    void *mem;
};

/* Regions one behind the other in the image, apart from each other in memory. */
static struct guest *guest_new(unsigned page_shift, unsigned n_regions, const pgno_t *n_pages)
{
    struct guest *g = calloc(1, sizeof(*g));
    struct geom geom;
    imgoff_t off = 0;
    hva_t bad = 0;

    assert_non_null(g);
    assert_true(n_regions <= MAX_TEST_REGIONS);
    for (unsigned i = 0; i < n_regions; i++) {
        g->regions[i] = (struct geom_region){
            .hva = 0x7f0000000000 + i * (1ull << 40),
            .len_bytes = n_pages[i] << page_shift,
            .imgoff = off,
        };
        off += n_pages[i] << page_shift;
    }
    assert_int_equal(geom_init(&geom, g->regions, n_regions, page_shift, &bad), 0);
    g->mem = calloc(1, block_bytes(n_regions, geom.n_pages));
    assert_non_null(g->mem);
    block_format(&g->block, g->mem, &geom);
    map_subject_init(&g->subject, &g->block);
    return g;
}

static void guest_free(struct guest *g)
{
    free(g->mem);
    free(g);
}

static struct picture *draw(const struct guest *g, const struct picture_limits *limits)
{
    struct picture *p = NULL;

    assert_int_equal(picture_new(&p, &g->subject.picture, limits), 0);
    return p;
}

static struct picture_plan plan_of(unsigned page_shift, unsigned n_regions, const pgno_t *n_pages)
{
    struct guest *g = guest_new(page_shift, n_regions, n_pages);
    struct picture_plan plan;

    picture_plan(&plan, &g->subject.picture, &file_limits);
    guest_free(g);
    return plan;
}

static int channel_distance(uint32_t a, uint32_t b)
{
    int sum = 0;

    for (unsigned shift = 0; shift < 24; shift += 8)
        sum += abs((int)((a >> shift) & 0xff) - (int)((b >> shift) & 0xff));
    return sum;
}

/* --- layout --- */

static void a_guest_of_256_mib_has_a_cell_for_each_page(void **state)
{
    const pgno_t n = 65536;
    struct picture_plan plan = plan_of(12, 1, &n);

    (void)state;
    assert_int_equal(plan.pages_per_cell, 1);
    assert_int_equal(plan.columns, 256);
    assert_int_equal(plan.n_rows, 256);
    assert_int_equal(plan.n_bands, 1);
}

static void a_guest_of_64_gib_fits(void **state)
{
    const pgno_t n[] = {3 * GIB >> 12, 61 * GIB >> 12};
    struct picture_plan plan = plan_of(12, 2, n);

    (void)state;
    assert_int_equal(plan.pages_per_cell, 64);
    assert_int_equal(plan.columns, 512);
    assert_int_equal(plan.n_rows, 512);
    assert_int_equal(plan.bands[0].n_rows, 24);
    assert_int_equal(plan.bands[1].first_row, 24);
}

static void a_guest_of_one_page_is_one_cell(void **state)
{
    const pgno_t n = 1;
    struct picture_plan plan = plan_of(21, 1, &n);

    (void)state;
    assert_int_equal(plan.bands[0].n_cells, 1);
    assert_int_equal(plan.n_rows, 1);
    assert_int_equal(plan.columns, file_limits.min_columns);
}

static void a_region_begins_a_row_of_its_own(void **state)
{
    const pgno_t n[] = {17, 1, 33};
    struct picture_plan plan = plan_of(12, 3, n);

    (void)state;
    assert_int_equal(plan.columns, 16);
    assert_int_equal(plan.bands[0].n_rows, 2);
    assert_int_equal(plan.bands[1].first_row, 2);
    assert_int_equal(plan.bands[1].n_rows, 1);
    assert_int_equal(plan.bands[2].first_row, 3);
    assert_int_equal(plan.n_rows, 6);
}

static void too_many_regions_share_one_band(void **state)
{
    pgno_t n[PICTURE_MAX_BANDS + 1];
    struct picture_plan plan;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(n); i++)
        n[i] = 3;
    plan = plan_of(12, PICTURE_MAX_BANDS, n);
    assert_int_equal(plan.n_bands, PICTURE_MAX_BANDS);
    plan = plan_of(12, PICTURE_MAX_BANDS + 1, n);
    assert_int_equal(plan.n_bands, 1);
    assert_int_equal(plan.bands[0].n_cells, 3 * (PICTURE_MAX_BANDS + 1));
}

/*
 * Whatever the regions: the limits hold, bands follow each other, and no smaller group would have
 * fitted.
 */
static void any_guest_fits(void **state)
{
    struct rng rng = rng_init("any_guest_fits");

    (void)state;
    for (unsigned round = 0; round < 300; round++) {
        unsigned n_regions = 1 + (unsigned)rng_below(&rng, PICTURE_MAX_BANDS + 4);
        pgno_t n[PICTURE_MAX_BANDS + 4];
        pgno_t sum = 0;
        pgno_t next = 0;
        unsigned row = 0;
        struct picture_plan plan;

        for (unsigned i = 0; i < n_regions; i++)
            sum += n[i] = 1 + rng_below(&rng, 1ull << rng_below(&rng, 22));
        plan = plan_of(12, n_regions, n);
        assert_true(is_power_of_two(plan.columns) && is_power_of_two(plan.pages_per_cell));
        assert_in_range(plan.columns, file_limits.min_columns, file_limits.max_columns);
        assert_in_range(plan.n_rows, 1, file_limits.max_rows);
        for (unsigned i = 0; i < plan.n_bands; i++) {
            const struct picture_band *b = &plan.bands[i];

            assert_int_equal(b->first, next);
            assert_int_equal(b->first_row, row);
            assert_true(b->n_cells * plan.pages_per_cell >= b->end - b->first);
            assert_true((b->n_cells - 1) * plan.pages_per_cell < b->end - b->first);
            assert_true((uint64_t)b->n_rows * plan.columns >= b->n_cells);
            assert_true((uint64_t)(b->n_rows - 1) * plan.columns < b->n_cells);
            next = b->end;
            row += b->n_rows;
        }
        assert_int_equal(next, sum);
        assert_int_equal(row, plan.n_rows);
        /* Half of the group would have needed more rows than there are, whatever the bands. */
        if (plan.pages_per_cell > 1)
            assert_true(sum / (plan.pages_per_cell / 2) + PICTURE_MAX_BANDS >
                        (uint64_t)file_limits.max_columns *
                            (file_limits.max_rows - PICTURE_MAX_BANDS));
    }
}

/* --- colours --- */

static void a_state_by_itself_has_its_own_colour(void **state)
{
    const pgno_t n = 1;
    struct guest *g = guest_new(12, 1, &n);
    const struct picture_subject *subject = &g->subject.picture;

    (void)state;
    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        uint64_t counts[PICTURE_MAX_KINDS] = {0};

        counts[s] = 1 + s * 1000;
        assert_int_equal(picture_colour(subject, counts), subject->kinds[s].colour);
        assert_int_equal(picture_kind_of(subject, counts), s);
    }
    assert_int_equal(subject->kinds[PAGE_CLEAN].colour, 0x4c9f70);
    guest_free(g);
}

static void one_page_among_many_absent_ones_is_seen(void **state)
{
    const pgno_t n = 1;
    struct guest *g = guest_new(12, 1, &n);
    const struct picture_subject *subject = &g->subject.picture;
    uint32_t nothing = subject->kinds[PAGE_ABSENT].colour;

    (void)state;
    for (unsigned s = 1; s < N_PAGE_STATES; s++) {
        uint64_t counts[PICTURE_MAX_KINDS] = {[PAGE_ABSENT] = 1000000};

        counts[s] = 1;
        assert_int_equal(picture_kind_of(subject, counts), s);
        /* At least half of the way from the absent pages' colour to its own; rounding apart. */
        assert_true(2 * channel_distance(picture_colour(subject, counts), nothing) + 6 >=
                    channel_distance(subject->kinds[s].colour, nothing));
    }
    guest_free(g);
}

static void one_removed_page_among_clean_ones_is_seen(void **state)
{
    const pgno_t n = 1;
    struct guest *g = guest_new(12, 1, &n);
    uint64_t counts[PICTURE_MAX_KINDS] = {[PAGE_CLEAN] = 63, [PAGE_REMOVED] = 1};

    (void)state;
    assert_true(channel_distance(picture_colour(&g->subject.picture, counts),
                                 g->subject.kinds[PAGE_CLEAN].colour) > 16);
    guest_free(g);
}

/* --- cells --- */

static void the_cells_show_as_many_pages_as_the_table_has(void **state)
{
    struct rng rng = rng_init("the_cells_show_as_many_pages_as_the_table_has");
    const pgno_t n[] = {100000, 1, 4097};
    const struct picture_limits small = {
        .min_columns = 16, .max_columns = 16, .max_rows = PICTURE_MAX_BANDS};
    struct guest *g = guest_new(12, 3, n);
    uint64_t counts[N_PAGE_STATES];
    struct picture *p;

    (void)state;
    for (unsigned i = 0; i < 500; i++) {
        pgno_t first = rng_below(&rng, g->block.geom.n_pages);
        pgno_t end = min_u64(first + 1 + rng_below(&rng, 200), g->block.geom.n_pages);

        pagetab_step(&g->block.pages, i % 2 ? PAGE_EV_REMOVE : PAGE_EV_ZEROFILL, first, end);
    }
    p = draw(g, &small);
    pagetab_count(&g->block.pages, 0, g->block.geom.n_pages, counts);
    assert_memory_equal(p->counts, counts, sizeof(counts));
    assert_true(p->plan.n_rows <= small.max_rows);
    picture_free(p);
    guest_free(g);
}

static void cells_behind_the_end_of_a_band_are_not_used(void **state)
{
    const pgno_t n[] = {17, 2};
    struct guest *g = guest_new(12, 2, n);
    struct picture *p = draw(g, &file_limits);

    (void)state;
    assert_true(picture_at(p, 1, 0)->used);
    assert_false(picture_at(p, 1, 1)->used);
    assert_true(picture_at(p, 2, 1)->used);
    assert_false(picture_at(p, 2, 2)->used);
    picture_free(p);
    guest_free(g);
}

/* The three bits of a page are written one after the other: a copy may catch codes of no state. */
static void a_page_caught_between_two_states_is_still_a_page(void **state)
{
    const pgno_t n = 64;
    struct guest *g = guest_new(12, 1, &n);
    struct picture *p;
    uint64_t sum = 0;

    (void)state;
    g->block.pages.words[0] = g->block.pages.words[1] = g->block.pages.words[2] = 1;
    p = draw(g, &file_limits);
    for (unsigned s = 0; s < N_PAGE_STATES; s++)
        sum += p->counts[s];
    assert_int_equal(sum, n);
    picture_free(p);
    guest_free(g);
}

/* --- characters --- */

static char *drawn(const struct guest *g, enum term_style style, unsigned columns, unsigned lines)
{
    struct picture_limits limits = term_limits(style, columns, lines);
    struct picture *p = draw(g, &limits);
    struct caption caption;
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    assert_non_null(f);
    map_caption(&caption, &g->block, p, false);
    term_draw(f, p, &caption, style);
    assert_int_equal(fclose(f), 0);
    picture_free(p);
    return text;
}

static void plain_text_has_a_letter_for_each_state(void **state)
{
    const pgno_t n[] = {70, 3};
    struct guest *g = guest_new(12, 2, n);
    char *text;

    (void)state;
    pagetab_step(&g->block.pages, PAGE_EV_INSTALL, 1, 4);
    pagetab_step(&g->block.pages, PAGE_EV_WRITTEN, 2, 3);
    pagetab_step(&g->block.pages, PAGE_EV_REMOVE, 60, 66);
    pagetab_step(&g->block.pages, PAGE_EV_ZEROFILL, 71, 73);
    text = drawn(g, TERM_PLAIN, 0, 0);
    assert_non_null(
        strstr(text, "region 1 of 2: 0x7f0000000000, 280 KiB, from byte 0 of the snapshot on\n"));
    assert_non_null(strstr(text, "region 2 of 2: 0x800000000000, 12 KiB, from byte 286,720 of "));
    assert_non_null(strstr(text,
                           "          0 .cDc....................................................."
                           "...RRRR\n            RR....\n"));
    assert_non_null(strstr(text, "          0 .00\n"));
    assert_non_null(strstr(text, " R REMOVED"));
    assert_null(strchr(text, '\x1b'));
    free(text);
    guest_free(g);
}

static void colour_leaves_the_terminal_as_it_was(void **state)
{
    const pgno_t n[] = {200, 65};
    struct guest *g = guest_new(12, 2, n);
    char *text = drawn(g, TERM_COLOUR, 120, 40);
    const char *last = NULL;

    (void)state;
    for (const char *at = text; (at = strchr(at, '\x1b')); at++)
        last = at;
    assert_non_null(last);
    assert_memory_equal(last, "\x1b[0m", 4);
    free(text);
    guest_free(g);
}

static unsigned count_lines(const char *text)
{
    unsigned n = 0;

    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static void the_picture_fits_into_the_window(void **state)
{
    const pgno_t n = 16 * GIB >> 12;
    struct guest *g = guest_new(12, 1, &n);

    (void)state;
    for (unsigned lines = 30; lines < 100; lines += 7) {
        for (unsigned style = TERM_PLAIN; style <= TERM_COLOUR; style++) {
            char *text = drawn(g, (enum term_style)style, 80, lines);

            assert_true(count_lines(text) < lines);
            free(text);
        }
    }
    for (unsigned columns = 0; columns < 300; columns += 10) {
        struct picture_limits l = term_limits(TERM_COLOUR, columns, 0);

        assert_int_equal(l.min_columns, l.max_columns);
        assert_in_range(l.max_columns, 16, 128);
        assert_in_range(l.max_rows, 32, 128);
        if (columns >= 28)
            assert_true(l.max_columns + 12 <= columns);
    }
    guest_free(g);
}

/* --- words --- */

static void what_a_terminal_would_obey_is_not_printed(void **state)
{
    const pgno_t n = 1;
    struct guest *g = guest_new(12, 1, &n);
    char *text;

    (void)state;
    memset(g->block.header->memory_path, 'x', sizeof(g->block.header->memory_path));
    memcpy(g->block.header->memory_path, "/a\x1b[2J\n", 7);
    text = drawn(g, TERM_PLAIN, 80, 0);
    assert_non_null(strstr(text, "snapshot /a?[2J?xxx"));
    assert_null(strchr(text, '\x1b'));
    free(text);
    guest_free(g);
}

static void a_stale_file_is_called_stale(void **state)
{
    const pgno_t n = 1;
    struct guest *g = guest_new(12, 1, &n);
    struct picture *p = draw(g, &file_limits);
    struct caption c;

    (void)state;
    map_caption(&c, &g->block, p, true);
    assert_non_null(strstr(c.title, "STALE"));
    map_caption(&c, &g->block, p, false);
    assert_null(strstr(c.title, "STALE"));
    picture_free(p);
    guest_free(g);
}

static void sizes_are_in_the_largest_unit(void **state)
{
    (void)state;
    assert_string_equal(size_text(0), "0 bytes");
    assert_string_equal(size_text(1023), "1023 bytes");
    assert_string_equal(size_text(4096), "4 KiB");
    assert_string_equal(size_text(3328 * MIB), "3.25 GiB");
    assert_string_equal(size_text(100 * GIB), "100 GiB");
    assert_string_equal(size_text(UINT64_MAX), "16 EiB");
    assert_string_equal(count_text(0), "0");
    assert_string_equal(count_text(999), "999");
    assert_string_equal(count_text(1000), "1,000");
    assert_string_equal(count_text(UINT64_MAX), "18,446,744,073,709,551,615");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guest_of_256_mib_has_a_cell_for_each_page),
        cmocka_unit_test(a_guest_of_64_gib_fits),
        cmocka_unit_test(a_guest_of_one_page_is_one_cell),
        cmocka_unit_test(a_region_begins_a_row_of_its_own),
        cmocka_unit_test(too_many_regions_share_one_band),
        cmocka_unit_test(any_guest_fits),
        cmocka_unit_test(a_state_by_itself_has_its_own_colour),
        cmocka_unit_test(one_page_among_many_absent_ones_is_seen),
        cmocka_unit_test(one_removed_page_among_clean_ones_is_seen),
        cmocka_unit_test(the_cells_show_as_many_pages_as_the_table_has),
        cmocka_unit_test(cells_behind_the_end_of_a_band_are_not_used),
        cmocka_unit_test(a_page_caught_between_two_states_is_still_a_page),
        cmocka_unit_test(plain_text_has_a_letter_for_each_state),
        cmocka_unit_test(colour_leaves_the_terminal_as_it_was),
        cmocka_unit_test(the_picture_fits_into_the_window),
        cmocka_unit_test(what_a_terminal_would_obey_is_not_printed),
        cmocka_unit_test(a_stale_file_is_called_stale),
        cmocka_unit_test(sizes_are_in_the_largest_unit),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("picture", tests, NULL, NULL);
}
