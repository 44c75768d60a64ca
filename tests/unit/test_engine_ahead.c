/* SPDX-License-Identifier: Apache-2.0 */
#include "engine_steps.h"

/*
 * Slices of a plan that are handed out together, before the first outcome is heard, and every outcome of one. What can be told
 * as a story is in tests/trace/; random schedules of both are in test_engine_stress.c.
 */

static const struct prefetch_run plan[] = {{10, 20}, {40, 42}, {30, 33}};

static const struct rig_spec small = {
    .page_shift = 12,
    .n_regions = 1,
    .regions = {{0, 64, RIG_IMAGE_SAME}},
    .config = {.around_pages = 1, .ahead_pages = 4, .zero_runs = true},
};

static void begin(struct steps *s)
{
    steps_init(s, &small);
    prefetch_init(&s->rig.engine.ahead, plan, ARRAY_LEN(plan));
}

static const struct effect *ahead(struct steps *s, bool many)
{
    struct event ev = {.kind = EVENT_AHEAD, .ahead.many = many};

    return steps_give(s, &ev);
}

/* hand_out() - one of several slices, [first, end), up to its install. Return: the install, to be reported later */
static struct effect hand_out(struct steps *s, pgno_t first, pgno_t end)
{
    const struct effect *fx = ahead(s, true);

    assert_wants(fx, EFFECT_LOCATE, first, first, end);
    assert_true(fx->ahead && fx->many);
    assert_wants(located(s, LOCATED_MEMORY, first, end), EFFECT_COPY, first, first, end);
    assert_true(s->last.ahead && s->last.many && !s->last.write);
    return s->last;
}

static const struct effect *report(struct steps *s, const struct effect *asked,
                                   enum outcome outcome, uint64_t pages_done)
{
    s->last = *asked;
    return answer(s, outcome, pages_done);
}

static void assert_states(const struct steps *s, pgno_t first, pgno_t end, enum page_state state)
{
    for (pgno_t p = first; p < end; p++)
        assert_int_equal(state_of(s, p), state);
}

static void slices_that_are_handed_out_together_follow_one_another(void **state)
{
    struct effect asked[5];
    struct steps s;

    (void)state;
    begin(&s);
    asked[0] = hand_out(&s, 10, 14);
    asked[1] = hand_out(&s, 14, 18);
    asked[2] = hand_out(&s, 18, 20);
    asked[3] = hand_out(&s, 40, 42);
    asked[4] = hand_out(&s, 30, 33);
    assert_null(ahead(&s, true));
    assert_true(prefetch_is_over(&s.rig.engine.ahead));
    assert_states(&s, 0, 64, PAGE_ABSENT);
    for (unsigned i = 0; i < ARRAY_LEN(asked); i++)
        assert_null(report(&s, &asked[i], OUTCOME_DONE, asked[i].end - asked[i].first));
    assert_states(&s, 10, 20, PAGE_CLEAN);
    assert_states(&s, 40, 42, PAGE_CLEAN);
    assert_states(&s, 30, 33, PAGE_CLEAN);
    assert_int_equal(counted(&s)->pages_ahead, 15);
    assert_int_equal(counted(&s)->ahead_left, 0);
    steps_deinit(&s);
}

static void one_that_is_refused_does_not_undo_the_others(void **state)
{
    struct effect asked[3];
    struct steps s;

    (void)state;
    begin(&s);
    asked[0] = hand_out(&s, 10, 14);
    asked[1] = hand_out(&s, 14, 18);
    asked[2] = hand_out(&s, 18, 20);
    assert_null(report(&s, &asked[0], OUTCOME_AGAIN, 0));
    assert_null(report(&s, &asked[1], OUTCOME_DONE, 4));
    assert_null(report(&s, &asked[2], OUTCOME_AGAIN, 1));
    assert_states(&s, 10, 14, PAGE_ABSENT);
    assert_states(&s, 14, 19, PAGE_CLEAN);
    assert_states(&s, 19, 20, PAGE_ABSENT);
    assert_null(ahead(&s, true)); /* refused: not before the timer */
    assert_null(wait_for_tick(&s));
    (void)hand_out(&s, 40, 42); /* the walk has passed what was handed out */
    prefetch_init(&s.rig.engine.ahead, plan, ARRAY_LEN(plan));
    (void)hand_out(&s, 10, 14); /* the next walk finds it */
    (void)hand_out(&s, 19, 20);
    steps_deinit(&s);
}

static void what_is_there_and_what_fails_among_many_is_told_apart(void **state)
{
    struct effect asked[4];
    struct steps s;

    (void)state;
    begin(&s);
    assert_wants(fault(&s, 12, false), EFFECT_LOCATE, 12, 12, 13);
    assert_non_null(located(&s, LOCATED_ELSEWHERE, 12, 13));
    asked[0] = hand_out(&s, 10, 14);
    asked[1] = hand_out(&s, 14, 18);
    asked[2] = hand_out(&s, 18, 20);
    asked[3] = hand_out(&s, 40, 42);
    assert_wants(report(&s, &asked[0], OUTCOME_EXISTS, 2), EFFECT_WAKE, 12, 12, 13);
    assert_null(done(&s));
    assert_null(report(&s, &asked[1], OUTCOME_NOMEM, 1));
    assert_null(report(&s, &asked[2], OUTCOME_EXISTS, 0)); /* nobody waits there */
    assert_null(report(&s, &asked[3], OUTCOME_SOURCE, 0));
    assert_false(waits(&s, 12));
    assert_int_equal(state_of(&s, 11), PAGE_CLEAN);
    assert_int_equal(state_of(&s, 12), PAGE_DIRTY);
    assert_int_equal(state_of(&s, 13), PAGE_ABSENT);
    assert_int_equal(state_of(&s, 14), PAGE_CLEAN);
    assert_int_equal(state_of(&s, 18), PAGE_DIRTY);
    assert_int_equal(counted(&s)->ahead_left, 3 + 2);
    assert_int_equal(counted(&s)->nomem, 0);
    assert_int_equal(s.rig.engine.ahead.n_passed, 12);
    steps_deinit(&s);
}

static void a_slice_that_must_be_read_first_is_not_passed(void **state)
{
    struct steps s;

    (void)state;
    begin(&s);
    (void)hand_out(&s, 10, 14);
    assert_wants(ahead(&s, true), EFFECT_LOCATE, 14, 14, 18);
    assert_wants(located(&s, LOCATED_ELSEWHERE, 14, 17), EFFECT_FETCH, 14, 14, 17);
    assert_int_equal(s.rig.engine.ahead.n_passed, 4);
    assert_wants(ahead(&s, true), EFFECT_LOCATE, 14, 14, 18);
    assert_null(located(&s, LOCATED_FAILED, 14, 15));
    assert_int_equal(s.rig.engine.ahead.n_passed, 8);
    assert_int_equal(counted(&s)->ahead_left, 4);
    assert_int_equal(counted(&s)->fetches, 0);
    steps_deinit(&s);
}

/* struct row - an outcome of COPY [10, 14), a slice of its own: what the next slice is, and what has become of the pages */
struct row {
    enum outcome outcome;
    uint64_t pages_done;
    bool stops;
    pgno_t next;          /* first page of the next slice; 0: none before the timer */
    enum page_state then; /* of the first page that was not installed */
    uint64_t left;
};

/* clang-format off */
static const struct row rows[] = {
    {OUTCOME_DONE,     4, false, 14, PAGE_ABSENT, 0}, {OUTCOME_AGAIN,    0, false, 0,  PAGE_ABSENT, 0},
    {OUTCOME_AGAIN,    3, false, 13, PAGE_ABSENT, 0}, {OUTCOME_EXISTS,   0, false, 11, PAGE_DIRTY,  0},
    {OUTCOME_EXISTS,   3, false, 14, PAGE_DIRTY,  0}, {OUTCOME_UNSURE,   0, false, 14, PAGE_ABSENT, 4},
    {OUTCOME_UNSURE,   1, false, 14, PAGE_ABSENT, 3}, {OUTCOME_UNMAPPED, 0, false, 14, PAGE_ABSENT, 4},
    {OUTCOME_UNMAPPED, 2, false, 14, PAGE_ABSENT, 2}, {OUTCOME_NOMEM,    0, false, 14, PAGE_ABSENT, 4},
    {OUTCOME_NOMEM,    3, false, 14, PAGE_ABSENT, 1}, {OUTCOME_SOURCE,   0, false, 14, PAGE_ABSENT, 4},
    {OUTCOME_SOURCE,   1, false, 14, PAGE_ABSENT, 3}, {OUTCOME_GONE,     0, true,  0,  PAGE_ABSENT, 0},
    {OUTCOME_GONE,     2, true,  0,  PAGE_ABSENT, 0}, {OUTCOME_REFUSED,  0, false, 14, PAGE_ABSENT, 4},
    {OUTCOME_REFUSED,  2, false, 14, PAGE_ABSENT, 2},
};
/* clang-format on */

static void check_row(const struct row *row)
{
    pgno_t next = 10 + row->pages_done;
    const struct effect *fx;
    struct steps s;

    print_message("# %s after %llu pages\n", outcome_name(row->outcome),
                  (unsigned long long)row->pages_done);
    begin(&s);
    assert_non_null(ahead(&s, false));
    assert_wants(located(&s, LOCATED_MEMORY, 10, 14), EFFECT_COPY, 10, 10, 14);
    fx = answer(&s, row->outcome, row->pages_done);
    assert_states(&s, 10, next, PAGE_CLEAN);
    if (next < 14)
        assert_int_equal(state_of(&s, next), row->then);
    assert_int_equal(counted(&s)->pages_ahead, row->pages_done);
    assert_int_equal(counted(&s)->ahead_left, row->left);
    assert_int_equal(engine_deadline_ns(&s.rig.engine) != ENGINE_NEVER,
                     row->outcome == OUTCOME_AGAIN && row->pages_done == 0);
    if (row->stops) {
        assert_stops(fx, STOP_VMM_GONE);
    } else {
        assert_null(fx);
        fx = ahead(&s, false);
        if (row->next == 0)
            assert_null(fx);
        else
            assert_int_equal(fx->first, row->next);
    }
    steps_deinit(&s);
}

static void every_outcome_of_a_slice_leads_where_the_table_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check_row(&rows[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_that_are_handed_out_together_follow_one_another),
        cmocka_unit_test(one_that_is_refused_does_not_undo_the_others),
        cmocka_unit_test(what_is_there_and_what_fails_among_many_is_told_apart),
        cmocka_unit_test(a_slice_that_must_be_read_first_is_not_passed),
        cmocka_unit_test(every_outcome_of_a_slice_leads_where_the_table_says),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("engine_ahead", tests, NULL, NULL);
}
