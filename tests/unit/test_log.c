/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <string.h>

#include "base/log.h"

struct heard {
    unsigned n;
    enum thaw_log_level level;
    char line[2048];
};

static void hear(void *ctx, enum thaw_log_level level, const char *line)
{
    struct heard *h = ctx;

    h->n++;
    h->level = level;
    assert_true(strlen(line) < sizeof(h->line));
    memcpy(h->line, line, strlen(line) + 1);
}

static void a_message_arrives_with_its_level_and_without_a_newline(void **state)
{
    struct heard h = {0};
    const struct log_sink sink = {.fn = hear, .ctx = &h};

    (void)state;
    log_line(&sink, THAW_LOG_WARN, "msg=\"listening\" socket=%s n=%d", "/s", 7);
    assert_int_equal(h.n, 1);
    assert_int_equal(h.level, THAW_LOG_WARN);
    assert_string_equal(h.line, "msg=\"listening\" socket=/s n=7");
}

static void without_a_listener_a_message_is_dropped(void **state)
{
    const struct log_sink sink = {0};

    (void)state;
    log_line(&sink, THAW_LOG_ERROR, "%s", "nobody hears this");
}

static void one_event_stays_one_line_whatever_a_path_contains(void **state)
{
    struct heard h = {0};
    const struct log_sink sink = {.fn = hear, .ctx = &h};
    char text[300];

    (void)state;
    for (unsigned i = 1; i < sizeof(text); i++)
        text[i - 1] = (char)(i < 256 ? i : 'x');
    text[sizeof(text) - 1] = '\0';
    log_line(&sink, THAW_LOG_INFO, "path=%s", text);
    assert_int_equal(strlen(h.line), 5 + sizeof(text) - 1);
    for (const char *c = h.line; *c != '\0'; c++)
        assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
}

static void a_line_that_is_too_long_is_cut(void **state)
{
    struct heard h = {0};
    const struct log_sink sink = {.fn = hear, .ctx = &h};
    char text[3000];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    log_line(&sink, THAW_LOG_DEBUG, "%s", text);
    assert_int_equal(h.n, 1);
    assert_true(strlen(h.line) >= 1000);
}

static void levels_have_the_names_of_the_command_line(void **state)
{
    (void)state;
    assert_string_equal(log_level_name(THAW_LOG_ERROR), "error");
    assert_string_equal(log_level_name(THAW_LOG_WARN), "warn");
    assert_string_equal(log_level_name(THAW_LOG_INFO), "info");
    assert_string_equal(log_level_name(THAW_LOG_DEBUG), "debug");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_arrives_with_its_level_and_without_a_newline),
        cmocka_unit_test(without_a_listener_a_message_is_dropped),
        cmocka_unit_test(one_event_stays_one_line_whatever_a_path_contains),
        cmocka_unit_test(a_line_that_is_too_long_is_cut),
        cmocka_unit_test(levels_have_the_names_of_the_command_line),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
