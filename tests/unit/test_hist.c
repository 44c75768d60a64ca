/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <string.h>

#include "base/hist.h"

#define LARGEST_RESOLVED ((1ull << 43) - 1)

static void check_near(uint64_t got, uint64_t truth)
{
    uint64_t slack = truth / 16;

    if (got + slack < truth || got > truth + slack)
        fail_msg("quantile %llu, the truth is %llu", (unsigned long long)got,
                 (unsigned long long)truth);
}

static void an_empty_histogram_has_quantiles_of_zero(void **state)
{
    struct hist h = {0};

    (void)state;
    assert_int_equal(hist_quantile(&h, 0), 0);
    assert_int_equal(hist_quantile(&h, 0.5), 0);
    assert_int_equal(hist_quantile(&h, 1), 0);
}

static void values_below_sixteen_are_exact(void **state)
{
    (void)state;
    for (uint64_t v = 0; v < 16; v++) {
        struct hist h = {0};

        hist_add(&h, v);
        assert_int_equal(hist_quantile(&h, 0), v);
        assert_int_equal(hist_quantile(&h, 1), v);
    }
}

static void one_value_is_its_own_quantile_to_a_sixteenth(void **state)
{
    struct rng r = rng_init("hist");

    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        struct hist h = {0};
        uint64_t v = rng_next(&r) >> (21 + rng_below(&r, 43));

        hist_add(&h, v);
        hist_add(&h, LARGEST_RESOLVED); /* so that the maximum does not help */
        check_near(hist_quantile(&h, 0), v);
    }
}

static void the_borders_of_the_buckets_are_seamless(void **state)
{
    (void)state;
    for (unsigned bit = 4; bit < 43; bit++) {
        const uint64_t values[] = {(1ull << bit) - 1, 1ull << bit, (1ull << bit) + 1};

        for (size_t i = 0; i < ARRAY_LEN(values); i++) {
            struct hist h = {0};

            hist_add(&h, values[i]);
            hist_add(&h, LARGEST_RESOLVED);
            check_near(hist_quantile(&h, 0), values[i]);
        }
    }
}

static void quantiles_of_many_values_are_right_to_a_sixteenth(void **state)
{
    static const double qs[] = {0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
    struct rng r = rng_init("hist quantiles");
    uint64_t values[5001];

    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        struct hist h = {0};

        for (size_t i = 0; i < ARRAY_LEN(values); i++) {
            values[i] = rng_next(&r) >> (24 + rng_below(&r, 36));
            hist_add(&h, values[i]);
        }
        qsort(values, ARRAY_LEN(values), sizeof(values[0]), compare_u64);
        for (size_t i = 0; i < ARRAY_LEN(qs); i++)
            check_near(hist_quantile(&h, qs[i]),
                       values[(size_t)(qs[i] * (double)(ARRAY_LEN(values) - 1))]);
    }
}

static void a_higher_quantile_is_never_a_lower_value(void **state)
{
    struct rng r = rng_init("hist order");
    struct hist h = {0};
    uint64_t last = 0;

    (void)state;
    for (unsigned i = 0; i < 1000; i++)
        hist_add(&h, rng_next(&r) >> rng_below(&r, 64));
    for (unsigned i = 0; i <= 1000; i++) {
        uint64_t v = hist_quantile(&h, i / 1000.0);

        assert_true(v >= last);
        last = v;
    }
    assert_true(last <= h.max);
}

static void count_sum_and_maximum_are_exact(void **state)
{
    struct hist h = {0};
    uint64_t in_buckets = 0;

    (void)state;
    for (uint64_t v = 0; v < 100000; v += 7)
        hist_add(&h, v);
    assert_int_equal(h.n, 14286);
    assert_int_equal(h.sum, 7ull * 14285 * 14286 / 2);
    assert_int_equal(h.max, 99995);
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        in_buckets += h.buckets[i];
    assert_int_equal(in_buckets, h.n);
}

static void values_too_large_for_a_bucket_are_counted_in_the_last_one(void **state)
{
    struct hist h = {0};

    (void)state;
    hist_add(&h, UINT64_MAX);
    hist_add(&h, LARGEST_RESOLVED + 1);
    assert_int_equal(h.n, 2);
    assert_int_equal(h.max, UINT64_MAX);
    assert_int_equal(h.buckets[HIST_BUCKETS - 1], 2);
    check_near(hist_quantile(&h, 1), LARGEST_RESOLVED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_histogram_has_quantiles_of_zero),
        cmocka_unit_test(values_below_sixteen_are_exact),
        cmocka_unit_test(one_value_is_its_own_quantile_to_a_sixteenth),
        cmocka_unit_test(the_borders_of_the_buckets_are_seamless),
        cmocka_unit_test(quantiles_of_many_values_are_right_to_a_sixteenth),
        cmocka_unit_test(a_higher_quantile_is_never_a_lower_value),
        cmocka_unit_test(count_sum_and_maximum_are_exact),
        cmocka_unit_test(values_too_large_for_a_bucket_are_counted_in_the_last_one),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("hist", tests, NULL, NULL);
}
