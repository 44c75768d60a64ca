/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <signal.h>
#include <string.h>

#include "core/event.h"
#include "schedule.h"
#include "sim.h"

/*
 * Random schedules against the oracle of tests/fuzz/sim.h, for about two seconds. When one fails,
 * THAW_SEED=<its number> begins with it.
 */

#define STRESS_NS (2 * NS_PER_S)

static volatile uint64_t running; /* number of the schedule that runs */

/* An assertion of the engine ends the process: say which schedule it was. */
static void on_abort(int sig)
{
    char text[] = "# an assertion failed: THAW_SEED=00000000000000000000\n";
    char *digit = text + sizeof(text) - 3;

    (void)sig;
    for (uint64_t n = running; n > 0; n /= 10)
        *digit-- = (char)('0' + n % 10);
    if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0)
        return;
}

static void say_what_happened(const struct sim_stats *s)
{
    print_message("# %llu schedules, %llu faults, %llu write-protect faults, %llu removes, "
                  "%llu copies, %llu zeroes, %llu fetches, %llu slices ahead, %llu bursts of them, "
                  "%llu takeovers\n",
                  (unsigned long long)s->schedules, (unsigned long long)s->faults,
                  (unsigned long long)s->wp_faults, (unsigned long long)s->removes,
                  (unsigned long long)s->copies, (unsigned long long)s->zeroes,
                  (unsigned long long)s->fetches, (unsigned long long)s->slices,
                  (unsigned long long)s->bursts, (unsigned long long)s->restarts);
}

static void no_schedule_leads_to_a_wrong_byte_or_a_thread_that_never_goes_on(void **state)
{
    static uint8_t bytes[SCHEDULE_BYTES_MAX];
    uint64_t end_ns = clock_now_ns() + STRESS_NS;
    struct sim_stats stats = {0};

    (void)state;
    (void)signal(SIGABRT, on_abort);
    running = rng_init("schedules").state;
    for (; clock_now_ns() < end_ns; running++) {
        const char *wrong = sim_run(bytes, schedule_fill(running, bytes), &stats);

        if (wrong)
            fail_msg("schedule %llu: %s", (unsigned long long)running, wrong);
    }
    say_what_happened(&stats);
    assert_true(stats.schedules > 10);
}

/* The same schedules each time: they are enough for everything that can happen to happen. */
static void everything_that_can_happen_does_happen(void **state)
{
    static const enum outcome outcomes[] = {OUTCOME_DONE,   OUTCOME_AGAIN,    OUTCOME_EXISTS,
                                            OUTCOME_UNSURE, OUTCOME_UNMAPPED, OUTCOME_NOMEM,
                                            OUTCOME_SOURCE, OUTCOME_GONE};
    static const enum stop_reason stops[] = {STOP_VMM_GONE, STOP_SOURCE, STOP_NOMEM};
    static uint8_t bytes[SCHEDULE_BYTES_MAX];
    struct sim_stats s = {0};

    (void)state;
    for (running = 1; running <= 1000; running++)
        assert_null(sim_run(bytes, schedule_fill(running, bytes), &s));
    for (size_t i = 0; i < ARRAY_LEN(outcomes); i++)
        assert_true(s.outcomes[outcomes[i]] > 0);
    for (size_t i = 0; i < ARRAY_LEN(stops); i++)
        assert_true(s.stops[stops[i]] > 0);
    assert_true(s.faults > 0 && s.wp_faults > 0 && s.removes > 0);
    assert_true(s.copies > 0 && s.zeroes > 0 && s.unprotects > 0 && s.wakes > 0 && s.fetches > 0);
    assert_true(s.slices > 0 && s.bursts > 0);
    assert_true(s.restarts > 0 && s.zapped_again > 0 && s.stale_faults > 0);
}

static void a_schedule_always_gives_the_same_run(void **state)
{
    static uint8_t bytes[SCHEDULE_BYTES_MAX];
    struct sim_stats a = {0};
    struct sim_stats b = {0};

    (void)state;
    for (running = 1; running <= 20; running++) {
        assert_null(sim_run(bytes, schedule_fill(running, bytes), &a));
        assert_null(sim_run(bytes, schedule_fill(running, bytes), &b));
        assert_memory_equal(&a, &b, sizeof(a));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_schedule_always_gives_the_same_run),
        cmocka_unit_test(everything_that_can_happen_does_happen),
        cmocka_unit_test(no_schedule_leads_to_a_wrong_byte_or_a_thread_that_never_goes_on),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("engine_stress", tests, NULL, NULL);
}
