/* SPDX-License-Identifier: Apache-2.0 */
#include "engine_steps.h"

/*
 * Every outcome of every kind of effect. A page waits, the engine wants something done, and the kernel says one of eight
 * things: what the engine wants next, whether the page waits on, in which state it is, and when the next try is due.
 */

#define NOTHING -1 /* no effect */

/* enum asks - the effect whose outcome it is */
enum asks {
    ASKS_COPY_RUN,  /* COPY [4,8) for page 5 */
    ASKS_COPY,      /* COPY page 5 */
    ASKS_ZERO_RUN,  /* ZERO [4,8) for page 5, all of them REMOVED */
    ASKS_ZERO,      /* ZERO page 5, REMOVED */
    ASKS_UNPROTECT, /* page 5, CLEAN */
    ASKS_WAKE,      /* page 5, CLEAN, there already */
};

/* enum due - when the next try is due */
enum due {
    DUE_NEVER,
    DUE_BACKOFF,
    DUE_NOMEM,
};

struct row {
    enum asks asks;
    enum outcome outcome;
    uint64_t pages_done;
    int wants; /* enum effect_kind or NOTHING */
    pgno_t first;
    pgno_t end; /* of the effect wanted, 0: any */
    enum stop_reason stop;
    bool waits_on;
    enum page_state state;
    enum due due;
};

/* clang-format off */
static const struct row rows[] = {
    {ASKS_COPY_RUN, OUTCOME_DONE,     4, NOTHING,     0, 0, STOP_NONE, false, PAGE_CLEAN,  DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_AGAIN,    0, NOTHING,     0, 0, STOP_NONE, true,  PAGE_ABSENT, DUE_BACKOFF},
    {ASKS_COPY_RUN, OUTCOME_AGAIN,    1, EFFECT_COPY, 5, 8, STOP_NONE, true,  PAGE_ABSENT, DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_AGAIN,    2, NOTHING,     0, 0, STOP_NONE, false, PAGE_CLEAN,  DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_AGAIN,    3, NOTHING,     0, 0, STOP_NONE, false, PAGE_CLEAN,  DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_EXISTS,   0, EFFECT_COPY, 5, 6, STOP_NONE, true,  PAGE_ABSENT, DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_EXISTS,   1, EFFECT_WAKE, 5, 6, STOP_NONE, true,  PAGE_DIRTY,  DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_EXISTS,   2, NOTHING,     0, 0, STOP_NONE, false, PAGE_CLEAN,  DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_UNSURE,   0, EFFECT_COPY, 5, 6, STOP_NONE, true,  PAGE_ABSENT, DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_UNSURE,   1, EFFECT_WAKE, 5, 6, STOP_NONE, true,  PAGE_ABSENT, DUE_NOMEM},
    {ASKS_COPY_RUN, OUTCOME_UNMAPPED, 0, EFFECT_COPY, 5, 6, STOP_NONE, true,  PAGE_ABSENT, DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_UNMAPPED, 1, EFFECT_COPY, 5, 6, STOP_NONE, true,  PAGE_ABSENT, DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_UNMAPPED, 2, NOTHING,     0, 0, STOP_NONE, false, PAGE_CLEAN,  DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_NOMEM,    0, EFFECT_COPY, 5, 6, STOP_NONE, true,  PAGE_ABSENT, DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_NOMEM,    3, NOTHING,     0, 0, STOP_NONE, false, PAGE_CLEAN,  DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_SOURCE,   0, EFFECT_COPY, 5, 6, STOP_NONE, true,  PAGE_ABSENT, DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_SOURCE,   2, NOTHING,     0, 0, STOP_NONE, false, PAGE_CLEAN,  DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_GONE,     0, EFFECT_STOP, 0, 0, STOP_VMM_GONE, true,  PAGE_ABSENT, DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_GONE,     2, EFFECT_STOP, 0, 0, STOP_VMM_GONE, false, PAGE_CLEAN,  DUE_NEVER},
    {ASKS_COPY_RUN, OUTCOME_REFUSED,  0, EFFECT_COPY, 5, 6, STOP_NONE, true,  PAGE_ABSENT, DUE_NEVER},

    {ASKS_COPY, OUTCOME_DONE,     1, NOTHING,     0, 0, STOP_NONE,     false, PAGE_CLEAN,  DUE_NEVER},
    {ASKS_COPY, OUTCOME_AGAIN,    0, NOTHING,     0, 0, STOP_NONE,     true,  PAGE_ABSENT, DUE_BACKOFF},
    {ASKS_COPY, OUTCOME_EXISTS,   0, EFFECT_WAKE, 5, 6, STOP_NONE,     true,  PAGE_DIRTY,  DUE_NEVER},
    {ASKS_COPY, OUTCOME_UNSURE,   0, EFFECT_WAKE, 5, 6, STOP_NONE,     true,  PAGE_ABSENT, DUE_NOMEM},
    {ASKS_COPY, OUTCOME_UNMAPPED, 0, EFFECT_WAKE, 5, 6, STOP_NONE,     true,  PAGE_ABSENT, DUE_NEVER},
    {ASKS_COPY, OUTCOME_NOMEM,    0, NOTHING,     0, 0, STOP_NONE,     true,  PAGE_ABSENT, DUE_NOMEM},
    {ASKS_COPY, OUTCOME_SOURCE,   0, EFFECT_STOP, 0, 0, STOP_SOURCE,   true,  PAGE_ABSENT, DUE_NEVER},
    {ASKS_COPY, OUTCOME_GONE,     0, EFFECT_STOP, 0, 0, STOP_VMM_GONE, true,  PAGE_ABSENT, DUE_NEVER},
    {ASKS_COPY, OUTCOME_REFUSED,  0, EFFECT_STOP, 0, 0, STOP_REFUSED,  true,  PAGE_ABSENT, DUE_NEVER},

    {ASKS_ZERO_RUN, OUTCOME_DONE,     4, NOTHING,     0, 0, STOP_NONE, false, PAGE_ZERO,    DUE_NEVER},
    {ASKS_ZERO_RUN, OUTCOME_AGAIN,    0, NOTHING,     0, 0, STOP_NONE, true,  PAGE_REMOVED, DUE_BACKOFF},
    {ASKS_ZERO_RUN, OUTCOME_AGAIN,    1, EFFECT_ZERO, 5, 8, STOP_NONE, true,  PAGE_REMOVED, DUE_NEVER},
    {ASKS_ZERO_RUN, OUTCOME_AGAIN,    2, NOTHING,     0, 0, STOP_NONE, false, PAGE_ZERO,    DUE_NEVER},
    {ASKS_ZERO_RUN, OUTCOME_EXISTS,   0, EFFECT_ZERO, 5, 6, STOP_NONE, true,  PAGE_REMOVED, DUE_NEVER},
    {ASKS_ZERO_RUN, OUTCOME_EXISTS,   1, EFFECT_WAKE, 5, 6, STOP_NONE, true,  PAGE_DIRTY,   DUE_NEVER},
    {ASKS_ZERO_RUN, OUTCOME_UNSURE,   0, EFFECT_ZERO, 5, 6, STOP_NONE, true,  PAGE_REMOVED, DUE_NEVER},
    {ASKS_ZERO_RUN, OUTCOME_UNSURE,   1, EFFECT_WAKE, 5, 6, STOP_NONE, true,  PAGE_REMOVED, DUE_NOMEM},
    {ASKS_ZERO_RUN, OUTCOME_UNMAPPED, 0, EFFECT_ZERO, 5, 6, STOP_NONE, true,  PAGE_REMOVED, DUE_NEVER},
    {ASKS_ZERO_RUN, OUTCOME_NOMEM,    0, EFFECT_ZERO, 5, 6, STOP_NONE, true,  PAGE_REMOVED, DUE_NEVER},
    {ASKS_ZERO_RUN, OUTCOME_SOURCE,   0, EFFECT_ZERO, 5, 6, STOP_NONE, true,  PAGE_REMOVED, DUE_NEVER},
    {ASKS_ZERO_RUN, OUTCOME_GONE,     1, EFFECT_STOP, 0, 0, STOP_VMM_GONE, true, PAGE_REMOVED, DUE_NEVER},
    {ASKS_ZERO_RUN, OUTCOME_REFUSED,  0, EFFECT_ZERO, 5, 6, STOP_NONE, true,  PAGE_REMOVED, DUE_NEVER},

    {ASKS_ZERO, OUTCOME_DONE,     1, NOTHING,     0, 0, STOP_NONE,     false, PAGE_ZERO,    DUE_NEVER},
    {ASKS_ZERO, OUTCOME_AGAIN,    0, NOTHING,     0, 0, STOP_NONE,     true,  PAGE_REMOVED, DUE_BACKOFF},
    {ASKS_ZERO, OUTCOME_EXISTS,   0, EFFECT_WAKE, 5, 6, STOP_NONE,     true,  PAGE_DIRTY,   DUE_NEVER},
    {ASKS_ZERO, OUTCOME_UNSURE,   0, EFFECT_WAKE, 5, 6, STOP_NONE,     true,  PAGE_REMOVED, DUE_NOMEM},
    {ASKS_ZERO, OUTCOME_UNMAPPED, 0, EFFECT_WAKE, 5, 6, STOP_NONE,     true,  PAGE_REMOVED, DUE_NEVER},
    {ASKS_ZERO, OUTCOME_NOMEM,    0, NOTHING,     0, 0, STOP_NONE,     true,  PAGE_REMOVED, DUE_NOMEM},
    {ASKS_ZERO, OUTCOME_SOURCE,   0, EFFECT_STOP, 0, 0, STOP_SOURCE,   true,  PAGE_REMOVED, DUE_NEVER},
    {ASKS_ZERO, OUTCOME_GONE,     0, EFFECT_STOP, 0, 0, STOP_VMM_GONE, true,  PAGE_REMOVED, DUE_NEVER},
    {ASKS_ZERO, OUTCOME_REFUSED,  0, EFFECT_STOP, 0, 0, STOP_REFUSED,  true,  PAGE_REMOVED, DUE_NEVER},

    {ASKS_UNPROTECT, OUTCOME_DONE,     1, NOTHING,     0, 0, STOP_NONE,     false, PAGE_DIRTY, DUE_NEVER},
    {ASKS_UNPROTECT, OUTCOME_AGAIN,    0, NOTHING,     0, 0, STOP_NONE,     true,  PAGE_CLEAN, DUE_BACKOFF},
    {ASKS_UNPROTECT, OUTCOME_EXISTS,   0, EFFECT_STOP, 0, 0, STOP_REFUSED,  true,  PAGE_CLEAN, DUE_NEVER},
    {ASKS_UNPROTECT, OUTCOME_UNSURE,   0, EFFECT_STOP, 0, 0, STOP_REFUSED,  true,  PAGE_CLEAN, DUE_NEVER},
    {ASKS_UNPROTECT, OUTCOME_UNMAPPED, 0, EFFECT_WAKE, 5, 6, STOP_NONE,     true,  PAGE_CLEAN, DUE_NEVER},
    {ASKS_UNPROTECT, OUTCOME_NOMEM,    0, NOTHING,     0, 0, STOP_NONE,     true,  PAGE_CLEAN, DUE_NOMEM},
    {ASKS_UNPROTECT, OUTCOME_SOURCE,   0, EFFECT_STOP, 0, 0, STOP_REFUSED,  true,  PAGE_CLEAN, DUE_NEVER},
    {ASKS_UNPROTECT, OUTCOME_GONE,     0, EFFECT_STOP, 0, 0, STOP_VMM_GONE, true,  PAGE_CLEAN, DUE_NEVER},
    {ASKS_UNPROTECT, OUTCOME_REFUSED,  0, EFFECT_STOP, 0, 0, STOP_REFUSED,  true,  PAGE_CLEAN, DUE_NEVER},

    {ASKS_WAKE, OUTCOME_DONE,     1, NOTHING,     0, 0, STOP_NONE,     false, PAGE_CLEAN, DUE_NEVER},
    {ASKS_WAKE, OUTCOME_AGAIN,    0, NOTHING,     0, 0, STOP_NONE,     true,  PAGE_CLEAN, DUE_BACKOFF},
    {ASKS_WAKE, OUTCOME_EXISTS,   0, EFFECT_STOP, 0, 0, STOP_REFUSED,  true,  PAGE_CLEAN, DUE_NEVER},
    {ASKS_WAKE, OUTCOME_UNSURE,   0, EFFECT_STOP, 0, 0, STOP_REFUSED,  true,  PAGE_CLEAN, DUE_NEVER},
    {ASKS_WAKE, OUTCOME_UNMAPPED, 0, NOTHING,     0, 0, STOP_NONE,     false, PAGE_CLEAN, DUE_NEVER},
    {ASKS_WAKE, OUTCOME_NOMEM,    0, NOTHING,     0, 0, STOP_NONE,     true,  PAGE_CLEAN, DUE_NOMEM},
    {ASKS_WAKE, OUTCOME_SOURCE,   0, EFFECT_STOP, 0, 0, STOP_REFUSED,  true,  PAGE_CLEAN, DUE_NEVER},
    {ASKS_WAKE, OUTCOME_GONE,     0, EFFECT_STOP, 0, 0, STOP_VMM_GONE, true,  PAGE_CLEAN, DUE_NEVER},
    {ASKS_WAKE, OUTCOME_REFUSED,  0, EFFECT_STOP, 0, 0, STOP_REFUSED,  true,  PAGE_CLEAN, DUE_NEVER},
};
/* clang-format on */

static void ask_copy(struct steps *s, bool run)
{
    assert_wants(fault(s, 5, false), EFFECT_LOCATE, 5, 4, 8);
    assert_non_null(located(s, LOCATED_MEMORY, run ? 4 : 5, run ? 8 : 6));
}

static void ask_zero(struct steps *s, bool run)
{
    assert_null(discard(s, run ? 4 : 5, run ? 8 : 6));
    assert_wants(fault(s, 5, false), EFFECT_ZERO, 5, run ? 4 : 5, run ? 8 : 6);
}

static void ask_wake(struct steps *s)
{
    assert_non_null(fault(s, 5, false));
    assert_wants(answer(s, OUTCOME_EXISTS, 0), EFFECT_WAKE, 5, 5, 6);
}

static void ask(struct steps *s, enum asks asks)
{
    switch (asks) {
    case ASKS_COPY_RUN:
    case ASKS_COPY:
        ask_copy(s, asks == ASKS_COPY_RUN);
        return;
    case ASKS_ZERO_RUN:
    case ASKS_ZERO:
        ask_zero(s, asks == ASKS_ZERO_RUN);
        return;
    case ASKS_UNPROTECT:
        pagetab_step(&s->rig.block.pages, PAGE_EV_INSTALL, 5, 6);
        assert_wants(wp_fault(s, 5), EFFECT_UNPROTECT, 5, 5, 6);
        return;
    case ASKS_WAKE:
        pagetab_step(&s->rig.block.pages, PAGE_EV_INSTALL, 5, 6);
        ask_wake(s);
        return;
    }
}

static void check_due(const struct steps *s, enum due due)
{
    uint64_t deadline = engine_deadline_ns(&s->rig.engine);

    switch (due) {
    case DUE_NEVER:
        assert_int_equal(deadline, ENGINE_NEVER);
        break;
    case DUE_BACKOFF:
        assert_int_equal(deadline, s->now_ns + ENGINE_BACKOFF_MIN_NS);
        break;
    case DUE_NOMEM:
        assert_int_equal(deadline, s->now_ns + ENGINE_NOMEM_RETRY_NS);
        break;
    }
}

static void check_row(const struct row *row)
{
    static const struct rig_spec spec = {
        .page_shift = 12,
        .n_regions = 1,
        .regions = {{0, 64, RIG_IMAGE_SAME}},
        .config = {.around_pages = 4, .zero_runs = true},
    };
    struct steps s;
    const struct effect *fx;

    print_message("# kind %d, %s, %llu pages done\n", (int)row->asks, outcome_name(row->outcome),
                  (unsigned long long)row->pages_done);
    steps_init(&s, &spec);
    ask(&s, row->asks);
    fx = answer(&s, row->outcome, row->pages_done);
    if (row->wants == NOTHING)
        assert_null(fx);
    else if (row->wants == EFFECT_STOP)
        assert_stops(fx, row->stop);
    else
        assert_wants(fx, (enum effect_kind)row->wants, 5, row->first, row->end);
    assert_int_equal(waits(&s, 5), row->waits_on);
    assert_int_equal(state_of(&s, 5), row->state);
    check_due(&s, row->due);
    steps_deinit(&s);
}

static void every_outcome_of_every_effect_leads_where_the_table_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check_row(&rows[i]);
}

static void every_outcome_of_every_effect_is_in_the_table(void **state)
{
    (void)state;
    for (unsigned asks = ASKS_COPY_RUN; asks <= ASKS_WAKE; asks++) {
        for (unsigned outcome = OUTCOME_DONE; outcome <= OUTCOME_REFUSED; outcome++) {
            bool found = false;

            for (size_t i = 0; i < ARRAY_LEN(rows); i++)
                found = found || (rows[i].asks == asks && rows[i].outcome == outcome);
            assert_true(found);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_outcome_of_every_effect_is_in_the_table),
        cmocka_unit_test(every_outcome_of_every_effect_leads_where_the_table_says),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("engine_outcomes", tests, NULL, NULL);
}
