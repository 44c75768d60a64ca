/* SPDX-License-Identifier: Apache-2.0 */
/* Files and folders: copied with their holes, linked, removed. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h> /* before cmocka.h */

#include <cmocka.h>

#include "base/err.h"
#include "base/fd.h"
#include "node/tree.h"

static char folder[64];

static const char *in_folder(const char *name)
{
    static char paths[4][PATH_MAX];
    static unsigned next;
    char *path = paths[next++ % 4];

    assert_int_equal(tree_path(path, PATH_MAX, folder, name), 0);
    return path;
}

static int make(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/thaw-tree-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int unmake(void **state)
{
    (void)state;
    return tree_remove(folder);
}

static void write_at(const char *path, off_t at, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, text, strlen(text), at), (ssize_t)strlen(text));
    assert_int_equal(close(fd), 0);
}

static void a_copy_has_the_same_bytes_and_no_more_blocks(void **state)
{
    const char *from = in_folder("from");
    const char *to = in_folder("to");
    struct stat a;
    struct stat b;
    char text[8] = "";
    int fd;

    (void)state;
    write_at(from, 3 * MIB, "three");
    write_at(from, 9 * MIB + 5, "nine");
    assert_int_equal(truncate(from, 16 * MIB), 0);
    assert_int_equal(tree_copy_file(from, to), 0);
    assert_int_equal(stat(from, &a), 0);
    assert_int_equal(stat(to, &b), 0);
    assert_int_equal(a.st_size, b.st_size);
    assert_int_equal(a.st_mode, b.st_mode);
    assert_true(b.st_blocks <= a.st_blocks + 16);
    fd = open(to, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, text, 5, 3 * MIB), 5);
    assert_string_equal(text, "three");
    assert_int_equal(pread(fd, text, 5, 9 * MIB + 5), 5);
    assert_memory_equal(text, "nine\0", 5);
    (void)close(fd);
}

static void a_copy_replaces_nothing(void **state)
{
    (void)state;
    write_at(in_folder("from"), 0, "new");
    write_at(in_folder("to"), 0, "old");
    assert_int_equal(tree_copy_file(in_folder("from"), in_folder("to")), -EEXIST);
    assert_non_null(strstr(err_text(), "/to"));
}

static void a_symbolic_link_is_not_copied(void **state)
{
    (void)state;
    assert_int_equal(symlink("/etc/hostname", in_folder("from")), 0);
    assert_true(tree_copy_file(in_folder("from"), in_folder("to")) < 0);
    assert_false(tree_exists(in_folder("to")));
}

static void nobody_is_waited_for_to_copy_what_is_no_file(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    (void)alarm(10);
    assert_int_equal(tree_copy_file(in_folder("fifo"), in_folder("to")), -EINVAL);
    (void)alarm(0);
    assert_int_equal(access(in_folder("to"), F_OK), -1);
}

static void a_link_is_the_same_file(void **state)
{
    struct stat a;
    struct stat b;

    (void)state;
    write_at(in_folder("from"), 0, "text");
    assert_int_equal(tree_link_file(in_folder("from"), in_folder("to")), 0);
    assert_int_equal(stat(in_folder("from"), &a), 0);
    assert_int_equal(stat(in_folder("to"), &b), 0);
    assert_int_equal(a.st_ino, b.st_ino);
}

static void a_folder_goes_away_with_all_that_is_in_it_and_nothing_that_it_links_to(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_folder("there"), 0700), 0);
    write_at(in_folder("there/file"), 0, "stays");
    assert_int_equal(mkdir(in_folder("gone"), 0700), 0);
    assert_int_equal(mkdir(in_folder("gone/deep"), 0700), 0);
    write_at(in_folder("gone/deep/file"), 0, "goes");
    assert_int_equal(symlink("../../there", in_folder("gone/deep/link")), 0);
    assert_true(tree_bytes(in_folder("gone")) > 0);
    assert_int_equal(tree_remove(in_folder("gone")), 0);
    assert_false(tree_exists(in_folder("gone")));
    assert_true(tree_exists(in_folder("there/file")));
    assert_int_equal(tree_remove(in_folder("gone")), 0);
}

static void a_folder_goes_away_however_deep_it_is(void **state)
{
    char command[128];
    int fd;
    int r;

    (void)state;
    assert_int_equal(mkdir(in_folder("gone"), 0700), 0);
    fd = open(in_folder("gone"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; i < 400; i++) {
        int next;

        assert_int_equal(mkdirat(fd, ".deep.1", 0700), 0);
        assert_int_equal(mkdirat(fd, "b", 0700), 0);
        next = openat(fd, i % 2 ? "b" : ".deep.1", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        (void)fd_close(fd);
        fd = next;
    }
    (void)fd_close(fd);
    r = tree_remove(in_folder("gone"));
    if (r < 0) { /* or what comes after the test would fail in its place */
        (void)snprintf(command, sizeof(command), "rm -rf %s/gone", folder);
        (void)!system(command); /* NOLINT(cert-env33-c,concurrency-mt-unsafe): our own words only */
    }
    assert_int_equal(r, 0);
    assert_false(tree_exists(in_folder("gone")));
}

/* Somebody who puts a file into a folder while it is being removed, as a keeper does. */
static void *put_files(void *path)
{
    for (unsigned i = 0; i < 20; i++) {
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        (void)fd_close(fd);
    }
    return NULL;
}

static void a_folder_goes_away_although_somebody_has_a_last_word(void **state)
{
    const char *gone = in_folder("gone");
    char file[PATH_MAX];
    pthread_t thread;

    (void)state;
    assert_int_equal(mkdir(gone, 0700), 0);
    assert_int_equal(tree_path(file, sizeof(file), gone, "exit"), 0);
    assert_int_equal(pthread_create(&thread, NULL, put_files, file), 0);
    assert_int_equal(tree_remove(gone), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_false(tree_exists(gone));
}

static void only_files_and_folders_are_synced_and_nobody_is_waited_for(void **state)
{
    (void)state;
    write_at(in_folder("file"), 0, "bytes");
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    assert_int_equal(symlink("file", in_folder("link")), 0);
    assert_int_equal(tree_sync(in_folder("file")), 0);
    assert_int_equal(tree_sync(folder), 0);
    (void)alarm(10);
    assert_int_equal(tree_sync(in_folder("fifo")), -EINVAL); /* a VMM may have put it there */
    (void)alarm(0);
    assert_non_null(strstr(err_text(), "neither a file nor a folder"));
    assert_int_equal(tree_sync(in_folder("link")), -ELOOP);
    assert_int_equal(tree_sync(in_folder("none")), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_copy_has_the_same_bytes_and_no_more_blocks, make, unmake),
        cmocka_unit_test_setup_teardown(a_copy_replaces_nothing, make, unmake),
        cmocka_unit_test_setup_teardown(a_symbolic_link_is_not_copied, make, unmake),
        cmocka_unit_test_setup_teardown(nobody_is_waited_for_to_copy_what_is_no_file, make, unmake),
        cmocka_unit_test_setup_teardown(a_link_is_the_same_file, make, unmake),
        cmocka_unit_test_setup_teardown(only_files_and_folders_are_synced_and_nobody_is_waited_for,
                                        make, unmake),
        cmocka_unit_test_setup_teardown(
            a_folder_goes_away_with_all_that_is_in_it_and_nothing_that_it_links_to, make, unmake),
        cmocka_unit_test_setup_teardown(a_folder_goes_away_however_deep_it_is, make, unmake),
        cmocka_unit_test_setup_teardown(a_folder_goes_away_although_somebody_has_a_last_word, make,
                                        unmake),
    };

    return cmocka_run_group_tests_name("tree", tests, NULL, NULL);
}
