/* SPDX-License-Identifier: Apache-2.0 */
/* test_parallel.c - several threads, each unit of work once */
#include "testing.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/err.h"
#include "base/parallel.h"

#define N_UNITS 1000u

/* struct counted - what happened to each unit */
struct counted {
    _Atomic unsigned times[N_UNITS];
    _Atomic unsigned n_done;
    _Atomic unsigned inside[PARALLEL_THREADS_MAX]; /* a thread's number is nobody else's */
    uint64_t fails_at;                             /* N_UNITS: nowhere */
    unsigned n_ticks;
    unsigned last_tick; /* ends the work; 0: none does */
    bool slow;          /* each unit takes some milliseconds */
};

static int count(void *ctx, unsigned thread, uint64_t unit)
{
    struct counted *c = ctx;

    assert_int_equal(atomic_fetch_add(&c->inside[thread], 1), 0);
    atomic_fetch_add(&c->times[unit], 1);
    atomic_fetch_add(&c->n_done, 1);
    if (c->slow)
        (void)usleep(5000);
    atomic_fetch_sub(&c->inside[thread], 1);
    return unit == c->fails_at ? err_origin(-EIO, "unit %u is bad", (unsigned)unit) : 0;
}

static int tick(void *ctx)
{
    struct counted *c = ctx;

    return ++c->n_ticks == c->last_tick ? err_origin(-EINTR, "enough") : 0;
}

static int run(struct counted *c, unsigned n_threads, uint64_t n_units)
{
    const struct parallel p = {
        .n_threads = n_threads, .n_units = n_units, .work = count, .tick = tick, .ctx = c};

    return parallel_run(&p);
}

static void each_unit_is_done_once_whatever_the_number_of_threads(void **state)
{
    static const unsigned threads[] = {1, 2, 7, PARALLEL_THREADS_MAX};

    (void)state;
    for (size_t t = 0; t < ARRAY_LEN(threads); t++) {
        struct counted c = {.fails_at = N_UNITS};

        assert_int_equal(run(&c, threads[t], N_UNITS), 0);
        for (unsigned i = 0; i < N_UNITS; i++)
            assert_int_equal(c.times[i], 1);
    }
}

static void no_work_is_done_at_once(void **state)
{
    struct counted c = {.fails_at = N_UNITS};

    (void)state;
    assert_int_equal(run(&c, 4, 0), 0);
    assert_int_equal(c.n_done, 0);
}

static void the_first_error_ends_the_work_and_comes_with_its_text(void **state)
{
    struct counted c = {.fails_at = 10};

    (void)state;
    err_clear();
    assert_int_equal(run(&c, 3, N_UNITS), -EIO);
    assert_string_equal(err_text(), "unit 10 is bad");
    for (unsigned i = 0; i <= 10; i++)
        assert_int_equal(c.times[i], 1);
    for (unsigned i = 0; i < N_UNITS; i++)
        assert_true(c.times[i] <= 1);
}

static void an_error_of_a_single_thread_is_the_last_thing_it_does(void **state)
{
    struct counted c = {.fails_at = 10};

    (void)state;
    assert_int_equal(run(&c, 1, N_UNITS), -EIO);
    assert_int_equal(c.n_done, 11);
}

static void who_watches_can_end_it(void **state)
{
    struct counted c = {.fails_at = N_UNITS, .last_tick = 2, .slow = true};

    (void)state;
    assert_int_equal(run(&c, 2, N_UNITS), -EINTR);
    assert_string_equal(err_text(), "enough");
    assert_int_equal(c.n_ticks, 2);
    assert_true(c.n_done < N_UNITS);
}

static void there_is_a_thread_for_at_least_one_processor(void **state)
{
    (void)state;
    assert_in_range(parallel_default_threads(), 1, PARALLEL_THREADS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_unit_is_done_once_whatever_the_number_of_threads),
        cmocka_unit_test(no_work_is_done_at_once),
        cmocka_unit_test(the_first_error_ends_the_work_and_comes_with_its_text),
        cmocka_unit_test(an_error_of_a_single_thread_is_the_last_thing_it_does),
        cmocka_unit_test(who_watches_can_end_it),
        cmocka_unit_test(there_is_a_thread_for_at_least_one_processor),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("parallel", tests, NULL, NULL);
}
