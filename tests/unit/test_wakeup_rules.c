/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <string.h>

#include "pager/wakeup_rules.h"

#define T0   (1000 * NS_PER_S)
#define YEAR (365ull * 86400 * NS_PER_S)

/* ---- an allowance --------------------------------------------------------------------------------------------- */

static void an_allowance_is_full_at_first_and_fills_at_its_share(void **state)
{
    struct allowance a;

    (void)state;
    allowance_init(&a, 10, NS_PER_S, T0);
    assert_int_equal(allowance_left(&a, T0), NS_PER_S);
    allowance_spend(&a, NS_PER_S, T0);
    assert_int_equal(allowance_left(&a, T0), 0);
    assert_int_equal(allowance_left(&a, T0 + NS_PER_S), NS_PER_S / 10);
    assert_int_equal(allowance_left(&a, T0 + 20 * NS_PER_S), NS_PER_S);
    allowance_spend(&a, 5 * NS_PER_S, T0 + 20 * NS_PER_S);
    assert_int_equal(allowance_left(&a, T0 + 20 * NS_PER_S), 0);
    assert_int_equal(allowance_left(&a, T0 + YEAR), NS_PER_S);
}

static void an_allowance_of_nothing_and_one_without_limit_stay_so(void **state)
{
    struct allowance none;
    struct allowance all;

    (void)state;
    allowance_init(&none, 0, NS_PER_S, T0);
    allowance_init(&all, 100, NS_PER_S, T0);
    assert_int_equal(allowance_left(&none, T0 + YEAR), 0);
    allowance_spend(&all, YEAR, T0);
    assert_int_equal(allowance_left(&all, T0), WAKEUP_NEVER);
}

/* ---- holding the processors awake ----------------------------------------------------------------------------- */

static void a_burst_is_held_through_and_let_go_at_the_end_of_a_quiet_window(void **state)
{
    struct qos_rule q;
    uint64_t now = T0;

    (void)state;
    qos_rule_init(&q, QOS_PERCENT, now);
    for (unsigned i = 1; i < QOS_MESSAGES; i++)
        assert_false(qos_rule_step(&q, 1, now += NS_PER_US));
    assert_int_equal(qos_rule_deadline_ns(&q), WAKEUP_NEVER);
    assert_true(qos_rule_step(&q, 1, now += NS_PER_US));
    for (unsigned i = 0; i < 10 * QOS_MESSAGES; i++)
        assert_true(qos_rule_step(&q, 1, now += QOS_WINDOW_NS / QOS_MESSAGES / 2));
    /* Nothing comes any more: the next look is the last but one. */
    for (unsigned i = 0; q.held; i++) {
        assert_true(i < 2);
        assert_true(qos_rule_deadline_ns(&q) <= now + QOS_WINDOW_NS);
        now = qos_rule_deadline_ns(&q);
        (void)qos_rule_step(&q, 0, now);
    }
    assert_int_equal(qos_rule_deadline_ns(&q), WAKEUP_NEVER);
}

static void a_few_messages_now_and_then_hold_nothing(void **state)
{
    struct qos_rule q;
    uint64_t now = T0;

    (void)state;
    qos_rule_init(&q, 100, now);
    for (unsigned i = 0; i < 10000; i++)
        assert_false(qos_rule_step(&q, 1, now += 2 * QOS_WINDOW_NS / QOS_MESSAGES));
}

static void who_looked_late_lets_go(void **state)
{
    struct qos_rule q;

    (void)state;
    qos_rule_init(&q, 100, T0);
    assert_true(qos_rule_step(&q, QOS_MESSAGES, T0));
    assert_true(qos_rule_step(&q, QOS_MESSAGES, T0 + 1));
    assert_false(qos_rule_step(&q, 0, T0 + 3 * QOS_WINDOW_NS));
}

/* Messages without an end for a minute. Return: for how long it was held */
static uint64_t time_held(unsigned percent)
{
    struct qos_rule q;
    uint64_t held_ns = 0;

    qos_rule_init(&q, percent, T0);
    for (uint64_t t = 0; t < 60 * NS_PER_S; t += NS_PER_MS)
        held_ns += qos_rule_step(&q, QOS_MESSAGES, T0 + t) ? NS_PER_MS : 0;
    return held_ns;
}

static void a_guest_that_always_faults_gets_its_share_only(void **state)
{
    uint64_t share = QOS_AT_ONCE_NS + 60 * NS_PER_S * QOS_PERCENT / 100;

    (void)state;
    assert_in_range(time_held(QOS_PERCENT), share * 8 / 10, share + 2 * QOS_WINDOW_NS);
    assert_in_range(time_held(100), 60 * NS_PER_S - QOS_WINDOW_NS, 60 * NS_PER_S);
}

/* ---- looking without sleeping --------------------------------------------------------------------------------- */

static void nothing_is_looked_for_before_gaps_are_known_to_be_short(void **state)
{
    struct spin_rule s;

    (void)state;
    spin_rule_init(&s, 0, SPIN_PERCENT, T0);
    for (unsigned i = 0; i < SPIN_GAPS / 2; i++) {
        assert_int_equal(spin_rule_ns(&s, T0), 0);
        spin_rule_waited(&s, 5 * NS_PER_US);
    }
    spin_rule_waited(&s, 5 * NS_PER_US);
    assert_int_equal(spin_rule_ns(&s, T0), 10 * NS_PER_US);
}

static void it_is_looked_for_twice_the_usual_gap_but_not_for_long(void **state)
{
    struct spin_rule s;

    (void)state;
    spin_rule_init(&s, 0, SPIN_PERCENT, T0);
    for (unsigned i = 0; i < SPIN_GAPS; i++)
        spin_rule_waited(&s, i == 3 ? NS_PER_S : 40 * NS_PER_US);
    assert_int_equal(spin_rule_ns(&s, T0), SPIN_MAX_NS);
    for (unsigned i = 0; i < SPIN_GAPS; i++)
        spin_rule_waited(&s, SPIN_MAX_NS + 1);
    assert_int_equal(spin_rule_ns(&s, T0), 0);
}

static void looks_in_vain_pause_for_longer_each_time(void **state)
{
    struct spin_rule s;
    unsigned expected = SPIN_PAUSE_MIN;

    (void)state;
    spin_rule_init(&s, 0, 100, T0);
    for (unsigned i = 0; i < SPIN_GAPS; i++)
        spin_rule_waited(&s, 5 * NS_PER_US);
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < SPIN_MISSES; i++) {
            assert_int_equal(spin_rule_ns(&s, T0), 10 * NS_PER_US);
            spin_rule_spent(&s, 10 * NS_PER_US, false, T0);
        }
        for (unsigned i = 0; i < expected; i++)
            assert_int_equal(spin_rule_ns(&s, T0), 0);
        expected = expected * 2 < SPIN_PAUSE_MAX ? expected * 2 : SPIN_PAUSE_MAX;
    }
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(spin_rule_ns(&s, T0), 10 * NS_PER_US);
        spin_rule_spent(&s, 3 * NS_PER_US, true, T0);
    }
    assert_int_equal(s.next_pause, SPIN_PAUSE_MIN);
}

/* A message comes @gap_ns after each wait began, for two seconds. Return: how long was looked in all */
static uint64_t time_looked(uint64_t fixed_ns, unsigned percent, uint64_t gap_ns)
{
    struct spin_rule s;
    uint64_t looked_ns = 0;

    spin_rule_init(&s, fixed_ns, percent, T0);
    for (uint64_t t = 0; t < 2 * NS_PER_S; t += gap_ns) {
        uint64_t look_ns = spin_rule_ns(&s, T0 + t);
        uint64_t spent_ns = min_u64(look_ns, gap_ns);

        if (look_ns > 0)
            spin_rule_spent(&s, spent_ns, spent_ns == gap_ns, T0 + t + spent_ns);
        looked_ns += spent_ns;
        spin_rule_waited(&s, gap_ns);
    }
    return looked_ns;
}

static void no_more_than_a_share_of_a_processor_is_used(void **state)
{
    static const uint64_t gaps_ns[] = {3 * NS_PER_US, 7 * NS_PER_US, 40 * NS_PER_US,
                                       300 * NS_PER_US};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(gaps_ns); i++) {
        for (unsigned percent = 0; percent <= 50; percent += 10) {
            uint64_t most = percent > 0 ? SPIN_AT_ONCE_NS + percent * NS_PER_S / 50 : 0;

            assert_true(time_looked(0, percent, gaps_ns[i]) <= most);
            assert_true(time_looked(NS_PER_MS, percent, gaps_ns[i]) <= most);
        }
    }
    assert_true(time_looked(0, SPIN_PERCENT, 7 * NS_PER_US) >= SPIN_AT_ONCE_NS + NS_PER_S / 10);
    assert_int_equal(time_looked(0, SPIN_PERCENT, 300 * NS_PER_US), 0);
}

/* ---- being where the guest is --------------------------------------------------------------------------------- */

static void the_only_busy_thread_is_followed(void **state)
{
    struct follow_rule f;
    struct thread_time t[] = {{10, 50 * NS_PER_MS}, {11, 0}, {12, 7 * NS_PER_S}};
    uint64_t now = T0;

    (void)state;
    follow_rule_init(&f);
    assert_true(follow_rule_is_due(&f, now));
    assert_int_equal(follow_rule_step(&f, t, 3, now), 0); /* it is not known who ran lately */
    assert_false(follow_rule_is_due(&f, now + 1));
    t[1].run_ns = 2 * NS_PER_MS;
    t[0].run_ns += 100 * NS_PER_US;
    assert_int_equal(follow_rule_step(&f, t, 3, now += FOLLOW_OFTEN_NS), 11);
    t[1].run_ns += 2 * NS_PER_MS;
    t[2].run_ns += 2 * NS_PER_MS;
    assert_int_equal(follow_rule_step(&f, t, 3, now += FOLLOW_OFTEN_NS), 0); /* two */
    assert_int_equal(follow_rule_step(&f, t, 3, now += FOLLOW_OFTEN_NS), 0); /* none */
}

static void a_thread_that_is_new_has_run_since_it_began(void **state)
{
    struct follow_rule f;
    const struct thread_time before[] = {{10, NS_PER_S}};
    const struct thread_time after[] = {{10, NS_PER_S + 5}, {20, 3 * NS_PER_MS}};

    (void)state;
    follow_rule_init(&f);
    (void)follow_rule_step(&f, before, 1, T0);
    assert_int_equal(follow_rule_step(&f, after, 2, T0 + FOLLOW_OFTEN_NS), 20);
}

static void what_was_seen_long_ago_says_nothing(void **state)
{
    struct follow_rule f;
    struct thread_time t[] = {{10, 0}};

    (void)state;
    follow_rule_init(&f);
    (void)follow_rule_step(&f, t, 1, T0);
    t[0].run_ns = NS_PER_S;
    assert_int_equal(follow_rule_step(&f, t, 1, T0 + 10 * NS_PER_S), 0);
    t[0].run_ns += NS_PER_MS;
    assert_int_equal(follow_rule_step(&f, t, 1, T0 + 10 * NS_PER_S + FOLLOW_OFTEN_NS), 10);
}

static void it_is_looked_less_often_while_the_answer_is_the_same(void **state)
{
    struct follow_rule f;
    struct thread_time t[] = {{10, 0}, {11, 0}};
    uint64_t now = T0;

    (void)state;
    follow_rule_init(&f);
    for (unsigned i = 0; i < 10; i++) {
        (void)follow_rule_step(&f, t, 2, now += FOLLOW_OFTEN_NS);
        t[0].run_ns += NS_PER_MS;
    }
    assert_false(follow_rule_is_due(&f, now + FOLLOW_SELDOM_NS - 1));
    assert_true(follow_rule_is_due(&f, now + FOLLOW_SELDOM_NS));
    t[1].run_ns += 10 * NS_PER_MS;
    assert_int_equal(follow_rule_step(&f, t, 2, now += FOLLOW_SELDOM_NS), 11);
    assert_true(follow_rule_is_due(&f, now + FOLLOW_OFTEN_NS));
}

static void threads_that_cannot_be_seen_are_not_followed(void **state)
{
    struct follow_rule f;
    const struct thread_time t[] = {{10, NS_PER_S}};

    (void)state;
    follow_rule_init(&f);
    (void)follow_rule_step(&f, t, 1, T0);
    assert_int_equal(follow_rule_step(&f, NULL, 0, T0 + FOLLOW_OFTEN_NS), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_allowance_is_full_at_first_and_fills_at_its_share),
        cmocka_unit_test(an_allowance_of_nothing_and_one_without_limit_stay_so),
        cmocka_unit_test(a_burst_is_held_through_and_let_go_at_the_end_of_a_quiet_window),
        cmocka_unit_test(a_few_messages_now_and_then_hold_nothing),
        cmocka_unit_test(who_looked_late_lets_go),
        cmocka_unit_test(a_guest_that_always_faults_gets_its_share_only),
        cmocka_unit_test(nothing_is_looked_for_before_gaps_are_known_to_be_short),
        cmocka_unit_test(it_is_looked_for_twice_the_usual_gap_but_not_for_long),
        cmocka_unit_test(looks_in_vain_pause_for_longer_each_time),
        cmocka_unit_test(no_more_than_a_share_of_a_processor_is_used),
        cmocka_unit_test(the_only_busy_thread_is_followed),
        cmocka_unit_test(a_thread_that_is_new_has_run_since_it_began),
        cmocka_unit_test(what_was_seen_long_ago_says_nothing),
        cmocka_unit_test(it_is_looked_less_often_while_the_answer_is_the_same),
        cmocka_unit_test(threads_that_cannot_be_seen_are_not_followed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
