/* SPDX-License-Identifier: Apache-2.0 */
/* test_workers.c - threads that fetch, and the way back */
#include "testing.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/err.h"
#include "pager/workers.h"

#define PAGE  4096ull

#define AHEAD 1000u /* pages from here on are read ahead */

/* A source whose fetches wait for a gate, and fail for odd pages; what is read ahead has a gate of its own */
struct gated {
    int open; /* atomic */
    int ahead_open;
    int n_ahead; /* that have begun */
    int n_fetched;
};

static int gated_locate(void *self, struct thaw_extent *out, uint64_t off, uint64_t lo, uint64_t hi,
                        uint64_t page_bytes)
{
    (void)self;
    (void)off;
    (void)page_bytes;
    *out = (struct thaw_extent){.where = THAW_WHERE_ELSEWHERE, .first = lo, .end = hi};
    return 0;
}

static int gated_fetch(void *self, uint64_t lo, uint64_t hi)
{
    struct gated *g = self;
    bool ahead = lo / PAGE >= AHEAD;

    (void)hi;
    if (ahead)
        __atomic_fetch_add(&g->n_ahead, 1, __ATOMIC_RELAXED);
    while (!__atomic_load_n(ahead ? &g->ahead_open : &g->open, __ATOMIC_ACQUIRE))
        (void)poll(NULL, 0, 1);
    __atomic_fetch_add(&g->n_fetched, 1, __ATOMIC_RELAXED);
    if ((lo / PAGE) % 2 == 1)
        return err_origin(-EIO, "page %llu is odd", (unsigned long long)(lo / PAGE));
    return 0;
}

static const struct thaw_source_ops gated_ops = {
    .name = "gated",
    .locate = gated_locate,
    .fetch = gated_fetch,
};

static struct source *make_source(struct gated *g)
{
    struct source *s;

    assert_int_equal(source_new(&s, &gated_ops, g, 2 * AHEAD * PAGE), 0);
    return s;
}

static void submit(struct workers *w, pgno_t page)
{
    struct fetch_job job = {
        .lo = page * PAGE,
        .hi = (page + 1) * PAGE,
        .first = page,
        .end = page + 1,
        .since_ns = page + 1000,
        .ahead = page >= AHEAD,
    };

    workers_submit(w, &job);
}

static void every_job_comes_back_once_with_its_own_result(void **state)
{
    struct gated g = {.open = 1};
    struct source *s = make_source(&g);
    struct workers *w;
    bool seen[WORKERS_MAX_JOBS] = {0};

    (void)state;
    assert_int_equal(workers_new(&w, s, 3), 0);
    for (unsigned i = 0; i < WORKERS_MAX_JOBS; i++)
        submit(w, i);
    for (unsigned n = 0; n < WORKERS_MAX_JOBS;) {
        struct pollfd pfd = {.fd = workers_fd(w), .events = POLLIN};
        struct fetch_job job;

        assert_int_equal(poll(&pfd, 1, 10000), 1);
        while (workers_take_done(w, &job)) {
            assert_false(seen[job.first]);
            seen[job.first] = true;
            assert_int_equal(job.since_ns, job.first + 1000);
            assert_int_equal(job.result, job.first % 2 == 1 ? -EIO : 0);
            if (job.result < 0)
                assert_non_null(strstr(job.error, "is odd"));
            n++;
        }
    }
    (void)workers_free(w);
    (void)source_free(s);
}

static void the_pager_thread_never_waits_for_a_slow_read(void **state)
{
    struct gated g = {.open = 0};
    struct source *s = make_source(&g);
    struct workers *w;
    struct fetch_job job;

    (void)state;
    assert_int_equal(workers_new(&w, s, 2), 0);
    for (unsigned i = 0; i < WORKERS_MAX_JOBS; i++)
        submit(w, i); /* comes back although nothing moves: the watchdog says so if not */
    assert_false(workers_take_done(w, &job));
    __atomic_store_n(&g.open, 1, __ATOMIC_RELEASE);
    (void)workers_free(w);
    (void)source_free(s);
}

static void ending_drops_what_was_not_begun(void **state)
{
    struct gated g = {.open = 1};
    struct source *s = make_source(&g);
    struct workers *w;

    (void)state;
    assert_int_equal(workers_new(&w, s, 1), 0);
    for (unsigned i = 0; i < 10; i++)
        submit(w, i);
    assert_null(workers_free(w));
    assert_true(g.n_fetched <= 10);
    assert_null(workers_free(NULL));
    (void)source_free(s);
}

/* take() - the next job that is done */
static struct fetch_job take(struct workers *w)
{
    struct pollfd pfd = {.fd = workers_fd(w), .events = POLLIN};
    struct fetch_job job;

    while (!workers_take_done(w, &job))
        assert_int_equal(poll(&pfd, 1, 10000), 1);
    return job;
}

static void wait_for(const int *counter, int n)
{
    while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) < n) /* the watchdog ends it */
        (void)poll(NULL, 0, 1);
}

static void what_somebody_waits_for_is_never_behind_threads_that_all_read_ahead(void **state)
{
    struct gated g = {.open = 1};
    struct source *s = make_source(&g);
    struct workers *w;

    (void)state;
    assert_int_equal(workers_new(&w, s, 3), 0);
    for (unsigned i = 0; i < WORKERS_MAX_AHEAD; i++)
        submit(w, AHEAD + i);
    wait_for(&g.n_ahead, 2);
    for (unsigned i = 0; i < 50; i++) {
        submit(w, i);
        assert_int_equal(take(w).first, i);
    }
    assert_int_equal(__atomic_load_n(&g.n_ahead, __ATOMIC_ACQUIRE), 2);
    __atomic_store_n(&g.ahead_open, 1, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < WORKERS_MAX_AHEAD; i++)
        assert_true(take(w).ahead);
    assert_int_equal(g.n_ahead, WORKERS_MAX_AHEAD);
    (void)workers_free(w);
    (void)source_free(s);
}

static void one_thread_reads_ahead_too_and_what_somebody_waits_for_before_it(void **state)
{
    struct gated g = {.open = 1};
    struct source *s = make_source(&g);
    struct workers *w;

    (void)state;
    assert_int_equal(workers_new(&w, s, 1), 0);
    submit(w, AHEAD);
    wait_for(&g.n_ahead, 1);
    submit(w, AHEAD + 2);
    submit(w, 8);
    submit(w, 10);
    __atomic_store_n(&g.ahead_open, 1, __ATOMIC_RELEASE);
    assert_int_equal(take(w).first, AHEAD);
    assert_int_equal(take(w).first, 8);
    assert_int_equal(take(w).first, 10);
    assert_int_equal(take(w).first, AHEAD + 2);
    (void)workers_free(w);
    (void)source_free(s);
}

static void as_many_jobs_of_both_kinds_as_may_be_under_way_come_back(void **state)
{
    struct gated g = {.open = 0};
    struct source *s = make_source(&g);
    bool seen[AHEAD + WORKERS_MAX_AHEAD] = {0};
    struct workers *w;

    (void)state;
    assert_int_equal(workers_new(&w, s, 4), 0);
    for (unsigned round = 0; round < 20; round++) {
        memset(seen, 0, sizeof(seen));
        for (unsigned i = 0; i < WORKERS_MAX_JOBS; i++)
            submit(w, i);
        for (unsigned i = 0; i < WORKERS_MAX_AHEAD; i++)
            submit(w, AHEAD + i);
        __atomic_store_n(&g.open, 1, __ATOMIC_RELEASE);
        __atomic_store_n(&g.ahead_open, 1, __ATOMIC_RELEASE);
        for (unsigned i = 0; i < WORKERS_MAX_JOBS + WORKERS_MAX_AHEAD; i++) {
            struct fetch_job job = take(w);

            assert_false(seen[job.first]);
            assert_int_equal(job.ahead, job.first >= AHEAD);
            seen[job.first] = true;
        }
    }
    (void)workers_free(w);
    (void)source_free(s);
}

static int other_work(void *ctx)
{
    int *n = ctx;

    return ++*n == 1 ? 0 : err_origin(-ENOSPC, "no room the second time");
}

static void a_job_may_be_something_else_than_a_read(void **state)
{
    struct gated g = {.open = 1};
    struct source *s = make_source(&g);
    struct fetch_job job = {.other = other_work};
    struct workers *w;
    int n = 0;

    (void)state;
    job.ctx = &n;
    assert_int_equal(workers_new(&w, s, 2), 0);
    workers_submit(w, &job);
    assert_int_equal(take(w).result, 0);
    workers_submit(w, &job);
    job = take(w);
    assert_int_equal(job.result, -ENOSPC);
    assert_non_null(strstr(job.error, "no room the second time"));
    assert_int_equal(g.n_fetched, 0);
    (void)workers_free(w);
    (void)source_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_job_comes_back_once_with_its_own_result),
        cmocka_unit_test(the_pager_thread_never_waits_for_a_slow_read),
        cmocka_unit_test(ending_drops_what_was_not_begun),
        cmocka_unit_test(what_somebody_waits_for_is_never_behind_threads_that_all_read_ahead),
        cmocka_unit_test(one_thread_reads_ahead_too_and_what_somebody_waits_for_before_it),
        cmocka_unit_test(as_many_jobs_of_both_kinds_as_may_be_under_way_come_back),
        cmocka_unit_test(a_job_may_be_something_else_than_a_read),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
