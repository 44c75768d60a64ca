/* SPDX-License-Identifier: Apache-2.0 */
/* test_frame_runs.c - a manifest's runs by their frames */
#include "testing.h"

#include "image/frame_runs.h"

#define N_FRAMES 40u
#define N_RUNS   500u

static void every_run_is_found_in_its_frame_in_the_order_of_memory(void **state)
{
    struct rng rng = rng_init("runs by frame");
    struct manifest_run runs[N_RUNS];
    struct manifest m = {.n_frames = N_FRAMES, .n_runs = N_RUNS, .runs = runs};
    struct frame_runs x;
    uint64_t n_seen = 0;

    (void)state;
    for (unsigned i = 0; i < N_RUNS; i++) /* the last frames have none */
        runs[i] = (struct manifest_run){
            .first = 2 * i, .n = 1, .frame = (uint32_t)rng_below(&rng, N_FRAMES - 3)};
    assert_int_equal(frame_runs_init(&x, &m), 0);
    assert_int_equal(x.first[0], 0);
    assert_int_equal(x.first[N_FRAMES], N_RUNS);
    for (unsigned f = 0; f < N_FRAMES; f++) {
        for (uint64_t i = x.first[f]; i < x.first[f + 1]; i++) {
            assert_int_equal(runs[x.numbers[i]].frame, f);
            assert_true(i == x.first[f] || x.numbers[i] > x.numbers[i - 1]);
            n_seen++;
        }
    }
    assert_int_equal(n_seen, N_RUNS);
    frame_runs_deinit(&x);
    frame_runs_deinit(&x);
}

static void a_manifest_without_frames_has_no_runs(void **state)
{
    struct manifest m = {0};
    struct frame_runs x;

    (void)state;
    assert_int_equal(frame_runs_init(&x, &m), 0);
    assert_int_equal(x.first[0], 0);
    frame_runs_deinit(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_run_is_found_in_its_frame_in_the_order_of_memory),
        cmocka_unit_test(a_manifest_without_frames_has_no_runs),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("frame_runs", tests, NULL, NULL);
}
