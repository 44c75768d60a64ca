/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include <thaw/error.h>

#include "base/err.h"

static void an_error_returns_the_number_that_it_was_given(void **state)
{
    (void)state;
    assert_int_equal(err_origin(-EINVAL, "no"), -EINVAL);
    assert_int_equal(err_origin_errno(-ENOENT, "no"), -ENOENT);
}

static void the_sentence_is_what_was_said_last(void **state)
{
    (void)state;
    (void)err_origin(-EINVAL, "first %d", 1);
    (void)err_origin(-EINVAL, "region %u is %s", 7u, "odd");
    assert_string_equal(err_text(), "region 7 is odd");
    assert_string_equal(thaw_last_error(), err_text());
}

static void the_errno_is_spelt_out_where_it_is_asked_for(void **state)
{
    (void)state;
    (void)err_origin_errno(-ENOENT, "cannot open %s", "f");
    assert_string_equal(err_text(), "cannot open f: No such file or directory");
}

static void an_errno_without_a_name_still_makes_a_sentence(void **state)
{
    (void)state;
    (void)err_origin_errno(-9999, "odd");
    assert_non_null(strstr(err_text(), "odd: "));
    assert_non_null(strstr(err_text(), "9999"));
}

static void a_sentence_may_quote_the_one_before(void **state)
{
    (void)state;
    (void)err_origin(-EIO, "the disk is gone");
    (void)err_origin(-EIO, "cannot serve: %s", err_text());
    assert_string_equal(err_text(), "cannot serve: the disk is gone");
}

static void a_sentence_that_is_too_long_is_cut(void **state)
{
    char name[2000];

    (void)state;
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    (void)err_origin_errno(-ENOENT, "%s", name);
    assert_true(strlen(err_text()) > 400);
    assert_true(strlen(err_text()) < 600);
}

static void a_sentence_is_one_line_whatever_a_peer_puts_into_it(void **state)
{
    (void)state;
    (void)err_origin(-EINVAL, "file %s", "a\nlevel=info msg=\"all is well\"\x1b[2J\x7f");
    for (const char *c = err_text(); *c != '\0'; c++)
        assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
}

static void *fail_elsewhere(void *arg)
{
    (void)err_origin(-EIO, "elsewhere");
    return strcmp(err_text(), "elsewhere") == 0 ? arg : NULL;
}

static void each_thread_has_its_own_sentence(void **state)
{
    pthread_t thread;
    void *kept = NULL;
    int token;

    (void)state;
    (void)err_origin(-EINVAL, "here");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, &token), 0);
    assert_int_equal(pthread_join(thread, &kept), 0);
    assert_ptr_equal(kept, &token);
    assert_string_equal(err_text(), "here");
}

static void an_error_that_was_kept_is_told_with_what_came_of_taking_it_back(void **state)
{
    struct err_kept e;

    (void)state;
    e = err_keep(err_origin(-ENOSPC, "no room"));
    (void)err_origin(-EINVAL, "something else");
    assert_int_equal(err_tell(&e, 0), -ENOSPC);
    assert_string_equal(err_text(), "no room");
    assert_int_equal(err_tell(&e, err_origin(-EBUSY, "it is in use")), -ENOSPC);
    assert_string_equal(err_text(), "no room; and then: it is in use");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_returns_the_number_that_it_was_given),
        cmocka_unit_test(the_sentence_is_what_was_said_last),
        cmocka_unit_test(the_errno_is_spelt_out_where_it_is_asked_for),
        cmocka_unit_test(an_errno_without_a_name_still_makes_a_sentence),
        cmocka_unit_test(a_sentence_may_quote_the_one_before),
        cmocka_unit_test(a_sentence_that_is_too_long_is_cut),
        cmocka_unit_test(a_sentence_is_one_line_whatever_a_peer_puts_into_it),
        cmocka_unit_test(each_thread_has_its_own_sentence),
        cmocka_unit_test(an_error_that_was_kept_is_told_with_what_came_of_taking_it_back),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
