/* SPDX-License-Identifier: Apache-2.0 */
/* test_console.c - commands as they are typed, and their output out of all that a console says */
#include "testing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "node/console.h"

#define ECHO "echo \"thaw-b\"\"egin-7\"; eval 'ls' </dev/null; echo \"thaw-e\"\"nd-7\" $?\r\n"

/* read_in_pieces() - the output of what came in pieces of @step bytes; "" and not ended if there was none */
static struct console_answer read_in_pieces(const char *text, size_t step, char *output, size_t len)
{
    struct console_answer a = {.tag = "7"};
    size_t n = strlen(text);

    output[0] = '\0';
    for (size_t at = 0; at < n; at += step) {
        char *bytes;
        size_t n_bytes;

        assert_int_equal(console_answer_add(&a, text + at, min_u64(step, n - at)), 0);
        assert_int_equal(console_answer_take(&a, &bytes, &n_bytes), 0);
        if (bytes)
            (void)strncat(output, bytes, len - strlen(output) - 1);
        free(bytes);
    }
    return a;
}

/* gives() - the text, in pieces of any size, is an answer with this output and status */
static void gives(const char *text, const char *want, int status)
{
    for (size_t step = 1; step <= strlen(text); step++) {
        char output[512];
        struct console_answer a = read_in_pieces(text, step, output, sizeof(output));

        assert_true(a.ended);
        assert_string_equal(output, want);
        assert_int_equal(a.status, status);
        console_answer_deinit(&a);
    }
}

static void a_command_is_typed_so_that_its_echo_is_no_answer(void **state)
{
    char *line = NULL;

    (void)state;
    assert_int_equal(console_line("echo it's & # all", CONSOLE_SHELL_ITSELF, "7", &line), 0);
    assert_string_equal(line, "\x15"
                              "echo \"thaw-b\"\"egin-7\"; eval 'echo it'\\''s & # all' </dev/null; "
                              "echo \"thaw-e\"\"nd-7\" $?\n");
    assert_null(strstr(line, "thaw-begin-7"));
    assert_null(strstr(line, "thaw-end-7"));
    free(line);
    assert_int_equal(console_line("exit 3", CONSOLE_SHELL_CHILD, "7", &line), 0);
    assert_non_null(strstr(line, "; (eval 'exit 3') </dev/null; "));
    free(line);
}

static void what_cannot_be_typed_is_refused(void **state)
{
    char long_one[CONSOLE_LINE_MAX + 1];
    char *line = NULL;

    (void)state;
    assert_int_equal(console_line("a\nb", CONSOLE_SHELL_ITSELF, "7", &line), -EINVAL);
    assert_int_equal(console_line("a\x03", CONSOLE_SHELL_ITSELF, "7", &line), -EINVAL);
    memset(long_one, 'x', sizeof(long_one) - 1);
    long_one[sizeof(long_one) - 1] = '\0';
    assert_int_equal(console_line(long_one, CONSOLE_SHELL_ITSELF, "7", &line), -EINVAL);
    assert_non_null(strstr(err_text(), "too long"));
}

static void output_and_status_are_found_between_the_tags(void **state)
{
    (void)state;
    gives("noise\r\n/ # " ECHO "thaw-begin-7\r\na\r\nb\r\nthaw-end-7 0\r\n/ # ", "a\nb\n", 0);
    gives("thaw-begin-7\r\nthaw-end-7 127\r\n", "", 127);
    gives("thaw-begin-7\r\nno line endthaw-end-7 1\r\n", "no line end", 1);
    gives("thaw-begin-7\nthaw-end-8 5\nthaw-end-\nthaw-end-7 2\n", "thaw-end-8 5\nthaw-end-\n", 2);
}

static void what_is_on_its_way_is_no_end(void **state)
{
    char output[512];
    struct console_answer a;

    (void)state;
    a = read_in_pieces(ECHO, 3, output, sizeof(output));
    assert_false(a.begun);
    console_answer_deinit(&a);
    a = read_in_pieces("thaw-begin-7\nabc thaw-end-7 1", 3, output, sizeof(output));
    assert_true(a.begun);
    assert_false(a.ended);
    assert_string_equal(output, "abc ");
    console_answer_deinit(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_is_typed_so_that_its_echo_is_no_answer),
        cmocka_unit_test(what_cannot_be_typed_is_refused),
        cmocka_unit_test(output_and_status_are_found_between_the_tags),
        cmocka_unit_test(what_is_on_its_way_is_no_end),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("console", tests, NULL, NULL);
}
