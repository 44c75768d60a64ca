/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include "pager/restarts.h"

#define T0 (1000 * NS_PER_S)

static void the_first_successor_starts_at_once(void **state)
{
    struct restarts r;

    (void)state;
    restarts_init(&r, 10 * NS_PER_S);
    restarts_ready(&r);
    assert_int_equal(restarts_deadline_ns(&r), RESTARTS_NEVER);
    assert_int_equal(restarts_died(&r, T0 + 5, false), T0 + 5);
    assert_int_equal(restarts_deadline_ns(&r), T0 + 5 + 10 * NS_PER_S);
}

static void who_dies_before_it_is_ready_is_followed_after_a_pause_that_doubles(void **state)
{
    struct restarts r;
    uint64_t now = T0;

    (void)state;
    restarts_init(&r, 10 * NS_PER_S);
    assert_int_equal(restarts_died(&r, now, false), now);
    for (uint64_t pause = RESTARTS_PAUSE_MIN_NS; pause < RESTARTS_PAUSE_MAX_NS; pause *= 2)
        assert_int_equal(restarts_died(&r, now, false), now + pause);
    assert_int_equal(restarts_died(&r, now, false), now + RESTARTS_PAUSE_MAX_NS);
    assert_int_equal(restarts_died(&r, now, false), now + RESTARTS_PAUSE_MAX_NS);
    restarts_ready(&r);
    assert_int_equal(restarts_died(&r, now, false), now);
}

static void without_a_pager_that_gets_ready_the_vm_is_given_up_in_the_end(void **state)
{
    struct restarts r;
    uint64_t now = T0;
    unsigned n = 0;

    (void)state;
    restarts_init(&r, 2 * NS_PER_S);
    while (now != RESTARTS_NEVER) {
        assert_true(now < T0 + 2 * NS_PER_S);
        now = restarts_died(&r, now, false);
        n++;
    }
    assert_in_range(n, 20, 40);
    assert_int_equal(restarts_deadline_ns(&r), T0 + 2 * NS_PER_S);
}

static void without_grace_there_is_no_successor(void **state)
{
    struct restarts r;

    (void)state;
    restarts_init(&r, 0);
    restarts_ready(&r);
    assert_int_equal(restarts_died(&r, T0 + 1, false), RESTARTS_NEVER);
}

static void being_killed_does_not_count_however_often(void **state)
{
    struct restarts r;

    (void)state;
    restarts_init(&r, 10 * NS_PER_S);
    for (unsigned i = 0; i < 1000; i++) {
        restarts_ready(&r);
        assert_int_equal(restarts_died(&r, T0 + i, false), T0 + i);
    }
}

static void five_crashes_close_to_each_other_are_too_many(void **state)
{
    struct restarts r;

    (void)state;
    restarts_init(&r, 1 * NS_PER_S);
    for (unsigned i = 0; i < 4; i++) {
        restarts_ready(&r);
        assert_int_not_equal(restarts_died(&r, T0 + i * NS_PER_S, true), RESTARTS_NEVER);
    }
    restarts_ready(&r);
    assert_int_equal(restarts_died(&r, T0 + 10 * NS_PER_S, true), RESTARTS_NEVER);
}

static void crashes_far_apart_are_forgotten(void **state)
{
    struct restarts r;

    (void)state;
    restarts_init(&r, 1 * NS_PER_S);
    for (unsigned i = 0; i < 100; i++) {
        restarts_ready(&r);
        assert_int_not_equal(restarts_died(&r, T0 + i * 3 * NS_PER_S, true), RESTARTS_NEVER);
    }
}

static void a_grace_without_end_does_not_overflow(void **state)
{
    struct restarts r;

    (void)state;
    restarts_init(&r, UINT64_MAX);
    assert_int_equal(restarts_died(&r, T0 + 1, false), T0 + 1);
    assert_int_equal(restarts_deadline_ns(&r), RESTARTS_NEVER - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_successor_starts_at_once),
        cmocka_unit_test(who_dies_before_it_is_ready_is_followed_after_a_pause_that_doubles),
        cmocka_unit_test(without_a_pager_that_gets_ready_the_vm_is_given_up_in_the_end),
        cmocka_unit_test(without_grace_there_is_no_successor),
        cmocka_unit_test(being_killed_does_not_count_however_often),
        cmocka_unit_test(five_crashes_close_to_each_other_are_too_many),
        cmocka_unit_test(crashes_far_apart_are_forgotten),
        cmocka_unit_test(a_grace_without_end_does_not_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
