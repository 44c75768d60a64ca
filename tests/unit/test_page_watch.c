/* SPDX-License-Identifier: Apache-2.0 */
/* test_page_watch.c - a source that does not stand still is noticed, whatever changes and whenever */
#include "testing.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "image/page_watch.h"

#define N_PAGES 150u
#define FAR     130u /* a page that is not read in one piece with the first ones */

/* What is below: a memory that the tests change */
static uint8_t below_kinds[N_PAGES];
static uint8_t below_bytes[N_PAGES][IMAGE_PAGE];
static int below_error; /* what everything fails with; 0: it works */
static unsigned n_reads;
static bool stop; /* the watcher ends the work */

static int answer(void)
{
    return below_error < 0 ? err_origin(below_error, "it is gone") : 0;
}

static int look(void *ctx, uint8_t *kinds)
{
    (void)ctx;
    memcpy(kinds, below_kinds, sizeof(below_kinds));
    return answer();
}

static int read_pages(void *ctx, void *buf, size_t len, uint64_t off)
{
    (void)ctx;
    n_reads += (unsigned)(len / IMAGE_PAGE);
    memcpy(buf, (const char *)below_bytes + off, len);
    return answer();
}

static int read_parent(void *ctx, void *page, uint64_t number)
{
    (void)ctx;
    memset(page, (int)(number + 1), IMAGE_PAGE);
    return answer();
}

static int check(void *ctx)
{
    (void)ctx;
    return answer();
}

static int watch_work(void *ctx, const char *what, uint64_t done, uint64_t all)
{
    (void)ctx;
    assert_string_equal(what, "checking");
    assert_true(done <= all);
    return stop ? err_origin(-EINTR, "stopped") : 0;
}

static const struct page_source below = {
    .name = "it",
    .bytes = N_PAGES * IMAGE_PAGE,
    .created_s = 17,
    .look = look,
    .read = read_pages,
    .check = check,
    .read_parent = read_parent,
};
static const struct image_job job = {.n_threads = 1, .watch = watch_work};

static struct page_watch watch;
static struct page_source src;
static char buf[N_PAGES * IMAGE_PAGE];

/* begin() - some pages are data, and these have been read: 3 to 9, and FAR */
static int begin(void **state)
{
    uint8_t kinds[N_PAGES] = {0};

    (void)state;
    memset(below_kinds, KIND_PARENT, sizeof(below_kinds));
    memset(below_kinds + 3, KIND_DATA, 7);
    below_kinds[FAR] = KIND_DATA;
    memset(below_bytes, 0, sizeof(below_bytes));
    below_bytes[5][77] = 1;
    below_error = 0;
    stop = false;
    if (page_watch_init(&watch, &below, &job) < 0)
        return -1;
    src = page_watch_source(&watch);
    if (src.look(src.ctx, kinds) < 0 || memcmp(kinds, below_kinds, N_PAGES) != 0)
        return -1;
    n_reads = 0;
    if (src.read(src.ctx, buf, 7 * IMAGE_PAGE, 3 * IMAGE_PAGE) < 0)
        return -1;
    return src.read(src.ctx, buf, IMAGE_PAGE, FAR * IMAGE_PAGE);
}

static int end(void **state)
{
    (void)state;
    page_watch_deinit(&watch);
    page_watch_deinit(&watch);
    return 0;
}

static void what_stands_still_is_right_and_all_that_was_read_is_read_again(void **state)
{
    (void)state;
    assert_int_equal(n_reads, 8);
    assert_int_equal(src.read(src.ctx, buf, 2 * IMAGE_PAGE, 5 * IMAGE_PAGE), 0);
    assert_int_equal(buf[77], 1);
    assert_int_equal(src.check(src.ctx), 0);
    assert_int_equal(n_reads, 8 + 2 + 8);
    assert_int_equal(src.created_s, 17);
    assert_string_equal(src.name, "it");
}

static void a_page_that_is_other_when_it_is_stored_is_noticed(void **state)
{
    (void)state;
    below_bytes[6][4095] ^= 1;
    assert_int_equal(src.read(src.ctx, buf, 2 * IMAGE_PAGE, 5 * IMAGE_PAGE), -ESTALE);
    assert_non_null(strstr(err_text(), "it changed at offset 24576 "));
}

static void a_page_that_is_other_in_the_end_is_noticed(void **state)
{
    static const unsigned pages[] = {3, 9, FAR};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(pages); i++) {
        below_bytes[pages[i]][0] ^= 1;
        assert_int_equal(src.check(src.ctx), -ESTALE);
        below_bytes[pages[i]][0] ^= 1;
        assert_int_equal(src.check(src.ctx), 0);
    }
}

static void a_page_of_which_something_else_is_known_in_the_end_is_noticed(void **state)
{
    static const unsigned pages[] = {0, 5, N_PAGES - 1};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(pages); i++) {
        uint8_t before = below_kinds[pages[i]];

        below_kinds[pages[i]] = KIND_HOLE;
        assert_int_equal(src.check(src.ctx), -ESTALE);
        assert_non_null(strstr(err_text(), "it changed at offset "));
        below_kinds[pages[i]] = before;
    }
    assert_int_equal(src.check(src.ctx), 0);
}

/* then() - @ctx: the page that it changes; NULL: none */
static unsigned n_thens;

static int then(void *ctx)
{
    n_thens++;
    assert_int_equal(n_reads, 8); /* nothing was read again yet */
    if (ctx)
        *(char *)ctx ^= 1;
    return stop ? err_origin(-EIO, "it could not be done") : 0;
}

static void what_is_done_between_the_readings_may_change_nothing(void **state)
{
    (void)state;
    n_thens = 0;
    watch.then = then;
    assert_int_equal(src.check(src.ctx), 0);
    assert_int_equal(n_thens, 1);
    n_reads = 8;
    watch.then_ctx = &below_bytes[FAR][100];
    assert_int_equal(src.check(src.ctx), -ESTALE);
    n_reads = 8;
    stop = true;
    assert_int_equal(src.check(src.ctx), -EIO);
    assert_string_equal(err_text(), "it could not be done");
    assert_int_equal(n_reads, 8);
}

static void a_page_that_somebody_has_read_meanwhile_is_as_it_was(void **state)
{
    (void)state;
    below_kinds[12] = KIND_DATA;
    memset(below_bytes[12], 13, IMAGE_PAGE);
    assert_int_equal(src.check(src.ctx), 0);
    below_bytes[12][4000] = 1;
    assert_int_equal(src.check(src.ctx), -ESTALE);
    memset(below_bytes[12], 0, IMAGE_PAGE); /* it was the parent's, and is zero */
    assert_int_equal(src.check(src.ctx), -ESTALE);
    watch.kinds[12] = KIND_HOLE;
    assert_int_equal(src.check(src.ctx), 0);
    below_bytes[12][0] = 1;
    assert_int_equal(src.check(src.ctx), -ESTALE);
}

static void an_error_from_below_is_passed_on(void **state)
{
    (void)state;
    below_error = -ESRCH;
    assert_int_equal(src.check(src.ctx), -ESRCH);
    assert_int_equal(src.read(src.ctx, buf, IMAGE_PAGE, 0), -ESRCH);
    assert_string_equal(err_text(), "it is gone");
}

static void the_last_reading_can_be_stopped(void **state)
{
    (void)state;
    stop = true;
    assert_int_equal(src.check(src.ctx), -EINTR);
}

#define WATCH_TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WATCH_TEST(what_stands_still_is_right_and_all_that_was_read_is_read_again),
        WATCH_TEST(a_page_that_is_other_when_it_is_stored_is_noticed),
        WATCH_TEST(a_page_that_is_other_in_the_end_is_noticed),
        WATCH_TEST(a_page_of_which_something_else_is_known_in_the_end_is_noticed),
        WATCH_TEST(what_is_done_between_the_readings_may_change_nothing),
        WATCH_TEST(a_page_that_somebody_has_read_meanwhile_is_as_it_was),
        WATCH_TEST(an_error_from_below_is_passed_on),
        WATCH_TEST(the_last_reading_can_be_stopped),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("page_watch", tests, NULL, NULL);
}
