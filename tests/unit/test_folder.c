/* SPDX-License-Identifier: Apache-2.0 */
/* test_folder.c - folders that are there whole or not at all, and locks on them */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/err.h"
#include "base/fd.h"
#include "node/folder.h"

static char top[64];

static int make_top(void **state)
{
    (void)state;
    (void)snprintf(top, sizeof(top), "%s", "/tmp/thaw-test-folder.XXXXXX");
    return mkdtemp(top) ? 0 : -1;
}

static int remove_top(void **state)
{
    (void)state;
    return rmdir(top); /* fails the test when something was left behind */
}

static const char *path_of(const char *name)
{
    static char path[256];

    (void)snprintf(path, sizeof(path), "%s/%s", top, name);
    return path;
}

static bool is_there(const char *name)
{
    return access(path_of(name), F_OK) == 0;
}

static void make_file(const char *folder, const char *name)
{
    char path[256];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(fd_write_all(fd, "x", 1), 0);
    (void)close(fd);
}

static void a_folder_gets_its_name_when_it_is_whole(void **state)
{
    struct folder_new f;
    int lock = -1;

    (void)state;
    assert_int_equal(folder_new_init(&f, top, "one"), 0);
    make_file(f.path, "a");
    assert_false(is_there("one"));
    assert_int_equal(folder_new_place(&f), 0);
    assert_true(is_there("one/a"));
    assert_int_equal(folder_lock(path_of("one"), FOLDER_SHARED, 0, &lock), -EBUSY);
    folder_new_deinit(&f);
    assert_true(is_there("one/a"));
    assert_int_equal(folder_lock(path_of("one"), FOLDER_ALONE, 0, &lock), 0);
    assert_int_equal(folder_remove(top, "one", lock), 0);
    assert_false(is_there("one"));
    (void)close(lock);
}

static void what_was_not_placed_goes_away_with_all_that_is_in_it(void **state)
{
    struct folder_new f;
    char inside[256];

    (void)state;
    assert_int_equal(folder_new_init(&f, top, "one"), 0);
    (void)snprintf(inside, sizeof(inside), "%s/deep", f.path);
    assert_int_equal(mkdir(inside, 0700), 0);
    make_file(inside, "a");
    folder_new_deinit(&f);
    assert_false(is_there("one"));
}

static void links_out_of_a_folder_are_not_followed_when_it_goes_away(void **state)
{
    struct folder_new f;
    char link[256];

    (void)state;
    assert_int_equal(mkdir(path_of("other"), 0700), 0);
    make_file(path_of("other"), "kept");
    assert_int_equal(folder_new_init(&f, top, "one"), 0);
    (void)snprintf(link, sizeof(link), "%s/link", f.path);
    assert_int_equal(symlink(path_of("other"), link), 0);
    folder_new_deinit(&f);
    assert_true(is_there("other/kept"));
    assert_int_equal(unlink(path_of("other/kept")), 0);
    assert_int_equal(rmdir(path_of("other")), 0);
}

static void a_name_is_given_once(void **state)
{
    struct folder_new a;
    struct folder_new b;
    struct folder_new c;
    int lock = -1;

    (void)state;
    assert_int_equal(folder_new_init(&a, top, "one"), 0);
    assert_int_equal(folder_new_init(&b, top, "one"), 0);
    assert_int_equal(folder_new_place(&a), 0);
    assert_int_equal(folder_new_place(&b), -EEXIST);
    folder_new_deinit(&b);
    assert_int_equal(folder_new_init(&c, top, "one"), -EEXIST);
    assert_non_null(strstr(err_text(), "one is there already"));
    folder_new_deinit(&a);
    assert_int_equal(folder_lock(path_of("one"), FOLDER_ALONE, 0, &lock), 0);
    assert_int_equal(folder_remove(top, "one", lock), 0);
    (void)close(lock);
}

/* die_making() - a process that is killed while it makes a folder */
static void die_making(const char *name)
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        struct folder_new f;

        if (folder_new_init(&f, top, name) == 0)
            make_file(f.path, "half");
        (void)kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
}

static int refuse_to_end(void *ctx, const char *path)
{
    (void)path;
    ++*(unsigned *)ctx;
    return -EBUSY;
}

static void what_dead_makers_left_is_swept_and_what_living_ones_make_is_not(void **state)
{
    struct folder_new living;
    unsigned n_asked = 0;

    (void)state;
    assert_int_equal(folder_new_init(&living, top, "living"), 0);
    die_making("dead");
    assert_int_equal(folder_sweep(top, refuse_to_end, &n_asked), 0);
    assert_int_equal(n_asked, 1);
    assert_int_equal(folder_sweep(top, NULL, NULL), 0);
    assert_int_equal(folder_new_place(&living), 0);
    folder_new_deinit(&living);
    assert_int_equal(rmdir(path_of("living")), 0); /* and then top is empty: remove_top() */
}

static void who_has_no_descriptor_left_is_told_so_and_leaves_nothing(void **state)
{
    struct folder_new f;
    struct rlimit few;
    struct rlimit usual;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual), 0);
    few = usual;
    few.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(folder_new_init(&f, top, "one"), -EMFILE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0); /* and top is empty: remove_top() */
}

static void a_lock_is_waited_for_as_long_as_is_said(void **state)
{
    uint64_t begin_ns;
    int shared = -1;
    int lock = -1;

    (void)state;
    assert_int_equal(mkdir(path_of("one"), 0700), 0);
    assert_int_equal(folder_lock(path_of("one"), FOLDER_SHARED, 0, &shared), 0);
    begin_ns = clock_now_ns();
    assert_int_equal(folder_lock(path_of("one"), FOLDER_ALONE, 30, &lock), -EBUSY);
    assert_true(clock_now_ns() - begin_ns >= 30 * NS_PER_MS);
    assert_int_equal(folder_lock(path_of("none"), FOLDER_ALONE, 0, &lock), -ENOENT);
    (void)close(shared);
    assert_int_equal(rmdir(path_of("one")), 0);
}

static void names_are_listed_in_order_without_hidden_ones(void **state)
{
    static const char *const names[] = {"b", "a", ".c", "d"};
    struct folder_list list;

    (void)state;
    assert_int_equal(folder_list(path_of("none"), &list), 0);
    assert_int_equal(list.n, 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_int_equal(mkdir(path_of(names[i]), 0700), 0);
    assert_int_equal(folder_list(top, &list), 0);
    assert_int_equal(list.n, 3);
    assert_string_equal(list.names[0], "a");
    assert_string_equal(list.names[2], "d");
    folder_list_deinit(&list);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_int_equal(rmdir(path_of(names[i])), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_top, remove_top)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_folder_gets_its_name_when_it_is_whole),
        TEST(what_was_not_placed_goes_away_with_all_that_is_in_it),
        TEST(links_out_of_a_folder_are_not_followed_when_it_goes_away),
        TEST(a_name_is_given_once),
        TEST(what_dead_makers_left_is_swept_and_what_living_ones_make_is_not),
        TEST(who_has_no_descriptor_left_is_told_so_and_leaves_nothing),
        TEST(a_lock_is_waited_for_as_long_as_is_said),
        TEST(names_are_listed_in_order_without_hidden_ones),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("folder", tests, NULL, NULL);
}
