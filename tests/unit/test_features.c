/* SPDX-License-Identifier: Apache-2.0 */
/* test_features.c - versions of VMMs, and the rule for optional features (vmm/features.c) */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <thaw/features.h>

#include "testing.h"
#include "vmm/fc_schema.h"

/* of() - the outcome for Firecracker */
static int of(struct thaw_features *out, const char *version, enum thaw_choice reporting,
              enum thaw_choice hinting)
{
    struct thaw_features_wanted wanted = {reporting, hinting};

    return thaw_features_of_version(out, THAW_VMM_FIRECRACKER, version, &wanted);
}

static void versions_are_understood_in_every_form_that_builds_of_firecracker_have(void **state)
{
    static const struct {
        const char *text;
        struct thaw_version is;
    } cases[] = {
        {"1.14.1", {1, 14, 1}},          {"v1.14.1", {1, 14, 1}},
        {"v1.14.1_abcdef1", {1, 14, 1}}, {"v1.14-0.2.0", {1, 14, 0}},
        {"1.17.0-dev", {1, 17, 0}},      {"1.14", {1, 14, 0}},
        {"7.2.22", {7, 2, 22}},          {"2.0.0", {2, 0, 0}},
        {"01.014.1", {1, 14, 1}},        {"999999.0.0", {999999, 0, 0}},
        {"v1.12.1_g-1.2", {1, 12, 1}},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct thaw_version v;

        assert_int_equal(thaw_version_parse(&v, cases[i].text), 0);
        assert_int_equal(thaw_version_compare(&v, &cases[i].is), 0);
    }
}

static void what_is_no_version_is_refused_with_a_text_that_shows_it(void **state)
{
    static const char *const cases[] = {
        "",         "v",       "1",       "1.",         "one.two",     "1.14.",    "1.14.x",
        "vv1.14.1", "V1.14.1", "1.14.1 ", " 1.14.1",    "1.14.1_",     "1.14.1-",  "1.14.1+x",
        "1.14.1.1", "-1.14.1", "1.-14.1", "1.14.1_a b", "1000000.0.0", "0x1.14.1",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct thaw_version v = {7, 7, 7};

        assert_int_equal(thaw_version_parse(&v, cases[i]), -EINVAL);
        assert_non_null(strstr(thaw_last_error(), cases[i]));
        assert_int_equal(v.major, 7);
    }
}

static void a_line_end_is_no_part_of_a_version(void **state)
{
    struct thaw_version v;

    (void)state;
    assert_int_equal(thaw_version_parse(&v, "1.14.1\n"), -EINVAL);
}

static void versions_are_compared_number_by_number(void **state)
{
    static const char *const ascending[] = {"0.25.2", "1.1.0",  "1.9.9", "1.10.0",
                                            "1.14.0", "1.14.1", "2.0.0", "10.0.0"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ascending); i++) {
        for (size_t j = 0; j < ARRAY_LEN(ascending); j++) {
            struct thaw_version a;
            struct thaw_version b;
            int order;

            assert_int_equal(thaw_version_parse(&a, ascending[i]), 0);
            assert_int_equal(thaw_version_parse(&b, ascending[j]), 0);
            order = thaw_version_compare(&a, &b);
            assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
        }
    }
}

static void reporting_is_on_unasked_where_firecracker_has_it(void **state)
{
    static const struct {
        const char *version;
        int on;
    } cases[] = {
        {"1.10.1", 0}, {"1.13.9", 0},      {"v1.13.1_abcdef1", 0},
        {"1.14.0", 1}, {"v1.14-0.2.0", 1}, {"v1.14.1_abcdef1", 1},
        {"1.16.1", 1}, {"2.0.0", 1},       {"0.99.0", 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct thaw_features f;

        assert_int_equal(thaw_features_of_version(&f, THAW_VMM_FIRECRACKER, cases[i].version, NULL),
                         0);
        assert_int_equal(f.free_page_reporting, cases[i].on);
        assert_int_equal(f.free_page_hinting, 0);
    }
}

static void the_table_of_firecracker_s_interface_has_each_feature_since_the_same_version(
    void **state)
{
    const struct fc_field *reporting = fc_field_find(&fc_model_balloon, "free_page_reporting");
    const struct fc_field *hinting = fc_field_find(&fc_model_balloon, "free_page_hinting");

    (void)state;
    assert_non_null(reporting);
    assert_non_null(hinting);
    for (uint32_t minor = 0; minor < 30; minor++) {
        const struct thaw_version v = {1, minor, 0};
        struct thaw_features f;
        char text[16];

        (void)snprintf(text, sizeof(text), "1.%u.0", minor);
        assert_int_equal(of(&f, text, THAW_CHOICE_AUTO, THAW_CHOICE_AUTO), 0);
        assert_int_equal(f.free_page_reporting, fc_since_has(reporting->since, &v));
        assert_int_equal(of(&f, text, THAW_CHOICE_OFF, THAW_CHOICE_ON),
                         fc_since_has(hinting->since, &v) ? 0 : -EOPNOTSUPP);
    }
}

static void the_default_version_is_the_one_constant(void **state)
{
    struct thaw_features f;
    struct thaw_version v;

    (void)state;
    assert_int_equal(thaw_version_parse(&v, THAW_FIRECRACKER_VERSION), 0);
    assert_int_equal(thaw_features_of_version(&f, THAW_VMM_FIRECRACKER, NULL, NULL), 0);
    assert_int_equal(thaw_version_compare(&f.version, &v), 0);
}

static void on_of_a_version_without_it_is_refused_and_names_the_first_that_has_it(void **state)
{
    struct thaw_features f = {.free_page_reporting = 7};

    (void)state;
    assert_int_equal(of(&f, "v1.13.1_abc", THAW_CHOICE_ON, THAW_CHOICE_AUTO), -EOPNOTSUPP);
    assert_string_equal(thaw_last_error(),
                        "Firecracker 1.13.1 has no free page reporting: expected 1.14.0 or newer");
    assert_int_equal(of(&f, "1.13.1", THAW_CHOICE_AUTO, THAW_CHOICE_ON), -EOPNOTSUPP);
    assert_string_equal(thaw_last_error(),
                        "Firecracker 1.13.1 has no free page hinting: expected 1.14.0 or newer");
    assert_int_equal(f.free_page_reporting, 7);
}

static void a_choice_is_kept_where_the_version_can_do_it(void **state)
{
    struct thaw_features f;

    (void)state;
    assert_int_equal(of(&f, "1.14.1", THAW_CHOICE_OFF, THAW_CHOICE_ON), 0);
    assert_int_equal(f.free_page_reporting, 0);
    assert_int_equal(f.free_page_hinting, 1);
    assert_int_equal(of(&f, "1.10.0", THAW_CHOICE_OFF, THAW_CHOICE_OFF), 0);
    assert_int_equal(f.free_page_reporting, 0);
    assert_int_equal(of(&f, "1.14.0", THAW_CHOICE_ON, THAW_CHOICE_AUTO), 0);
    assert_int_equal(f.free_page_reporting, 1);
}

static void qemu_reports_since_5_1_and_never_hints(void **state)
{
    struct thaw_features_wanted reporting = {.free_page_reporting = THAW_CHOICE_ON};
    struct thaw_features_wanted hinting = {.free_page_hinting = THAW_CHOICE_ON};
    struct thaw_features f;

    (void)state;
    assert_int_equal(thaw_features_of_version(&f, THAW_VMM_QEMU, "7.2.22", NULL), 0);
    assert_int_equal(f.free_page_reporting, 1);
    assert_int_equal(thaw_features_of_version(&f, THAW_VMM_QEMU, "5.0.1", NULL), 0);
    assert_int_equal(f.free_page_reporting, 0);
    assert_int_equal(thaw_features_of_version(&f, THAW_VMM_QEMU, "5.0.1", &reporting), -EOPNOTSUPP);
    assert_string_equal(thaw_last_error(),
                        "QEMU 5.0.1 has no free page reporting: expected 5.1.0 or newer");
    assert_int_equal(thaw_features_of_version(&f, THAW_VMM_QEMU, "9.2.0", &hinting), -EOPNOTSUPP);
    assert_string_equal(thaw_last_error(),
                        "QEMU 9.2.0 has no free page hinting, and no other version of it has");
    assert_int_equal(thaw_features_of_version(&f, THAW_VMM_QEMU, NULL, NULL), -EINVAL);
}

static void garbage_is_refused_whatever_is_chosen(void **state)
{
    struct thaw_features f;

    (void)state;
    assert_int_equal(of(&f, "latest", THAW_CHOICE_OFF, THAW_CHOICE_OFF), -EINVAL);
    assert_int_equal(of(&f, "1.14.1", (enum thaw_choice)3, THAW_CHOICE_OFF), -EINVAL);
    assert_int_equal(thaw_features_of_version(&f, (enum thaw_vmm)2, "1.14.1", NULL), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions_are_understood_in_every_form_that_builds_of_firecracker_have),
        cmocka_unit_test(what_is_no_version_is_refused_with_a_text_that_shows_it),
        cmocka_unit_test(a_line_end_is_no_part_of_a_version),
        cmocka_unit_test(versions_are_compared_number_by_number),
        cmocka_unit_test(reporting_is_on_unasked_where_firecracker_has_it),
        cmocka_unit_test(
            the_table_of_firecracker_s_interface_has_each_feature_since_the_same_version),
        cmocka_unit_test(the_default_version_is_the_one_constant),
        cmocka_unit_test(on_of_a_version_without_it_is_refused_and_names_the_first_that_has_it),
        cmocka_unit_test(a_choice_is_kept_where_the_version_can_do_it),
        cmocka_unit_test(qemu_reports_since_5_1_and_never_hints),
        cmocka_unit_test(garbage_is_refused_whatever_is_chosen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
