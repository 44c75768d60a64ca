/* SPDX-License-Identifier: Apache-2.0 */
/* test_workingset.c - working sets in memory: growing, becoming one of several, counted */
#include "sets.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "dies.h"

/* ---- growing ---------------------------------------------------------------------------------------------------- */

static void a_set_grows_as_needed_and_not_where_room_was_made(void **state)
{
    struct workingset *ws = sets_new(12, 10000);
    const struct workingset_entry *before;

    (void)state;
    assert_int_equal(workingset_reserve(ws, 5000), 0);
    before = ws->entries;
    for (uint64_t unit = 0; unit < 5000; unit++)
        sets_add(ws, unit, 0, false);
    assert_ptr_equal(ws->entries, before);
    assert_int_equal(ws->room, 5000);
    assert_int_equal(workingset_reserve(ws, 10), 0);
    for (uint64_t unit = 5000; unit < 10000; unit++)
        sets_add(ws, unit, 0, false);
    assert_int_equal(ws->n, 10000);
    for (uint64_t unit = 0; unit < 10000; unit++)
        assert_int_equal(ws->entries[unit].unit, unit);
    ws = workingset_free(ws);
    assert_null(workingset_free(NULL));
}

static void time_classes_double(void **state)
{
    (void)state;
    assert_int_equal(workingset_time_class(0), 0);
    assert_int_equal(workingset_time_class(NS_PER_MS - 1), 0);
    for (unsigned k = 0; k < 44; k++) {
        uint64_t limit_ns = NS_PER_MS << k; /* of class k */

        assert_int_equal(workingset_time_class(limit_ns - 1), k);
        assert_int_equal(workingset_time_class(limit_ns), k + 1);
    }
    assert_true(workingset_time_class(UINT64_MAX) < WORKINGSET_TIME_CLASSES);
}

static void add_beyond(void *arg)
{
    struct workingset_entry e = {.unit = 100};

    (void)workingset_add(arg, &e);
}

static void add_late(void *arg)
{
    struct workingset_entry e = {.unit = 1, .time_class = WORKINGSET_TIME_CLASSES};

    (void)workingset_add(arg, &e);
}

static void new_unaligned(void *arg)
{
    struct workingset *ws;

    (void)arg;
    (void)workingset_new(&ws, 21, 2 * MIB + 4096);
}

static void what_could_not_be_read_again_is_asserted(void **state)
{
    struct workingset *ws = sets_small();

    (void)state;
    assert_true(dies(add_beyond, ws));
    assert_true(dies(add_late, ws));
    assert_true(dies(new_unaligned, NULL));
    ws = workingset_free(ws);
}

/* ---- several become one ----------------------------------------------------------------------------------------- */

/* model_keeps() - is this unit in the merged set? */
static bool model_keeps(struct workingset *const *sets, unsigned n, uint64_t unit, bool all)
{
    unsigned n_have = 0;

    for (unsigned i = 0; i < n; i++)
        n_have += sets_find(sets[i], unit) != NULL;
    return all ? n_have == n : n_have > 0;
}

/* model_merge() - by looking for each unit in each set */
static struct workingset *model_merge(struct workingset *const *sets, unsigned n, bool all)
{
    struct workingset *out = sets_new(12, sets[0]->image_bytes >> 12);

    out->complete = true;
    for (unsigned i = 0; i < n; i++) {
        out->complete = out->complete && sets[i]->complete;
        if (sets[i]->window_ns > out->window_ns)
            out->window_ns = sets[i]->window_ns;
        for (size_t k = 0; k < sets[i]->n; k++) {
            uint64_t unit = sets[i]->entries[k].unit;
            unsigned earliest = WORKINGSET_TIME_CLASSES - 1;
            bool write = false;

            if (sets_find(out, unit) || !model_keeps(sets, n, unit, all))
                continue;
            for (unsigned j = 0; j < n; j++) {
                const struct workingset_entry *e = sets_find(sets[j], unit);

                if (e && e->time_class < earliest)
                    earliest = e->time_class;
                write = write || (e && e->write);
            }
            sets_add(out, unit, earliest, write);
        }
    }
    return out;
}

static void merged_sets_agree_with_a_model_that_looks_at_every_entry(void **state)
{
    struct rng r = rng_init("workingset merge");

    (void)state;
    for (unsigned round = 0; round < 100; round++) {
        struct workingset *sets[5] = {NULL};
        unsigned n = 1 + (unsigned)rng_below(&r, ARRAY_LEN(sets));
        uint64_t n_units = 1 + rng_below(&r, rng_below(&r, 2) ? 30 : 600);

        for (unsigned i = 0; i < n; i++)
            sets[i] = sets_random(&r, 12, n_units, rng_below(&r, 200));
        for (unsigned all = 0; all < 2; all++) {
            struct workingset *expected = model_merge(sets, n, all == 1);
            struct workingset *merged = NULL;

            assert_int_equal(workingset_merge(&merged, (const struct workingset *const *)sets, n,
                                              all ? WORKINGSET_INTERSECTION : WORKINGSET_UNION),
                             0);
            assert_same_set(merged, expected);
            merged = workingset_free(merged);
            expected = workingset_free(expected);
        }
        for (unsigned i = 0; i < n; i++)
            sets[i] = workingset_free(sets[i]);
    }
}

static void sets_of_other_snapshots_or_units_are_not_merged(void **state)
{
    struct workingset *a = sets_new(12, 1024);
    struct workingset *b = sets_new(12, 1025);
    struct workingset *c = sets_new(21, 2);
    const struct workingset *sizes[] = {a, a, b};
    const struct workingset *units[] = {a, c};
    struct workingset *out = NULL;

    (void)state;
    assert_int_equal(workingset_merge(&out, sizes, 3, WORKINGSET_UNION), -EINVAL);
    assert_null(out);
    assert_non_null(strstr(err_text(), "working set 3 "));
    assert_non_null(strstr(err_text(), "4198400 bytes, the first one of 4194304"));
    assert_int_equal(workingset_merge(&out, units, 2, WORKINGSET_INTERSECTION), -EINVAL);
    assert_null(out);
    assert_non_null(strstr(err_text(), "working set 2 "));
    assert_non_null(strstr(err_text(), "2097152 bytes, the first one of 4096"));
    a = workingset_free(a);
    b = workingset_free(b);
    c = workingset_free(c);
}

/* ---- numbers ---------------------------------------------------------------------------------------------------- */

/* model_runs() - the lengths of the runs, shortest first. Return: how many */
static size_t model_runs(const struct workingset *ws, uint64_t n_units, uint64_t *lengths)
{
    size_t n = 0;

    for (uint64_t unit = 0; unit < n_units; unit++) {
        if (!sets_find(ws, unit))
            continue;
        if (unit > 0 && sets_find(ws, unit - 1))
            lengths[n - 1]++;
        else
            lengths[n++] = 1;
    }
    for (size_t i = 1; i < n; i++) {
        for (size_t k = i; k > 0 && lengths[k] < lengths[k - 1]; k--) {
            uint64_t swap = lengths[k];

            lengths[k] = lengths[k - 1];
            lengths[k - 1] = swap;
        }
    }
    return n;
}

static void check_stat(const struct workingset *ws, uint64_t n_units)
{
    struct workingset_stat expected = {.bytes = (uint64_t)ws->n << ws->unit_shift};
    struct workingset_stat s;
    uint64_t lengths[1000];

    for (size_t i = 0; i < ws->n; i++) {
        const struct workingset_entry *e = &ws->entries[i];

        expected.n_writes += e->write;
        expected.by_time_class[e->time_class]++;
        expected.n_ordered += i > 0 && e[-1].unit + 1 == e->unit;
    }
    expected.n_runs = model_runs(ws, n_units, lengths);
    if (ws->n > 0) {
        expected.longest_run = lengths[expected.n_runs - 1];
        expected.median_run = lengths[expected.n_runs / 2];
    }
    assert_int_equal(workingset_stat(ws, &s), 0);
    assert_memory_equal(&s, &expected, sizeof(s));
}

static void numbers_agree_with_a_model_that_looks_at_every_unit(void **state)
{
    struct rng r = rng_init("workingset stat");

    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        uint64_t n_units = 1 + rng_below(&r, 999);
        struct workingset *ws = sets_random(&r, 21, n_units, rng_below(&r, 300));

        check_stat(ws, n_units);
        ws = workingset_free(ws);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_set_grows_as_needed_and_not_where_room_was_made),
        cmocka_unit_test(time_classes_double),
        cmocka_unit_test(what_could_not_be_read_again_is_asserted),
        cmocka_unit_test(merged_sets_agree_with_a_model_that_looks_at_every_entry),
        cmocka_unit_test(sets_of_other_snapshots_or_units_are_not_merged),
        cmocka_unit_test(numbers_agree_with_a_model_that_looks_at_every_unit),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("workingset", tests, NULL, NULL);
}
