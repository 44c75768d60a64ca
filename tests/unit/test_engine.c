/* SPDX-License-Identifier: Apache-2.0 */
#include "engine_steps.h"

#include "dies.h"

/*
 * What tests/trace/ cannot say well: loops, numbers, limits, and events that have no text form. The rules themselves are
 * one trace file each.
 */

#define ONE_REGION(n_pages_, ...)                                                       \
    {                                                                                   \
        .page_shift = 12, .n_regions = 1, .regions = {{0, (n_pages_), RIG_IMAGE_SAME}}, \
        .config = {                                                                     \
            __VA_ARGS__                                                                 \
        }                                                                               \
    }

static const struct rig_spec plain = ONE_REGION(64, .around_pages = 1, .zero_runs = true);
static const struct rig_spec around = ONE_REGION(64, .around_pages = 16, .zero_runs = true);
static const struct rig_spec tracked = ONE_REGION(64, .around_pages = 1, .track = true);
static const struct rig_spec crowded = ONE_REGION(200, .around_pages = 1, .zero_runs = true);

/* ---- the pause after a refusal ------------------------------------------------------------------------------------ */

static void the_pause_after_a_refusal_doubles_up_to_a_millisecond(void **state)
{
    uint64_t pause = ENGINE_BACKOFF_MIN_NS;
    struct steps s;

    (void)state;
    steps_init(&s, &plain);
    assert_null(discard(&s, 7, 8));
    assert_non_null(fault(&s, 7, false));
    for (unsigned i = 0; i < 12; i++) {
        assert_null(answer(&s, OUTCOME_AGAIN, 0));
        assert_int_equal(engine_deadline_ns(&s.rig.engine), s.now_ns + pause);
        pause = min_u64(pause * 2, ENGINE_BACKOFF_MAX_NS);
        assert_wants(wait_for_tick(&s), EFFECT_ZERO, 7, 7, 8);
    }
    assert_int_equal(pause, ENGINE_BACKOFF_MAX_NS);
    assert_int_equal(counted(&s)->again, 12);
    steps_deinit(&s);
}

static void an_install_that_works_makes_the_pause_short_again(void **state)
{
    struct steps s;

    (void)state;
    steps_init(&s, &plain);
    assert_null(discard(&s, 7, 9));
    for (unsigned round = 0; round < 2; round++) {
        assert_non_null(fault(&s, 7 + round, false));
        assert_null(answer(&s, OUTCOME_AGAIN, 0));
        assert_int_equal(engine_deadline_ns(&s.rig.engine), s.now_ns + ENGINE_BACKOFF_MIN_NS);
        assert_non_null(wait_for_tick(&s));
        assert_null(done(&s));
        assert_null(tick(&s));
    }
    steps_deinit(&s);
}

static void a_thousand_faults_on_a_page_that_is_put_off_cost_one_retry(void **state)
{
    struct steps s;

    (void)state;
    steps_init(&s, &plain);
    assert_null(discard(&s, 7, 8));
    assert_non_null(fault(&s, 7, false));
    assert_null(answer(&s, OUTCOME_AGAIN, 0));
    for (unsigned i = 0; i < 1000; i++)
        assert_null(fault(&s, 7, true));
    assert_int_equal(counted(&s)->deferred, 1000);
    assert_wants(wait_for_tick(&s), EFFECT_ZERO, 7, 7, 8);
    assert_null(done(&s));
    assert_null(tick(&s));
    assert_int_equal(engine_deadline_ns(&s.rig.engine), ENGINE_NEVER);
    steps_deinit(&s);
}

static void while_refused_no_other_page_is_tried_and_one_probe_tells_for_all(void **state)
{
    struct steps s;

    (void)state;
    steps_init(&s, &plain);
    assert_null(discard(&s, 0, 64));
    assert_non_null(fault(&s, 0, false));
    assert_null(answer(&s, OUTCOME_AGAIN, 0));
    for (pgno_t p = 1; p < 50; p++)
        assert_null(fault(&s, p, false));
    assert_wants(wait_for_tick(&s), EFFECT_ZERO, 0, 0, 1);
    assert_null(answer(&s, OUTCOME_AGAIN, 0)); /* one probe, not fifty */
    for (pgno_t p = 0; p < 50; p++) {
        assert_wants(wait_for_tick(&s), EFFECT_ZERO, p, p, p + 1);
        assert_null(done(&s));
    }
    assert_null(tick(&s));
    assert_int_equal(engine_deadline_ns(&s.rig.engine), ENGINE_NEVER);
    steps_deinit(&s);
}

static void a_tick_before_its_time_does_nothing(void **state)
{
    struct steps s;

    (void)state;
    steps_init(&s, &plain);
    assert_null(tick(&s));
    assert_null(discard(&s, 7, 8));
    assert_non_null(fault(&s, 7, false));
    assert_null(answer(&s, OUTCOME_AGAIN, 0));
    s.now_ns = engine_deadline_ns(&s.rig.engine) - 1;
    assert_null(tick(&s));
    s.now_ns++;
    assert_non_null(tick(&s));
    steps_deinit(&s);
}

/* ---- want of memory ----------------------------------------------------------------------------------------------- */

/* next_try() - the next retry; the end of one pass may lie before it */
static const struct effect *next_try(struct steps *s)
{
    const struct effect *fx = wait_for_tick(s);

    return fx ? fx : wait_for_tick(s);
}

/* fail_for() - page @p is tried for @ns, and each time there is no memory. Return: the first effect but the retries' */
static const struct effect *fail_for(struct steps *s, pgno_t p, uint64_t ns)
{
    uint64_t end_ns = s->now_ns + ns;

    while (s->now_ns < end_ns) {
        const struct effect *fx = next_try(s);

        assert_wants(fx, EFFECT_LOCATE, p, p, p + 1);
        assert_wants(located(s, LOCATED_MEMORY, p, p + 1), EFFECT_COPY, p, p, p + 1);
        fx = answer(s, OUTCOME_NOMEM, 0);
        if (fx)
            return fx;
    }
    return NULL;
}

static void begin_shortage(struct steps *s, pgno_t p)
{
    assert_non_null(fault(s, p, false));
    assert_non_null(located(s, LOCATED_MEMORY, p, p + 1));
    assert_null(answer(s, OUTCOME_NOMEM, 0));
}

static void without_memory_for_ten_seconds_the_vm_is_stopped(void **state)
{
    struct steps s;

    (void)state;
    steps_init(&s, &plain);
    begin_shortage(&s, 7);
    assert_null(fail_for(&s, 7, ENGINE_NOMEM_LIMIT_NS - 10 * NS_PER_MS));
    assert_stops(fail_for(&s, 7, 20 * NS_PER_MS), STOP_NOMEM);
    steps_deinit(&s);
}

static void memory_that_comes_back_in_time_makes_good(void **state)
{
    struct steps s;

    (void)state;
    steps_init(&s, &plain);
    begin_shortage(&s, 7);
    assert_null(fail_for(&s, 7, 9 * NS_PER_S));
    assert_non_null(next_try(&s));
    assert_non_null(located(&s, LOCATED_MEMORY, 7, 8));
    assert_null(done(&s));
    assert_null(tick(&s));
    begin_shortage(&s, 8);
    assert_null(fail_for(&s, 8, 9 * NS_PER_S));
    steps_deinit(&s);
}

/* The page that was wanted went away meanwhile; nothing was installed; an hour later there is another short shortage. */
static void a_shortage_long_ago_is_not_held_against_a_new_one(void **state)
{
    struct steps s;

    (void)state;
    steps_init(&s, &plain);
    begin_shortage(&s, 7);
    assert_non_null(wait_for_tick(&s));
    assert_non_null(located(&s, LOCATED_MEMORY, 7, 8));
    assert_wants(answer(&s, OUTCOME_UNMAPPED, 0), EFFECT_WAKE, 7, 7, 8);
    assert_null(done(&s));
    assert_null(tick(&s));
    s.now_ns += 3600 * NS_PER_S;
    begin_shortage(&s, 8);
    assert_null(fail_for(&s, 8, NS_PER_S));
    steps_deinit(&s);
}

/* Zero pages of 4 KiB are the kernel's shared one: that they can be had does not mean that there is memory. */
static void zero_pages_that_cost_nothing_do_not_prolong_a_shortage(void **state)
{
    const struct effect *fx = NULL;
    struct steps s;

    (void)state;
    steps_init(&s, &plain);
    assert_null(discard(&s, 20, 21));
    begin_shortage(&s, 7);
    for (unsigned i = 0; i < 12 && !fx; i++) {
        fx = fail_for(&s, 7, NS_PER_S);
        if (fx)
            break;
        assert_wants(fault(&s, 20, false), EFFECT_ZERO, 20, 20, 21);
        assert_null(done(&s));
    }
    assert_stops(fx, STOP_NOMEM);
    steps_deinit(&s);
}

/* ---- fetches ------------------------------------------------------------------------------------------------------ */

static void a_fault_without_a_place_among_the_fetches_waits_for_one(void **state)
{
    struct steps s;

    (void)state;
    steps_init(&s, &crowded);
    for (pgno_t p = 0; p < 70; p++) {
        assert_wants(fault(&s, p, false), EFFECT_LOCATE, p, p, p + 1);
        if (p < FETCH_TABLE_MAX)
            assert_wants(located(&s, LOCATED_ELSEWHERE, p, p + 1), EFFECT_FETCH, p, p, p + 1);
        else
            assert_null(located(&s, LOCATED_ELSEWHERE, p, p + 1));
    }
    assert_int_equal(engine_deadline_ns(&s.rig.engine), ENGINE_NEVER);
    assert_wants(fetched(&s, 10, 11, true), EFFECT_LOCATE, 10, 10, 11);
    assert_wants(located(&s, LOCATED_MEMORY, 10, 11), EFFECT_COPY, 10, 10, 11);
    assert_null(done(&s));
    assert_wants(wait_for_tick(&s), EFFECT_LOCATE, FETCH_TABLE_MAX, FETCH_TABLE_MAX,
                 FETCH_TABLE_MAX + 1);
    assert_wants(located(&s, LOCATED_ELSEWHERE, FETCH_TABLE_MAX, FETCH_TABLE_MAX + 1), EFFECT_FETCH,
                 FETCH_TABLE_MAX, FETCH_TABLE_MAX, FETCH_TABLE_MAX + 1);
    steps_deinit(&s);
}

static void everybody_who_waited_for_one_fetch_is_answered(void **state)
{
    struct steps s;

    (void)state;
    steps_init(&s, &around);
    assert_wants(fault(&s, 3, false), EFFECT_LOCATE, 3, 0, 16);
    assert_wants(located(&s, LOCATED_ELSEWHERE, 0, 16), EFFECT_FETCH, 3, 0, 16);
    assert_null(fault(&s, 5, false));
    assert_null(fault(&s, 12, true));
    assert_null(fault(&s, 14, false));
    assert_int_equal(counted(&s)->merged, 3);
    assert_null(discard(&s, 12, 13));
    /* 12 is zero without waiting for the fetch */
    assert_wants(wait_for_tick(&s), EFFECT_ZERO, 12, 12, 13);
    assert_null(done(&s));
    assert_null(tick(&s));
    assert_wants(fetched(&s, 0, 16, true), EFFECT_LOCATE, 3, 0, 12);
    assert_wants(located(&s, LOCATED_MEMORY, 0, 12), EFFECT_COPY, 3, 0, 12);
    assert_null(done(&s));
    assert_wants(wait_for_tick(&s), EFFECT_LOCATE, 14, 13, 16);
    assert_wants(located(&s, LOCATED_MEMORY, 13, 16), EFFECT_COPY, 14, 13, 16);
    assert_null(done(&s));
    assert_null(tick(&s));
    for (pgno_t p = 0; p < 16; p++)
        assert_false(waits(&s, p));
    steps_deinit(&s);
}

static void hand_in_a_strange_fetch(void *arg)
{
    (void)fetched(arg, 3, 5, true);
}

static void a_fetch_that_nobody_asked_for_is_our_own_mistake(void **state)
{
    struct steps s;

    (void)state;
    steps_init(&s, &plain);
    assert_non_null(fault(&s, 3, false));
    assert_non_null(located(&s, LOCATED_ELSEWHERE, 3, 4));
    assert_true(dies(hand_in_a_strange_fetch, &s));
    steps_deinit(&s);
}

/* ---- geometry ----------------------------------------------------------------------------------------------------- */

/* The window is aligned in the image, wherever the region begins, and never leaves the region. */
static void windows_are_aligned_in_the_image_and_end_with_the_region(void **state)
{
    static const struct rig_spec spec = {
        .page_shift = 12,
        .n_regions = 2,
        .regions = {{5, 45, 13}, {45, 60, 100}},
        .config = {.around_pages = 16, .zero_runs = true},
    };
    struct steps s;

    (void)state;
    steps_init(&s, &spec);
    /* Region 1 has pages 0..39 at image pages 13..52, region 2 has pages 40..54 at image pages 100..114. */
    for (pgno_t p = 0; p < 55; p++) {
        uint64_t image = p < 40 ? p + 13 : p + 60;
        uint64_t low = align_down(image, 16);
        uint64_t high = low + 16;

        low = p < 40 ? max_u64(low, 13) - 13 : max_u64(low, 100) - 60;
        high = p < 40 ? min_u64(high, 53) - 13 : min_u64(high, 115) - 60;
        assert_wants(fault(&s, p, false), EFFECT_LOCATE, p, low, high);
        rig_restart(&s.rig);
    }
    steps_deinit(&s);
}

static void a_fault_outside_of_every_region_stops_the_vm(void **state)
{
    struct event ev = {.kind = EVENT_FAULT, .time_ns = 1, .fault = {.addr = 4096}};
    struct steps s;

    (void)state;
    steps_init(&s, &plain);
    assert_stops(steps_give(&s, &ev), STOP_STRAY_FAULT);
    ev.kind = EVENT_WP_FAULT;
    ev.fault.addr = RIG_HVA + 64 * 4096;
    assert_stops(steps_give(&s, &ev), STOP_STRAY_FAULT);
    assert_int_equal(counted(&s)->stray, 2);
    steps_deinit(&s);
}

/* A discard may be of anything, even of nothing: only the pages inside of regions are touched, and nothing is asserted. */
static void a_discard_of_any_two_addresses_is_taken(void **state)
{
    static const struct rig_spec spec = {
        .page_shift = 21,
        .n_regions = 3,
        .regions = {{2, 4, 0}, {4, 7, 10}, {9, 12, 20}},
        .config = {.around_pages = 1},
    };
    struct rng r = rng_init("discards");

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        const hva_t base = RIG_HVA;
        struct event ev = {.kind = EVENT_REMOVE};
        struct steps s;

        steps_init(&s, &spec);
        ev.remove.start = base + rng_below(&r, 14) * 2 * MIB + rng_below(&r, 3) * 4096;
        ev.remove.end = base + rng_below(&r, 14) * 2 * MIB + rng_below(&r, 3) * 4096;
        if (rng_below(&r, 20) == 0)
            ev.remove.end = UINT64_MAX - rng_below(&r, 2);
        if (rng_below(&r, 20) == 0)
            ev.remove.start = 0;
        assert_null(steps_give(&s, &ev));
        for (pgno_t p = 0; p < 8; p++) {
            hva_t start = rig_hva(&s.rig, p);
            bool gone = ev.remove.start <= start && start + 2 * MIB <= ev.remove.end;

            assert_int_equal(state_of(&s, p), gone ? PAGE_REMOVED : PAGE_ABSENT);
        }
        steps_deinit(&s);
    }
}

/* ---- beginnings --------------------------------------------------------------------------------------------------- */

static void a_new_engine_wants_nothing(void **state)
{
    struct steps s;

    (void)state;
    steps_init(&s, &plain);
    assert_int_equal(engine_deadline_ns(&s.rig.engine), ENGINE_NEVER);
    assert_null(tick(&s));
    steps_deinit(&s);
}

static void an_engine_that_finds_waiting_faults_answers_all_of_them_at_once(void **state)
{
    struct steps s;
    unsigned n = 0;

    (void)state;
    steps_init(&s, &tracked);
    pagetab_step(&s.rig.block.pages, PAGE_EV_INSTALL, 30, 40);
    for (pgno_t p = 0; p < 30; p += 3)
        bitset_add(&s.rig.block.waiting, p);
    for (pgno_t p = 30; p < 40; p += 3)
        bitset_add(&s.rig.block.waiting_wp, p);
    rig_restart(&s.rig);
    assert_int_equal(engine_deadline_ns(&s.rig.engine), 0);
    for (const struct effect *fx; (fx = tick(&s)) != NULL; n++) {
        if (fx->kind == EFFECT_LOCATE)
            assert_non_null(located(&s, LOCATED_MEMORY, fx->first, fx->end));
        assert_null(done(&s));
    }
    assert_int_equal(n, 14);
    assert_int_equal(engine_deadline_ns(&s.rig.engine), ENGINE_NEVER);
    for (pgno_t p = 0; p < 40; p++)
        assert_false(waits(&s, p));
    steps_deinit(&s);
}

/* serve_faults() - 20,000 faults to their ends. Return: the thread's CPU time, ns */
static uint64_t serve_faults(const struct rig_spec *spec)
{
    struct timespec begin;
    struct timespec end;
    struct steps s;

    steps_init(&s, spec);
    assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin), 0);
    for (unsigned i = 0; i < 20000; i++) {
        struct event ev = {.kind = EVENT_FAULT, .fault = {.addr = RIG_HVA + i % 64 * 4096}};
        struct effect fx[ENGINE_FX_MAX];

        if (engine_step(&s.rig.engine, &ev, fx) == 0)
            continue;
        if (fx[0].kind == EFFECT_LOCATE) {
            ev = (struct event){.kind = EVENT_LOCATED,
                                .located = {.asked = fx[0],
                                            .where = LOCATED_MEMORY,
                                            .first = fx[0].first,
                                            .end = fx[0].end}};
            assert_int_equal(engine_step(&s.rig.engine, &ev, fx), 1);
        }
        ev = (struct event){.kind = EVENT_DONE,
                            .done = {.asked = fx[0], .pages_done = fx[0].end - fx[0].first}};
        assert_int_equal(engine_step(&s.rig.engine, &ev, fx), 0);
    }
    assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end), 0);
    steps_deinit(&s);
    return (uint64_t)(end.tv_sec - begin.tv_sec) * NS_PER_S + (uint64_t)end.tv_nsec -
           (uint64_t)begin.tv_nsec;
}

static void faults_of_a_huge_guest_are_as_cheap_as_those_of_a_small_one(void **state)
{
    static const struct rig_spec huge =
        ONE_REGION(64 * GIB / 4096, .around_pages = 16, .zero_runs = true);
    uint64_t small_ns = UINT64_MAX;
    uint64_t huge_ns = UINT64_MAX;

    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        small_ns = min_u64(small_ns, serve_faults(&around));
        huge_ns = min_u64(huge_ns, serve_faults(&huge));
    }
    print_message("# ns a fault: %llu of 64 pages, %llu of 64 GiB\n",
                  (unsigned long long)small_ns / 20000, (unsigned long long)huge_ns / 20000);
    assert_true(huge_ns < 4 * small_ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pause_after_a_refusal_doubles_up_to_a_millisecond),
        cmocka_unit_test(an_install_that_works_makes_the_pause_short_again),
        cmocka_unit_test(a_thousand_faults_on_a_page_that_is_put_off_cost_one_retry),
        cmocka_unit_test(while_refused_no_other_page_is_tried_and_one_probe_tells_for_all),
        cmocka_unit_test(a_tick_before_its_time_does_nothing),
        cmocka_unit_test(without_memory_for_ten_seconds_the_vm_is_stopped),
        cmocka_unit_test(memory_that_comes_back_in_time_makes_good),
        cmocka_unit_test(a_shortage_long_ago_is_not_held_against_a_new_one),
        cmocka_unit_test(zero_pages_that_cost_nothing_do_not_prolong_a_shortage),
        cmocka_unit_test(a_fault_without_a_place_among_the_fetches_waits_for_one),
        cmocka_unit_test(everybody_who_waited_for_one_fetch_is_answered),
        cmocka_unit_test(a_fetch_that_nobody_asked_for_is_our_own_mistake),
        cmocka_unit_test(windows_are_aligned_in_the_image_and_end_with_the_region),
        cmocka_unit_test(a_fault_outside_of_every_region_stops_the_vm),
        cmocka_unit_test(a_discard_of_any_two_addresses_is_taken),
        cmocka_unit_test(a_new_engine_wants_nothing),
        cmocka_unit_test(an_engine_that_finds_waiting_faults_answers_all_of_them_at_once),
        cmocka_unit_test(faults_of_a_huge_guest_are_as_cheap_as_those_of_a_small_one),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
