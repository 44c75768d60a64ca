/* SPDX-License-Identifier: Apache-2.0 */
/* test_hot_next.c - working sets from generation to generation: what stays in one, what falls out, how large it becomes */
#include "sets.h"

#include <string.h>

#include "image/hot_next.h"

#define PAGES   (64ull * 1024) /* 256 MiB: a quarter of it is HOT_MIN_BYTES */
#define WINDOW  (1ull << (HOT_WINDOW_SHIFT - 12))
#define WINDOWS (PAGES / WINDOW)

/* image_of() - a manifest with this working set. @ws: NULL: none */
static struct manifest *image_of(const struct workingset *ws, uint64_t n_pages)
{
    struct manifest *m = NULL;

    assert_int_equal(manifest_new(&m, n_pages * IMAGE_PAGE), 0);
    free(m->hot);
    m->hot = calloc((ws ? ws->n : 0) + 1, sizeof(*m->hot));
    assert_non_null(m->hot);
    for (size_t i = 0; ws && i < ws->n; i++)
        m->hot[m->n_hot++] = (struct manifest_hot){.first = ws->entries[i].unit, .n = 1};
    return m;
}

/* next_of() - the set that comes after @ws; it takes @ws */
static struct workingset *next_of(struct workingset *ws, const struct workingset *missed,
                                  unsigned generation, uint64_t n_pages)
{
    struct manifest *m = image_of(ws, n_pages);
    struct workingset *next = NULL;

    assert_int_equal(hot_next(&next, m, missed, generation), 0);
    (void)manifest_free(m);
    (void)workingset_free(ws);
    return next;
}

/* missed_set() - a record of @ms, with nothing in it */
static struct workingset *missed_set(unsigned unit_shift, uint64_t n_units, unsigned ms)
{
    struct workingset *ws = sets_new(unit_shift, n_units);

    ws->window_ns = ms * NS_PER_MS;
    return ws;
}

static void add_window(struct workingset *ws, uint64_t window)
{
    for (uint64_t page = window * WINDOW; page < (window + 1) * WINDOW; page++)
        sets_add(ws, page, 0, false);
}

/* ---- one generation --------------------------------------------------------------------------------------------- */

static void without_a_record_the_set_stays_what_it_was(void **state)
{
    struct workingset *ws = sets_new(12, PAGES);

    (void)state;
    for (uint64_t page = 0; page < 5000; page++)
        sets_add(ws, (page * 7919) % PAGES, 0, false);
    for (unsigned generation = 0; generation < 2 * HOT_TURNS; generation++)
        ws = next_of(ws, NULL, generation, PAGES);
    assert_int_equal(ws->n, 5000);
    for (uint64_t i = 0; i < ws->n; i++)
        assert_int_equal(ws->entries[i].unit, (i * 7919) % PAGES);
    (void)workingset_free(ws);
    assert_null(next_of(NULL, NULL, 1, PAGES));
}

static void what_was_missed_late_comes_last_and_what_was_missed_early_first(void **state)
{
    struct workingset *missed = missed_set(12, PAGES, 0);
    struct workingset *ws = sets_new(12, PAGES);

    (void)state;
    for (uint64_t page = 0; page < 1000; page++) /* some 8 ms of installing */
        sets_add(ws, page, 0, false);
    sets_add(missed, 2000, 5, false);
    sets_add(missed, 2001, 4, false);
    sets_add(missed, 7, 2, false);
    sets_add(missed, 8, 11, false); /* as good as impossible */
    ws = next_of(ws, missed, 1, PAGES);
    assert_int_equal(ws->n, 1002);
    assert_int_equal(ws->entries[0].unit, 2001);
    assert_int_equal(ws->entries[1].unit, 7);
    assert_int_equal(ws->entries[2].unit, 0);
    assert_int_equal(ws->entries[1001].unit, 2000);
    (void)workingset_free(ws);
    (void)workingset_free(missed);
}

static void what_was_missed_comes_first_and_once(void **state)
{
    struct workingset *missed = missed_set(12, PAGES, 0);
    struct workingset *ws = sets_new(12, PAGES);

    (void)state;
    sets_add(ws, 10, 0, false);
    sets_add(ws, 20, 0, false);
    sets_add(missed, 30, 0, false);
    sets_add(missed, 20, 0, true);
    ws = next_of(ws, missed, 1, PAGES);
    assert_int_equal(ws->n, 3);
    assert_int_equal(ws->entries[0].unit, 30);
    assert_int_equal(ws->entries[1].unit, 20);
    assert_int_equal(ws->entries[2].unit, 10);
    (void)workingset_free(ws);
    ws = next_of(NULL, missed, 1, PAGES);
    assert_int_equal(ws->n, 2);
    (void)workingset_free(ws);
    (void)workingset_free(missed);
}

static void huge_pages_that_were_missed_are_all_of_their_pages(void **state)
{
    struct workingset *missed = missed_set(21, PAGES / 512, 0);
    struct workingset *ws = sets_new(12, PAGES);

    (void)state;
    sets_add(missed, 3, 0, false);
    sets_add(ws, 3ull * 512 + 7, 0, false);
    sets_add(ws, 9, 0, false);
    ws = next_of(ws, missed, 1, PAGES);
    assert_int_equal(ws->unit_shift, 12);
    assert_int_equal(ws->n, 513);
    for (uint64_t i = 0; i < 512; i++)
        assert_int_equal(ws->entries[i].unit, 3ull * 512 + i);
    assert_int_equal(ws->entries[512].unit, 9);
    (void)workingset_free(ws);
    (void)workingset_free(missed);
}

/* ---- many ------------------------------------------------------------------------------------------------------- */

/* forgotten_after() - how many generations a page of a guest that misses nothing stays in the set */
static unsigned forgotten_after(uint64_t page, unsigned unit_shift, unsigned ms)
{
    struct workingset *missed = missed_set(unit_shift, PAGES << 12 >> unit_shift, ms);
    struct workingset *ws = sets_new(12, PAGES);
    unsigned generation = 1;

    sets_add(ws, page, 0, false);
    for (; generation <= 2 * HOT_TURNS; generation++) {
        ws = next_of(ws, missed, generation, PAGES);
        if (ws->n == 0)
            break;
    }
    (void)workingset_free(ws);
    (void)workingset_free(missed);
    return generation;
}

static void what_nobody_misses_is_forgotten_within_sixteen_generations_a_window_at_once(
    void **state)
{
    unsigned n_at[HOT_TURNS + 1] = {0};

    (void)state;
    for (uint64_t window = 0; window < 512; window++) {
        unsigned after = forgotten_after(window * WINDOW, 12, 100);

        assert_true(after <= HOT_TURNS);
        assert_int_equal(forgotten_after(window * WINDOW + WINDOW - 1, 12, 100), after);
        n_at[after]++;
    }
    for (unsigned i = 1; i <= HOT_TURNS; i++)
        assert_in_range(n_at[i], 16, 64); /* 32 if they were even */
}

static void a_guest_of_huge_pages_forgets_them_as_a_whole(void **state)
{
    unsigned after = forgotten_after(5 * 512ull, 21, 100);

    (void)state;
    assert_true(after <= HOT_TURNS);
    for (uint64_t page = 5 * 512ull; page < 6 * 512ull; page += 37)
        assert_int_equal(forgotten_after(page, 21, 100), after);
}

static void a_short_record_makes_nothing_forgotten(void **state)
{
    (void)state;
    assert_true(forgotten_after(100, 12, 99) > 2 * HOT_TURNS);
}

static void over_a_hundred_generations_the_set_follows_the_guest_and_does_not_grow(void **state)
{
    struct rng rng = rng_init("the set follows the guest");
    struct workingset *ws = NULL;
    size_t most = 0;
    size_t missed_again = 0;

    (void)state;
    for (unsigned generation = 1; generation <= 100; generation++) {
        struct workingset *missed = missed_set(12, PAGES, 2000);
        bool has[WINDOWS] = {false};

        for (size_t i = 0; ws && i < ws->n; i++)
            has[ws->entries[i].unit / WINDOW] = true;
        for (uint64_t window = 0; window < 200; window++) { /* each time the same 200 of 4096 */
            missed_again += generation > 1 && !has[window];
            if (!has[window])
                add_window(missed, window);
        }
        for (unsigned i = 0; i < 20; i++) { /* and 20 of the others by chance */
            uint64_t window = 200 + rng_below(&rng, WINDOWS - 200);

            if (!has[window])
                add_window(missed, window); /* all of it, as a pager would */
            has[window] = true;
        }
        ws = next_of(ws, missed, generation, PAGES);
        most = ws->n > most ? ws->n : most;
        (void)workingset_free(missed);
    }
    assert_true(most <= (200 + HOT_TURNS * 20) * WINDOW);
    assert_true(missed_again <= 99 * 200 / HOT_TURNS + 200); /* a sixteenth each time */
    (void)workingset_free(ws);
}

static void a_set_is_at_most_a_quarter_of_memory_and_what_was_missed_stays(void **state)
{
    uint64_t n_pages = 4 * PAGES; /* 1 GiB */
    struct workingset *missed = missed_set(12, n_pages, 0);
    struct workingset *ws = sets_new(12, n_pages);

    (void)state;
    for (uint64_t page = 0; page < n_pages / 8; page++) {
        sets_add(missed, n_pages - 1 - page, 0, false);
        sets_add(ws, page, 0, false);
    }
    for (uint64_t page = n_pages / 8; page < n_pages / 4; page++)
        sets_add(ws, page, 0, false);
    ws = next_of(ws, missed, 1, n_pages);
    assert_int_equal(ws->n, n_pages / 4);
    for (uint64_t i = 0; i < n_pages / 8; i++) {
        assert_int_equal(ws->entries[i].unit, n_pages - 1 - i);
        assert_int_equal(ws->entries[n_pages / 8 + i].unit, i);
    }
    (void)workingset_free(ws);
    (void)workingset_free(missed);
}

static void a_small_guest_may_have_all_of_its_memory_in_the_set(void **state)
{
    uint64_t n_pages = HOT_MIN_BYTES / IMAGE_PAGE;
    struct workingset *missed = missed_set(12, n_pages, 0);
    struct workingset *ws;

    (void)state;
    for (uint64_t page = 0; page < n_pages; page++)
        sets_add(missed, page, 0, false);
    ws = next_of(NULL, missed, 1, n_pages);
    assert_int_equal(ws->n, n_pages);
    (void)workingset_free(ws);
    (void)workingset_free(missed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_record_the_set_stays_what_it_was),
        cmocka_unit_test(what_was_missed_comes_first_and_once),
        cmocka_unit_test(what_was_missed_late_comes_last_and_what_was_missed_early_first),
        cmocka_unit_test(huge_pages_that_were_missed_are_all_of_their_pages),
        cmocka_unit_test(
            what_nobody_misses_is_forgotten_within_sixteen_generations_a_window_at_once),
        cmocka_unit_test(a_guest_of_huge_pages_forgets_them_as_a_whole),
        cmocka_unit_test(a_short_record_makes_nothing_forgotten),
        cmocka_unit_test(over_a_hundred_generations_the_set_follows_the_guest_and_does_not_grow),
        cmocka_unit_test(a_set_is_at_most_a_quarter_of_memory_and_what_was_missed_stays),
        cmocka_unit_test(a_small_guest_may_have_all_of_its_memory_in_the_set),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
