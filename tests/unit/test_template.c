/* SPDX-License-Identifier: Apache-2.0 */
/* test_template.c - templates on disk: loaded as they were saved, removed when nobody uses them */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "image/store.h"
#include "node/places.h"
#include "node/template.h"

#define ID "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static char folder[64];
static char store[128];

static const char *in_store(const char *name)
{
    static char path[256];

    (void)snprintf(path, sizeof(path), "%s/%s", store, name);
    return path;
}

static int make_store(void **state)
{
    struct store *s = NULL;

    (void)state;
    (void)snprintf(folder, sizeof(folder), "%s", "/tmp/thaw-test-template.XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    (void)snprintf(store, sizeof(store), "%s/store", folder);
    if (store_open(&s, store, true) < 0 || folder_make(store, TEMPLATES_FOLDER) < 0)
        return -1;
    (void)store_close(s);
    return 0;
}

static int remove_store(void **state)
{
    int lock = -1;

    (void)state;
    if (folder_lock(store, FOLDER_ALONE, 0, &lock) < 0 || folder_remove(folder, "store", lock) < 0)
        return -1;
    (void)close(lock);
    return rmdir(folder);
}

static struct template make_template(void)
{
    return (struct template){
        .vmm = THAW_VMM_QEMU,
        .vmm_version = strdup("7.2.22"),
        .snapshot_format = strdup("pc-i440fx-7.2"),
        .machine = strdup("pc"),
        .accel = strdup("tcg"),
        .memory_mib = 256,
        .n_vcpus = 2,
        .has_initrd = true,
        .free_page_reporting = {THAW_CHOICE_AUTO, true},
        .ready = strdup("guest is \"ready\""),
        .has_shell = true,
        .devices = strdup("serial balloon"),
        .image = strdup(ID),
        .image_bytes = 256 * MIB,
        .has_working_set = true,
        .built_s = 1700000000,
        .host = {strdup("x86_64"), strdup("X family 1"), strdup("a b"), strdup("6.18")},
    };
}

/* save() - a template of this name, as somebody builds one */
static void save(const char *name)
{
    struct template t = make_template();
    struct folder_new f;

    assert_int_equal(folder_new_init(&f, in_store(TEMPLATES_FOLDER), name), 0);
    assert_int_equal(template_save(&t, f.path), 0);
    assert_int_equal(folder_new_place(&f), 0);
    folder_new_deinit(&f);
    template_deinit(&t);
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(fd_write_all(fd, text, strlen(text)), 0);
    (void)close(fd);
}

static void a_template_is_loaded_as_it_was_saved(void **state)
{
    struct template want = make_template();
    struct template t = {0};
    struct vmm_spec spec;

    (void)state;
    save("base");
    assert_int_equal(template_load(&t, store, "base"), 0);
    assert_string_equal(t.name, "base");
    assert_string_equal(t.ready, want.ready);
    assert_null(t.start_cmd);
    assert_int_equal(t.vmm, THAW_VMM_QEMU);
    assert_int_equal(t.free_page_reporting.asked, THAW_CHOICE_AUTO);
    assert_true(t.free_page_reporting.on);
    assert_false(t.free_page_hinting.on);
    assert_string_equal(t.host.kernel, "6.18");
    assert_string_equal(t.image, ID);
    spec = template_spec(&t);
    assert_string_equal(spec.accel, "tcg");
    assert_true(spec.has_initrd && spec.free_page_reporting && !spec.free_page_hinting);
    assert_int_equal(spec.n_vcpus, 2);
    template_deinit(&t);
    template_deinit(&want);
}

static void a_template_that_is_not_there_or_damaged_is_an_error_with_its_name(void **state)
{
    struct template t = {0};

    (void)state;
    assert_int_equal(template_load(&t, store, "none"), -ENOENT);
    assert_non_null(strstr(err_text(), "no template none in the store"));
    assert_int_equal(template_load(&t, store, "../x"), -EINVAL);
    save("base");
    write_file(in_store("templates/base/template.json"), "{");
    assert_int_equal(template_load(&t, store, "base"), -EINVAL);
    assert_non_null(strstr(err_text(), "templates/base/template.json:1:"));
}

static void templates_are_listed_and_removed(void **state)
{
    struct folder_list list;

    (void)state;
    save("b");
    save("a");
    assert_int_equal(template_list(store, &list), 0);
    assert_int_equal(list.n, 2);
    assert_string_equal(list.names[0], "a");
    folder_list_deinit(&list);
    assert_int_equal(template_remove(store, "a"), 0);
    assert_int_equal(template_remove(store, "a"), -ENOENT);
    write_file(in_store("templates/b/template.json"), "damaged");
    assert_int_equal(template_remove(store, "b"), 0);
    assert_int_equal(template_list(store, &list), 0);
    assert_int_equal(list.n, 0);
    folder_list_deinit(&list);
}

static void a_template_of_which_there_are_sandboxes_stays(void **state)
{
    (void)state;
    save("a");
    assert_int_equal(folder_make(store, SANDBOXES_FOLDER), 0);
    assert_int_equal(mkdir(in_store("sandboxes/box"), 0700), 0);
    write_file(in_store("sandboxes/box/" SANDBOX_RECORD), "{\"template\": \"other\"}");
    assert_int_equal(mkdir(in_store("sandboxes/broken"), 0700), 0);
    write_file(in_store("sandboxes/broken/" SANDBOX_RECORD), "{");
    save("b");
    assert_int_equal(template_remove(store, "b"), 0);
    write_file(in_store("sandboxes/box/" SANDBOX_RECORD), "{\"template\": \"a\"}");
    assert_int_equal(template_remove(store, "a"), -EBUSY);
    assert_non_null(strstr(err_text(), "has 1 sandboxes, such as box"));
    assert_int_equal(access(in_store("templates/a/template.json"), F_OK), 0);
}

static void an_image_that_took_the_template_s_name_is_not_removed_with_it(void **state)
{
    (void)state;
    save("a");
    write_file(in_store("names/a"),
               "ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n");
    assert_int_equal(template_remove(store, "a"), 0);
    assert_int_equal(access(in_store("names/a"), F_OK), 0);
}

/* loads() - how many reasons there are against it */
static unsigned loads(enum thaw_vmm vmm, const char *then[2], const char *version,
                      const char *format)
{
    struct template t = {
        .vmm = vmm, .vmm_version = (char *)then[0], .snapshot_format = (char *)then[1]};
    struct reasons reasons = {0};
    unsigned n;

    template_compare_vmm(&t, version, format, &reasons);
    n = reasons.n;
    reasons_deinit(&reasons);
    return n;
}

static void firecracker_loads_its_own_format_and_older_ones_of_the_same_major(void **state)
{
    static const char *then[] = {"1.14.1", "8.1.0"};

    (void)state;
    assert_int_equal(loads(THAW_VMM_FIRECRACKER, then, "1.14.1", "8.1.0"), 0);
    assert_int_equal(loads(THAW_VMM_FIRECRACKER, then, "v1.14.4_abc", "8.2.0"), 0);
    assert_int_equal(loads(THAW_VMM_FIRECRACKER, then, "1.15.0", "9.0.0"), 1);
    assert_int_equal(loads(THAW_VMM_FIRECRACKER, then, "1.14.0", "8.0.0"), 1);
    assert_int_equal(loads(THAW_VMM_FIRECRACKER, then, "1.13.0", "8.1.0"), 1);
    assert_int_equal(loads(THAW_VMM_FIRECRACKER, then, "2.0.0", "12.0.0"), 2);
}

static void qemu_loads_the_same_machine_only(void **state)
{
    static const char *then[] = {"7.2.22", "pc-i440fx-7.2"};

    (void)state;
    assert_int_equal(loads(THAW_VMM_QEMU, then, "7.2.9", "pc-i440fx-7.2"), 0);
    assert_int_equal(loads(THAW_VMM_QEMU, then, "8.0.0", "pc-i440fx-8.0"), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_store, remove_store)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_template_is_loaded_as_it_was_saved),
        TEST(a_template_that_is_not_there_or_damaged_is_an_error_with_its_name),
        TEST(templates_are_listed_and_removed),
        TEST(a_template_of_which_there_are_sandboxes_stays),
        TEST(an_image_that_took_the_template_s_name_is_not_removed_with_it),
        cmocka_unit_test(firecracker_loads_its_own_format_and_older_ones_of_the_same_major),
        cmocka_unit_test(qemu_loads_the_same_machine_only),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("template", tests, NULL, NULL);
}
