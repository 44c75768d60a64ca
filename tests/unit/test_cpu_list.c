/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <errno.h>

#include "pager/cpu_list.h"

static void numbers_and_ranges_are_understood(void **state)
{
    cpu_set_t set;

    (void)state;
    assert_int_equal(cpu_list_parse("0-3,7", &set), 0);
    assert_int_equal(CPU_COUNT(&set), 5);
    for (size_t cpu = 0; cpu < 10; cpu++)
        assert_int_equal(CPU_ISSET(cpu, &set) != 0, cpu < 4 || cpu == 7);
    assert_int_equal(cpu_list_parse("1023", &set), 0);
    assert_true(CPU_ISSET((size_t)1023, &set));
    assert_int_equal(CPU_COUNT(&set), 1);
    assert_int_equal(cpu_list_parse("5-5,5", &set), 0);
    assert_int_equal(CPU_COUNT(&set), 1);
}

static void anything_else_is_refused(void **state)
{
    static const char *const wrong[] = {"",    ",",    "0,",   ",0",     "-",
                                        "1-",  "-1",   "3-1",  "0--1",   "a",
                                        "0x1", "1 2",  "1024", "0-1024", "99999999999999999999",
                                        "0;1", "0-1-2"};
    cpu_set_t set;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++)
        assert_int_equal(cpu_list_parse(wrong[i], &set), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_and_ranges_are_understood),
        cmocka_unit_test(anything_else_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
