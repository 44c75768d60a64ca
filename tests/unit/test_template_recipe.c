/* SPDX-License-Identifier: Apache-2.0 */
/* test_template_recipe.c - what a template is to be made of, as users say it */
#include "testing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "node/template_recipe.h"

static struct template_recipe recipe;

static int begin(void **state)
{
    (void)state;
    template_recipe_init(&recipe);
    return 0;
}

static int end(void **state)
{
    (void)state;
    template_recipe_deinit(&recipe);
    return 0;
}

static void set(const char *option, const char *text)
{
    if (template_recipe_set(&recipe, option, text) != 0)
        fail_msg("--%s %s: %s", option, text, err_text());
}

static void says(const char *why)
{
    if (!strstr(err_text(), why))
        fail_msg("'%s' does not say '%s'", err_text(), why);
}

static void unset(const char *option, const char *text, const char *why)
{
    assert_int_equal(template_recipe_set(&recipe, option, text), -EINVAL);
    says(why);
}

/* wrong() - the recipe so far is refused, and the text has @why */
static void wrong(const char *why)
{
    assert_int_equal(template_recipe_check(&recipe), -EINVAL);
    says(why);
}

/* read_text() - a recipe from a file with this in it. Return: what template_recipe_read() does */
static int read_text(const char *text)
{
    char path[] = "/tmp/thaw-test-recipe.XXXXXX";
    int fd = mkstemp(path);
    int r;

    assert_true(fd >= 0);
    assert_int_equal(fd_write_all(fd, text, strlen(text)), 0);
    r = template_recipe_read(&recipe, path);
    (void)close(fd);
    (void)unlink(path);
    return r;
}

static void options_are_taken_and_checked_one_by_one(void **state)
{
    (void)state;
    set("vmm", "qemu");
    set("kernel", "k");
    set("memory", "512");
    set("vcpus", "2");
    set("rootfs-read-only", "true");
    set("free-page-reporting", "on");
    set("start-cmd", "sleep 1");
    assert_int_equal(recipe.memory_mib, 512);
    assert_int_equal(recipe.free_page_reporting, THAW_CHOICE_ON);
    assert_int_equal(template_recipe_vmm(&recipe), THAW_VMM_QEMU);
    assert_string_equal(recipe.start_cmd, "sleep 1");
    unset("memory", "31", "--memory 31: expected a number from 32 to");
    unset("memory", "4G", "--memory 4G: expected a number");
    unset("memory", "99999999999999999999", "expected a number");
    unset("vcpus", "", "--vcpus");
    unset("vmm", "xen", "--vmm xen: expected firecracker or qemu");
    unset("vmm", "", "expected firecracker or qemu");
    unset("free-page-hinting", "yes", "expected auto, off or on");
    unset("start-cmd", "a\nb", "--start-cmd has a control character");
    assert_int_equal(template_recipe_set(&recipe, "free_page_hinting", "on"), -ENOENT);
    assert_int_equal(template_recipe_set(&recipe, "vmmx", "qemu"), -ENOENT);
    assert_int_equal(template_recipe_set(&recipe, "vm", "qemu"), -ENOENT);
}

static void a_file_says_the_same_as_options(void **state)
{
    (void)state;
    assert_int_equal(read_text("{\"vmm\":\"firecracker\",\"kernel\":\"boot/k\",\"rootfs\":\"/r\","
                               "\"memory\":128,\"hugepages\":true,\"free_page_hinting\":\"on\","
                               "\"firecracker_version\":\"v1.15.0\",\"vmm_program\":\"fc\"}"),
                     0);
    assert_string_equal(recipe.kernel, "/tmp/boot/k"); /* beside the recipe */
    assert_string_equal(recipe.rootfs, "/r");
    assert_string_equal(recipe.program, "fc");
    assert_int_equal(recipe.memory_mib, 128);
    assert_int_equal(recipe.n_vcpus, 1);
    assert_true(recipe.huge_pages);
    assert_int_equal(template_recipe_check(&recipe), 0);
    set("memory", "256");
    assert_int_equal(recipe.memory_mib, 256);
}

static void a_file_that_is_wrong_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    set("kernel", "before");
    assert_int_equal(read_text("{\"kernel\":\"k\",\"mem\":128}"), -EINVAL);
    says("there is no field mem");
    assert_int_equal(read_text("{\n\"kernel\": k}"), -EINVAL);
    says(":2:");
    assert_int_equal(read_text("{\"memory\":\"128\"}"), -EINVAL);
    says("memory is \"128\", expected a number");
    assert_string_equal(recipe.kernel, "before");
    assert_int_equal(template_recipe_read(&recipe, "/tmp/thaw-test-no-such-recipe"), -ENOENT);
}

static void what_does_not_go_together_is_refused(void **state)
{
    (void)state;
    wrong("vmm is missing: expected firecracker or qemu");
    set("vmm", "firecracker");
    wrong("kernel is missing");
    set("kernel", "k");
    assert_int_equal(template_recipe_check(&recipe), 0);
    set("rootfs-read-only", "true");
    wrong("there is no rootfs");
    set("rootfs", "r");
    set("hugepages", "true");
    set("memory", "129");
    wrong("expected an even number with hugepages");
    set("memory", "128");
    set("no-shell", "true");
    wrong("ready is missing");
    set("ready", "");
    wrong("ready is empty");
    set("ready", "up");
    assert_int_equal(template_recipe_check(&recipe), 0);
    set("start-cmd", "true");
    wrong("start_cmd needs a shell");
}

static void what_is_for_one_vmm_is_refused_for_the_other(void **state)
{
    (void)state;
    set("kernel", "k");
    set("vmm", "firecracker");
    set("accel", "kvm");
    wrong("accel is for qemu");
    free(recipe.accel);
    recipe.accel = NULL;
    set("cpu", "qemu64");
    wrong("cpu is for qemu");
    set("vmm", "qemu");
    assert_int_equal(template_recipe_check(&recipe), 0);
    set("accel", "xen");
    wrong("accel is 'xen', expected tcg or kvm");
    set("accel", "tcg");
    set("machine", "virt");
    wrong("machine is 'virt', expected pc, q35 or microvm");
    set("machine", "q35");
    set("firecracker-version", "1.14.1");
    wrong("firecracker_version is for firecracker");
}

static void a_wish_meets_the_version_that_is_meant(void **state)
{
    struct thaw_features f;

    (void)state;
    set("vmm", "firecracker");
    set("kernel", "k");
    assert_int_equal(template_recipe_features(&recipe, NULL, &f), 0);
    assert_true(f.free_page_reporting); /* THAW_FIRECRACKER_VERSION has it */
    assert_int_equal(template_recipe_features(&recipe, "1.13.1", &f), 0);
    assert_false(f.free_page_reporting);
    set("free-page-reporting", "on");
    assert_int_equal(template_recipe_features(&recipe, "1.13.1", &f), -EOPNOTSUPP);
    says("1.13.1");
    says("1.14.0");
    set("firecracker-version", "v1.13.0");
    assert_int_equal(template_recipe_features(&recipe, NULL, &f), -EOPNOTSUPP);
    set("firecracker-version", "v1.14-0.2.0");
    assert_int_equal(template_recipe_features(&recipe, "1.14.0", &f), 0);
    assert_int_equal(template_recipe_features(&recipe, "1.14.1", &f), -EINVAL);
    says("firecracker_version is v1.14-0.2.0, but firecracker is version 1.14.1");
    set("firecracker-version", "new");
    wrong("'new' is no version");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(options_are_taken_and_checked_one_by_one),
        TEST(a_file_says_the_same_as_options),
        TEST(a_file_that_is_wrong_is_refused_and_changes_nothing),
        TEST(what_does_not_go_together_is_refused),
        TEST(what_is_for_one_vmm_is_refused_for_the_other),
        TEST(a_wish_meets_the_version_that_is_meant),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("template_recipe", tests, NULL, NULL);
}
