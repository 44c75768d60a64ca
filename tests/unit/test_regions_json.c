/* SPDX-License-Identifier: Apache-2.0 */
/* test_regions_json.c - the handshake's text */
#include "testing.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "pager/regions_json.h"

#define REGION(fields) "[{\"base_host_virt_addr\":4096,\"size\":8192,\"offset\":0" fields "}]"

static void check_refused(const char *text, const char *word)
{
    struct regions r;

    assert_int_equal(regions_parse(&r, text, strlen(text)), -EINVAL);
    assert_null(r.list);
    if (!strstr(err_text(), word))
        fail_msg("\"%s\" does not say \"%s\"", err_text(), word);
    assert_null(strchr(err_text(), '\n'));
}

static void check_page_bytes(const char *text, uint64_t page_bytes, bool said)
{
    struct regions r;

    assert_int_equal(regions_parse(&r, text, strlen(text)), 0);
    assert_int_equal(r.page_bytes, page_bytes);
    assert_int_equal(r.page_bytes_said, said);
    regions_deinit(&r);
}

static void what_firecracker_sends_is_understood(void **state)
{
    static const char text[] =
        "[{\"base_host_virt_addr\":140245678231552,\"size\":3221225472,\"offset\":0,\"page_size\":"
        "4096,"
        "\"page_size_kib\":4096},{\"base_host_virt_addr\":140250000000000,\"size\":1073741824,"
        "\"offset\":3221225472,\"page_size\":4096,\"page_size_kib\":4096}]";
    struct regions r;

    (void)state;
    assert_int_equal(regions_parse(&r, text, strlen(text)), 0);
    assert_int_equal(r.n, 2);
    assert_int_equal(r.list[0].hva, 140245678231552);
    assert_int_equal(r.list[1].len_bytes, 1073741824);
    assert_int_equal(r.list[1].imgoff, 3221225472);
    assert_int_equal(r.page_bytes, 4096);
    regions_deinit(&r);
}

static void the_page_size_is_read_from_every_generation_of_senders(void **state)
{
    (void)state;
    check_page_bytes(REGION(""), 4096, false);
    check_page_bytes(REGION(",\"page_size_kib\":4096"), 4096, true);
    check_page_bytes(REGION(",\"page_size_kib\":2097152"), 2 * MIB, true);
    check_page_bytes(REGION(",\"page_size\":2097152"), 2 * MIB, true);
    check_page_bytes(REGION(",\"page_size\":4096,\"page_size_kib\":4096"), 4096, true);
}

static void a_page_size_that_really_is_in_kib_is_understood(void **state)
{
    (void)state;
    check_page_bytes(REGION(",\"page_size_kib\":4"), 4096, true);
    check_page_bytes(REGION(",\"page_size_kib\":2048"), 2 * MIB, true);
}

static void fields_of_later_senders_are_passed_over(void **state)
{
    (void)state;
    check_page_bytes(REGION(",\"gpa_start\":0,\"is_guest_memfd\":true"), 4096, false);
}

static void nonsense_is_refused_with_region_and_field(void **state)
{
    (void)state;
    check_refused("", "JSON");
    check_refused("nonsense", "JSON");
    check_refused("[", "JSON");
    check_refused("{}", "array");
    check_refused("[]", "empty");
    check_refused("[1]", "region 0 is no JSON object");
    check_refused("[{}]", "base_host_virt_addr is missing");
    check_refused("[{\"base_host_virt_addr\":1}]", "size is missing");
    check_refused("[{\"base_host_virt_addr\":1,\"size\":1}]", "offset is missing");
    check_refused("[{\"base_host_virt_addr\":\"1\",\"size\":1,\"offset\":0}]",
                  "base_host_virt_addr is no whole");
    check_refused("[{\"base_host_virt_addr\":1.5,\"size\":1,\"offset\":0}]",
                  "base_host_virt_addr is no whole");
    check_refused("[{\"base_host_virt_addr\":1,\"size\":-4096,\"offset\":0}]", "size is -4096");
    check_refused("[{\"base_host_virt_addr\":1,\"size\":99999999999999999999,\"offset\":0}]",
                  "integer");
    check_refused("[{\"base_host_virt_addr\":1,\"size\":1,\"size\":2,\"offset\":0}]", "duplicate");
    check_refused(REGION(",\"page_size\":8192"), "page_size is 8192");
    check_refused(REGION(",\"page_size_kib\":0"), "page_size_kib is 0");
    check_refused(REGION(",\"page_size\":4096,\"page_size_kib\":2097152"),
                  "page_size_kib is 2097152");
    check_refused(REGION(",\"page_size\":null"), "page_size is no whole");
}

static void regions_of_different_page_sizes_are_refused(void **state)
{
    (void)state;
    check_refused("[{\"base_host_virt_addr\":0,\"size\":1,\"offset\":0,\"page_size\":4096},"
                  "{\"base_host_virt_addr\":0,\"size\":1,\"offset\":0,\"page_size\":2097152}]",
                  "one page size");
}

static void more_regions_than_the_limit_are_refused(void **state)
{
    static const char one[] = "{\"base_host_virt_addr\":1,\"size\":1,\"offset\":1},";
    size_t len = sizeof(one) - 1;
    char *text = malloc(len * (GEOM_MAX_REGIONS + 1) + 3);
    char *at = text;

    (void)state;
    assert_non_null(text);
    *at++ = '[';
    for (unsigned i = 0; i <= GEOM_MAX_REGIONS; i++, at += len)
        memcpy(at, one, len);
    at[-1] = ']';
    *at = '\0';
    check_refused(text, "at most 8192");
    free(text);
}

/* ---- where the array ends ------------------------------------------------------------------------------------- */

static size_t feed_in_steps(const char *text, size_t step, bool *done, int *result)
{
    struct json_span span = {0};
    size_t total = 0;

    *result = 0;
    for (size_t at = 0; at < strlen(text) && !span.done && *result == 0; at += step) {
        size_t used = 0;

        *result = json_span_feed(&span, text + at, min_u64(step, strlen(text) - at), &used);
        total += used;
    }
    *done = span.done;
    return total;
}

static void the_end_is_found_however_the_text_is_cut(void **state)
{
    static const char *const texts[] = {
        "[]", " \n\t[1,2]", "[[],[[]],{}]", "[\"]\",\"\\\"]\",\"\\\\\"]", "[{\"a\":[\"}\"]}]",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        for (size_t step = 1; step <= strlen(texts[i]); step++) {
            bool done;
            int r;

            assert_int_equal(feed_in_steps(texts[i], step, &done, &r), strlen(texts[i]));
            assert_true(done);
            assert_int_equal(r, 0);
        }
    }
}

static void bytes_behind_the_array_are_not_used(void **state)
{
    struct json_span span = {0};
    size_t used;

    (void)state;
    assert_int_equal(json_span_feed(&span, "[1] [2]", 7, &used), 0);
    assert_true(span.done);
    assert_int_equal(used, 3);
}

static void what_does_not_begin_as_an_array_is_known_at_once(void **state)
{
    bool done;
    int r;

    (void)state;
    (void)feed_in_steps("{\"a\":1}", 1, &done, &r);
    assert_int_equal(r, JSON_SPAN_E_NOT_ARRAY);
    (void)feed_in_steps("]", 1, &done, &r);
    assert_int_equal(r, JSON_SPAN_E_NOT_ARRAY);
    (void)feed_in_steps("\xff[", 2, &done, &r);
    assert_int_equal(r, JSON_SPAN_E_NOT_ARRAY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_firecracker_sends_is_understood),
        cmocka_unit_test(the_page_size_is_read_from_every_generation_of_senders),
        cmocka_unit_test(a_page_size_that_really_is_in_kib_is_understood),
        cmocka_unit_test(fields_of_later_senders_are_passed_over),
        cmocka_unit_test(nonsense_is_refused_with_region_and_field),
        cmocka_unit_test(regions_of_different_page_sizes_are_refused),
        cmocka_unit_test(more_regions_than_the_limit_are_refused),
        cmocka_unit_test(the_end_is_found_however_the_text_is_cut),
        cmocka_unit_test(bytes_behind_the_array_are_not_used),
        cmocka_unit_test(what_does_not_begin_as_an_array_is_known_at_once),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
