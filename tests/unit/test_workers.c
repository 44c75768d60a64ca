/* SPDX-License-Identifier: Apache-2.0 */
/* test_workers.c - threads that fetch, and the way back */
#include "testing.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/err.h"
#include "pager/workers.h"

#define PAGE 4096ull

/* A source whose fetches wait for a gate, and fail for odd pages */
struct gated {
    int open; /* atomic */
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

    (void)hi;
    while (!__atomic_load_n(&g->open, __ATOMIC_ACQUIRE))
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

    assert_int_equal(source_new(&s, &gated_ops, g, 1024 * PAGE), 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_job_comes_back_once_with_its_own_result),
        cmocka_unit_test(the_pager_thread_never_waits_for_a_slow_read),
        cmocka_unit_test(ending_drops_what_was_not_begun),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
