/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include "core/fetch_table.h"

static void zeroed_memory_is_an_empty_table(void **state)
{
    struct fetch_table t = {0};
    bool write = true;

    (void)state;
    assert_false(fetch_table_join(&t, 0, false));
    assert_false(fetch_table_drop(&t, 0, 1, &write));
}

static void a_page_is_on_its_way_from_the_first_to_the_last_of_its_run(void **state)
{
    struct fetch_table t = {0};

    (void)state;
    assert_true(fetch_table_add(&t, 4, 8, false));
    assert_false(fetch_table_join(&t, 3, false));
    assert_true(fetch_table_join(&t, 4, false));
    assert_true(fetch_table_join(&t, 7, false));
    assert_false(fetch_table_join(&t, 8, false));
}

static void a_write_that_joins_is_remembered_until_the_end(void **state)
{
    struct fetch_table t = {0};
    bool write = true;

    (void)state;
    assert_true(fetch_table_add(&t, 0, 4, false));
    assert_true(fetch_table_add(&t, 8, 12, false));
    assert_true(fetch_table_join(&t, 9, true));
    assert_true(fetch_table_join(&t, 9, false));
    assert_true(fetch_table_drop(&t, 0, 4, &write));
    assert_false(write);
    assert_true(fetch_table_drop(&t, 8, 12, &write));
    assert_true(write);
}

static void only_the_very_run_is_dropped(void **state)
{
    struct fetch_table t = {0};
    bool write = false;

    (void)state;
    assert_true(fetch_table_add(&t, 4, 8, true));
    assert_false(fetch_table_drop(&t, 4, 7, &write));
    assert_false(fetch_table_drop(&t, 5, 8, &write));
    assert_true(fetch_table_drop(&t, 4, 8, &write));
    assert_false(fetch_table_drop(&t, 4, 8, &write));
}

static void a_full_table_refuses_until_something_is_dropped(void **state)
{
    struct fetch_table t = {0};
    bool write;

    (void)state;
    for (pgno_t p = 0; p < FETCH_TABLE_MAX; p++)
        assert_true(fetch_table_add(&t, p, p + 1, false));
    assert_false(fetch_table_add(&t, 1000, 1001, false));
    assert_false(fetch_table_join(&t, 1000, false));
    assert_true(fetch_table_drop(&t, 17, 18, &write));
    assert_true(fetch_table_add(&t, 1000, 1001, false));
    for (pgno_t p = 0; p < FETCH_TABLE_MAX; p++)
        assert_int_equal(fetch_table_join(&t, p, false), p != 17);
    assert_true(fetch_table_join(&t, 1000, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeroed_memory_is_an_empty_table),
        cmocka_unit_test(a_page_is_on_its_way_from_the_first_to_the_last_of_its_run),
        cmocka_unit_test(a_write_that_joins_is_remembered_until_the_end),
        cmocka_unit_test(only_the_very_run_is_dropped),
        cmocka_unit_test(a_full_table_refuses_until_something_is_dropped),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("fetch_table", tests, NULL, NULL);
}
