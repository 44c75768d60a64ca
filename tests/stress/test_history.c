/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_history.c - the judge of the stress program is judged
 *
 * Every rule of history.h from both sides: what must be allowed is, and what must not be is not. At the end a page that
 * is used by simulated threads in any order, with old frames that can be reached until a removal is over: nothing that
 * happens there may be called wrong.
 */
#include "../unit/testing.h"

#include <string.h>

#include "history.h"

#define WORDS 64u
#define CELL  2u

static const struct oracle oracle = {.seed = 5, .dense = true};
static const struct place place = {.oracle = &oracle, .block = 3, .n_words = WORDS};

static struct history h;
static struct view v;
static uint64_t words[WORDS];

static int fresh(void **state)
{
    (void)state;
    history_init(&h);
    return 0;
}

static uint64_t image(uint32_t word)
{
    return oracle_image(&oracle, place.block, word);
}

static void change(enum change_kind kind, struct ticket *t)
{
    assert_true(history_begin(&h, kind, kind == CHANGE_CELL ? CELL : 0, t));
}

static struct ticket change_all(enum change_kind kind)
{
    struct ticket t;

    change(kind, &t);
    history_end(&h, &t);
    return t;
}

/* Would a read that begins now, and that nothing overlaps, be allowed to see this word? */
static bool sees(uint32_t word, uint64_t got)
{
    uint64_t expected;

    history_look(&h, &place, &v);
    history_look_again(&h, &v, false);
    return view_judge_word(&v, word, got, 0, &expected);
}

static void add(void)
{
    struct ticket t;

    history_add_begin(&h, &t);
    history_add_end(&h, &t);
}

/* ---- one rule each -------------------------------------------------------------------------------------------- */

static void an_untouched_page_is_the_image_and_nothing_else(void **state)
{
    (void)state;
    assert_true(sees(0, image(0)) && sees(9, image(9)) &&
                sees(place_cell(&place, CELL), image(place_cell(&place, CELL))));
    assert_false(sees(9, 0));
    assert_false(sees(0, 0));
    assert_false(sees(9, image(10)));
    assert_false(sees(0, image(0) + 1));
}

static void cells_are_words_of_their_own(void **state)
{
    unsigned i, k;

    (void)state;
    for (i = 0; i < N_CELLS; i++) {
        assert_in_range(place_cell(&place, i), 1, WORDS - 1);
        for (k = 0; k < i; k++)
            assert_int_not_equal(place_cell(&place, i), place_cell(&place, k));
    }
}

static void a_removed_page_is_zero_and_never_the_image_again(void **state)
{
    (void)state;
    (void)change_all(CHANGE_REMOVE);
    assert_true(sees(9, 0) && sees(0, 0));
    assert_false(sees(9, image(9)));
    assert_false(sees(0, image(0)));
}

static void a_removal_under_way_allows_both_sides_and_nothing_else(void **state)
{
    struct ticket t;

    (void)state;
    change(CHANGE_REMOVE, &t);
    assert_true(sees(9, 0) && sees(9, image(9)) && sees(0, 0) && sees(0, image(0)));
    assert_false(sees(9, image(10)));
    assert_false(sees(9, image(9) & 0xffffffff));
    history_end(&h, &t);
}

static void the_last_write_is_read_and_not_the_one_before(void **state)
{
    struct ticket one = change_all(CHANGE_FILL), two = change_all(CHANGE_FILL);

    (void)state;
    assert_true(sees(9, place_own(&place, 9, two.id)));
    assert_false(sees(9, place_own(&place, 9, one.id)));
    assert_false(sees(9, image(9)));
    assert_false(sees(9, 0));
}

static void a_write_of_one_word_leaves_the_others(void **state)
{
    uint32_t word = place_cell(&place, CELL);
    struct ticket fill = change_all(CHANGE_FILL), cell = change_all(CHANGE_CELL);

    (void)state;
    assert_true(sees(word, place_own(&place, word, cell.id)));
    assert_false(sees(word, place_own(&place, word, fill.id)));
    assert_true(sees(9, place_own(&place, 9, fill.id)));
    assert_false(sees(9, place_own(&place, 9, cell.id)));
}

static void of_two_writes_that_overlap_either_may_be_last(void **state)
{
    struct ticket one, two;

    (void)state;
    change(CHANGE_FILL, &one);
    change(CHANGE_FILL, &two);
    assert_true(sees(9, image(9)));
    history_end(&h, &one);
    history_end(&h, &two);
    assert_true(sees(9, place_own(&place, 9, one.id)));
    assert_true(sees(9, place_own(&place, 9, two.id)));
    assert_false(sees(9, image(9)));
}

static void what_a_removal_overlaps_may_be_lost_and_makes_nothing_over(void **state)
{
    struct ticket gone, one, two;

    (void)state;
    change(CHANGE_REMOVE, &gone);
    one = change_all(CHANGE_FILL);
    two = change_all(CHANGE_FILL);
    history_end(&h, &gone);
    assert_true(sees(9, 0));
    assert_true(sees(9, place_own(&place, 9, one.id)));
    assert_true(sees(9, place_own(&place, 9, two.id)));
    assert_false(sees(9, image(9)));
    two = change_all(CHANGE_FILL);
    assert_false(sees(9, 0));
    assert_false(sees(9, place_own(&place, 9, one.id)));
    assert_true(sees(9, place_own(&place, 9, two.id)));
}

static void a_read_may_see_what_began_before_it_ended(void **state)
{
    struct ticket t;
    uint64_t expected;

    (void)state;
    history_look(&h, &place, &v);
    t = change_all(CHANGE_FILL);
    (void)change_all(CHANGE_FILL);
    history_look_again(&h, &v, false);
    assert_true(view_judge_word(&v, 9, place_own(&place, 9, t.id), 0, &expected));
    assert_true(view_judge_word(&v, 9, image(9), 0, &expected));
    assert_false(view_judge_word(&v, 9, place_own(&place, 9, t.id + 2), 0, &expected));
    assert_false(view_judge_word(&v, 9, 0, 0, &expected));
}

static void bytes_are_mixed_by_system_calls_only(void **state)
{
    struct ticket t;
    uint64_t mixed;

    (void)state;
    change(CHANGE_SYSCALL, &t);
    mixed = (image(9) & 0xffffff) | (place_own(&place, 9, t.id) & ~0xffffffull);
    assert_true(sees(9, mixed));
    assert_false(sees(9, mixed ^ 0x100));
    history_end(&h, &t);
    assert_false(sees(9, mixed));
    change(CHANGE_FILL, &t);
    mixed =
        (place_own(&place, 9, t.id - 1) & 0xffffff) | (place_own(&place, 9, t.id) & ~0xffffffull);
    assert_false(sees(9, mixed));
    history_end(&h, &t);
}

static void no_addition_is_lost_or_done_twice(void **state)
{
    struct ticket t;

    (void)state;
    add();
    add();
    assert_true(sees(0, image(0) + 2));
    assert_false(sees(0, image(0) + 1));
    assert_false(sees(0, image(0) + 3));
    history_add_begin(&h, &t);
    assert_true(sees(0, image(0) + 2) && sees(0, image(0) + 3));
    assert_false(sees(0, image(0) + 4));
    history_add_end(&h, &t);
    assert_false(sees(0, image(0) + 2));
}

static void additions_begin_at_zero_after_a_removal(void **state)
{
    struct ticket gone, t;

    (void)state;
    add();
    history_add_begin(&h, &t);
    change(CHANGE_REMOVE, &gone);
    add();
    assert_true(sees(0, image(0) + 3) && sees(0, 0) && sees(0, 2));
    assert_false(sees(0, 4));
    history_end(&h, &gone);
    history_add_end(&h, &t);
    assert_true(sees(0, 0) && sees(0, 1) && sees(0, 2));
    assert_false(sees(0, 3)); /* the first one ended before the removal began */
    assert_false(sees(0, image(0) + 1));
    (void)change_all(CHANGE_REMOVE);
    add();
    assert_true(sees(0, 1));
    assert_false(sees(0, 0));
    assert_false(sees(0, 2));
}

static void an_adder_does_not_count_itself(void **state)
{
    struct ticket t;
    uint64_t expected;

    (void)state;
    add();
    history_look(&h, &place, &v);
    history_add_begin(&h, &t);
    history_look_again(&h, &v, false);
    assert_true(view_judge_word(&v, 0, image(0) + 1, 1, &expected));
    assert_false(view_judge_word(&v, 0, image(0) + 2, 1, &expected));
    assert_false(view_judge_word(&v, 0, image(0), 1, &expected));
    history_add_end(&h, &t);
}

/* A quiet page of two writes that overlapped; words below @from are of the first. */
static bool reads_still(const struct ticket *one, const struct ticket *two, uint32_t from)
{
    uint64_t expected;
    uint32_t i, wrong;

    words[0] = image(0);
    for (i = 1; i < WORDS; i++)
        words[i] = place_own(&place, i, i < from ? one->id : two->id);
    history_look(&h, &place, &v);
    history_look_again(&h, &v, false);
    assert_true(view_judge(&v, words, &wrong, &expected));
    return history_still(&h, &v, words);
}

static void a_page_that_nobody_changes_stays_as_it_was_read(void **state)
{
    struct ticket one, two;

    (void)state;
    change(CHANGE_FILL, &one);
    change(CHANGE_FILL, &two);
    history_end(&h, &two);
    history_end(&h, &one);
    assert_true(reads_still(&one, &two, 30));
    assert_true(reads_still(&one, &two, 30));
    assert_false(reads_still(&one, &two, 31));
    add();
    words[0]++;
}

static void a_page_with_too_many_changes_is_left_alone_until_it_is_removed(void **state)
{
    struct ticket t[LIVE_MAX], gone;
    unsigned n = 0, i;

    (void)state;
    while (history_begin(&h, CHANGE_FILL, 0, &t[n]))
        n++;
    assert_int_equal(n, LIVE_MAX_WRITES - 1);
    assert_false(history_begin(&h, CHANGE_CELL, 0, &gone));
    change(CHANGE_REMOVE, &gone);
    for (i = 0; i < n; i++)
        history_end(&h, &t[i]);
    history_end(&h, &gone);
    assert_int_equal(h.n_live, n + 1); /* all weak, but the image is over */
    assert_false(history_begin(&h, CHANGE_CELL, 0, &gone));
    (void)change_all(CHANGE_REMOVE);
    assert_int_equal(h.n_live, 1);
    assert_true(history_begin(&h, CHANGE_CELL, 0, &gone));
}

static void a_read_during_which_too_much_began_is_not_judged(void **state)
{
    uint64_t expected;
    unsigned i;

    (void)state;
    history_look(&h, &place, &v);
    for (i = 0; i <= RECENT_MAX; i++)
        (void)change_all(CHANGE_FILL);
    history_look_again(&h, &v, false);
    assert_true(v.unjudged);
    assert_true(view_judge_word(&v, 9, 12345, 0, &expected));
}

/* ---- a simulated page ----------------------------------------------------------------------------------------- */

#define THREADS 7u

enum job {
    JOB_READ,
    JOB_CHANGE,
    JOB_ADD,
    N_JOBS,
};

/* struct sim_thread - one operation under way, a few words a step */
struct sim_thread {
    enum job job;
    enum change_kind kind;
    uint32_t at; /* the next word; 0: not begun */
    unsigned cell;
    struct ticket ticket;
    struct view view;
    uint64_t read[WORDS];
    uint64_t old[WORDS]; /* removals: the frame that was taken away */
    bool has_old;        /* and can still be reached: its translation is in some cache */
};

static struct sim_thread threads[THREADS];
static uint64_t frame[WORDS];
static unsigned n_quiet;

/* The frame that an access goes to: the page's, or one that some processor can still reach. */
static uint64_t *any_frame(struct rng *r)
{
    struct sim_thread *t = &threads[rng_below(r, THREADS)];

    return t->has_old && rng_below(r, 2) ? t->old : frame;
}

/* A removal flushes the translation caches of everybody, also of what other removals took away and have not flushed. */
static void flush(void)
{
    unsigned i;

    for (i = 0; i < THREADS; i++)
        threads[i].has_old = false;
}

static void step_change(struct sim_thread *t, struct rng *r)
{
    if (t->kind == CHANGE_REMOVE) {
        if (t->at == 1) {
            memcpy(t->old, frame, sizeof(frame));
            memset(frame, 0, sizeof(frame));
            t->has_old = true;
        } else if (t->at > WORDS / 2) {
            flush();
        }
        t->at += 5;
    } else if (t->kind == CHANGE_CELL) {
        any_frame(r)[place_cell(&place, t->cell)] =
            place_own(&place, place_cell(&place, t->cell), t->ticket.id);
        t->at = WORDS;
    } else {
        any_frame(r)[t->at] = place_own(&place, t->at, t->ticket.id);
        t->at++;
    }
    if (t->at < WORDS)
        return;
    history_end(&h, &t->ticket);
    t->at = 0;
}

/* Words that a quiet page cannot hold are found, whatever the page went through. */
static void judge_lies(struct sim_thread *t, struct rng *r)
{
    uint32_t word = 1 + (uint32_t)rng_below(r, WORDS - 1),
             id = (uint32_t)rng_below(r, t->view.next_id + 2);
    uint64_t expected, lie = rng_below(r, 2) ? image(word) : place_own(&place, word, id);
    unsigned i;
    bool possible = false;

    for (i = 0; i < t->view.n_live; i++)
        possible |= t->view.live[i].id == id || t->view.live[i].kind == CHANGE_IMAGE;
    if (lie != t->read[word] && !possible)
        assert_false(view_judge_word(&t->view, word, lie, 0, &expected));
    assert_false(view_judge_word(&t->view, 0, t->read[0] + 1 + t->view.adds.begun, 0, &expected));
    n_quiet++;
}

static void end_read(struct sim_thread *t, struct rng *r)
{
    uint64_t expected = 0;
    uint32_t wrong = 0;

    history_look_again(&h, &t->view, false);
    if (!view_judge(&t->view, t->read, &wrong, &expected))
        fail_msg("word %u: expected %llx, got %llx", wrong, (unsigned long long)expected,
                 (unsigned long long)t->read[wrong]);
    assert_true(history_still(&h, &t->view, t->read));
    if (!t->view.raced && !t->view.adding && !t->view.unjudged)
        judge_lies(t, r);
    t->at = 0;
}

static void end_add(struct sim_thread *t, struct rng *r)
{
    uint64_t *at = any_frame(r), expected;

    t->read[0] = (*at)++;
    history_look_again(&h, &t->view, false);
    history_add_end(&h, &t->ticket);
    assert_true(view_judge_word(&t->view, 0, t->read[0], 1, &expected));
    t->at = 0;
}

static void begin_any(struct sim_thread *t, struct rng *r)
{
    static const enum change_kind kinds[] = {CHANGE_FILL, CHANGE_CELL, CHANGE_CELL, CHANGE_REMOVE};

    t->job = (enum job)rng_below(r, N_JOBS);
    t->at = 1;
    if (t->job == JOB_CHANGE) {
        t->kind = kinds[rng_below(r, ARRAY_LEN(kinds))];
        t->cell = (unsigned)rng_below(r, N_CELLS);
        if (!history_begin(&h, t->kind, t->kind == CHANGE_CELL ? t->cell : 0, &t->ticket))
            t->at = 0;
        return;
    }
    history_look(&h, &place, &t->view);
    if (t->job == JOB_ADD)
        history_add_begin(&h, &t->ticket);
    else
        t->read[0] = *any_frame(r);
}

static void nothing_that_memory_does_is_called_wrong(void **state)
{
    struct rng r = rng_init("nothing_that_memory_does_is_called_wrong");
    unsigned round, i, busy;

    (void)state;
    for (round = 0; round < 300; round++) {
        history_init(&h);
        memset(threads, 0, sizeof(threads));
        for (i = 0; i < WORDS; i++)
            frame[i] = image(i);
        busy = 1 + (unsigned)rng_below(&r, THREADS);
        for (i = 0; i < 6000; i++) {
            struct sim_thread *t = &threads[rng_below(&r, busy)];

            if (t->at == 0)
                begin_any(t, &r);
            else if (t->job == JOB_CHANGE)
                step_change(t, &r);
            else if (t->job == JOB_ADD)
                end_add(t, &r);
            else if (t->at < WORDS)
                t->read[t->at] = any_frame(&r)[t->at], t->at++;
            else
                end_read(t, &r);
        }
    }
    assert_true(n_quiet > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_untouched_page_is_the_image_and_nothing_else, fresh),
        cmocka_unit_test_setup(cells_are_words_of_their_own, fresh),
        cmocka_unit_test_setup(a_removed_page_is_zero_and_never_the_image_again, fresh),
        cmocka_unit_test_setup(a_removal_under_way_allows_both_sides_and_nothing_else, fresh),
        cmocka_unit_test_setup(the_last_write_is_read_and_not_the_one_before, fresh),
        cmocka_unit_test_setup(a_write_of_one_word_leaves_the_others, fresh),
        cmocka_unit_test_setup(of_two_writes_that_overlap_either_may_be_last, fresh),
        cmocka_unit_test_setup(what_a_removal_overlaps_may_be_lost_and_makes_nothing_over, fresh),
        cmocka_unit_test_setup(a_read_may_see_what_began_before_it_ended, fresh),
        cmocka_unit_test_setup(bytes_are_mixed_by_system_calls_only, fresh),
        cmocka_unit_test_setup(no_addition_is_lost_or_done_twice, fresh),
        cmocka_unit_test_setup(additions_begin_at_zero_after_a_removal, fresh),
        cmocka_unit_test_setup(an_adder_does_not_count_itself, fresh),
        cmocka_unit_test_setup(a_page_that_nobody_changes_stays_as_it_was_read, fresh),
        cmocka_unit_test_setup(a_page_with_too_many_changes_is_left_alone_until_it_is_removed,
                               fresh),
        cmocka_unit_test_setup(a_read_during_which_too_much_began_is_not_judged, fresh),
        cmocka_unit_test_setup(nothing_that_memory_does_is_called_wrong, fresh),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
