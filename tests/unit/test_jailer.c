/* SPDX-License-Identifier: Apache-2.0 */
/* test_jailer.c - where a jail is, and what of it is elsewhere */
#include "testing.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/fd.h"
#include "vmm/jailer.h"

static char folder[64];

static const char *in_folder(const char *name)
{
    static char paths[32][PATH_MAX]; /* more than one test asks for */
    static unsigned next;
    char *path = paths[next++ % ARRAY_LEN(paths)];

    (void)snprintf(path, PATH_MAX, "%s/%s", folder, name);
    return path;
}

static void make_folders(const char *path)
{
    char part[128];

    for (const char *slash = path; (slash = strchr(slash, '/')) != NULL; slash++) {
        (void)snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
        (void)mkdir(in_folder(part), 0700);
    }
    (void)mkdir(in_folder(path), 0700);
}

static bool is_there(const char *name)
{
    return access(in_folder(name), F_OK) == 0;
}

static int make(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/thaw-jailer-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int unmake(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command); /* NOLINT(cert-env33-c,concurrency-mt-unsafe): our own words only */
}

static void a_jail_is_where_its_link_leads_whatever_the_program_is_called_now(void **state)
{
    struct vmm_jail jail = {.id = "one", .chroot_base = in_folder("base")};
    char expected[PATH_MAX];
    char *root = NULL;
    char *again = NULL;

    (void)state;
    assert_int_equal(mkdir(in_folder("vm"), 0700), 0);
    assert_int_equal(mkdir(in_folder("base"), 0700), 0);
    assert_int_equal(jail_find(in_folder("vm"), &root), -ENOENT);
    assert_int_equal(symlink("/bin/true", in_folder("firecracker")), 0);
    assert_int_equal(jail_root(&jail, in_folder("vm"), in_folder("firecracker"), &root), 0);
    (void)snprintf(expected, sizeof(expected), "%s/base/true/one/root", folder);
    assert_string_equal(root, expected);
    assert_true(is_there("vm/root/."));
    assert_int_equal(unlink(in_folder("firecracker")), 0);
    assert_int_equal(jail_root(&jail, in_folder("vm"), in_folder("firecracker"), &again), 0);
    assert_string_equal(again, root);
    assert_int_equal(jail_clear(root, "/bin/false"), -EINVAL);
    assert_non_null(strstr(err_text(), "is of a program true, expected it to be of false"));
    assert_int_equal(jail_clear(root, "/bin/true"), 0);
    free(root);
    free(again);
}

static void a_link_that_leads_elsewhere_is_refused(void **state)
{
    static const char *const wrong[] = {"root", "/root", "/a/b/c", "/etc"};
    char *root = NULL;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++) {
        assert_int_equal(symlink(wrong[i], in_folder("root")), 0);
        assert_int_equal(jail_find(folder, &root), -EINVAL);
        assert_int_equal(unlink(in_folder("root")), 0);
    }
    assert_null(root);
}

/* write_mounts() - a hierarchy of each version, a folder that is none, and a name with a blank, as /proc/mounts has them */
static const char *write_mounts(void)
{
    const char *path = in_folder("mounts");
    char text[2048];

    (void)snprintf(text, sizeof(text),
                   "cgroup2 %s/v2 cgroup2 rw 0 0\ncgroup %s/v\\0401 cgroup rw,pids 0 0\n"
                   "tmpfs %s/tmp tmpfs rw 0 0\n",
                   folder, folder, folder);
    assert_int_equal(file_replace(path, text, strlen(text)), 0);
    return path;
}

static void a_jails_own_cgroups_go_and_no_others(void **state)
{
    const char *mounts = write_mounts();

    (void)state;
    assert_int_equal(jail_remove_cgroups("/jail/firecracker/one/root", mounts), 0);
    make_folders("v2/firecracker/one");
    make_folders("v2/firecracker/two");
    make_folders("v 1/firecracker/one");
    make_folders("tmp/firecracker/one");
    assert_int_equal(jail_remove_cgroups("/jail/firecracker/one/root", mounts), 0);
    assert_false(is_there("v2/firecracker/one"));
    assert_false(is_there("v 1/firecracker/one"));
    assert_true(is_there("v 1/firecracker"));
    assert_true(is_there("v2/firecracker/two"));
    assert_true(is_there("tmp/firecracker/one"));
    make_folders("v2/firecracker/two/inner"); /* as if somebody were in it */
    assert_true(jail_remove_cgroups("/jail/firecracker/two/root", mounts) < 0);
    assert_non_null(strstr(err_text(), "v2/firecracker/two"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_jail_is_where_its_link_leads_whatever_the_program_is_called_now, make, unmake),
        cmocka_unit_test_setup_teardown(a_link_that_leads_elsewhere_is_refused, make, unmake),
        cmocka_unit_test_setup_teardown(a_jails_own_cgroups_go_and_no_others, make, unmake),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("jailer", tests, NULL, NULL);
}
