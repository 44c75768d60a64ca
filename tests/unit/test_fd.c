/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"

static char folder[64];
static char target[128];

/* ---- what is synced and renamed, in which order, through the linker's --wrap ----------------------------------- */

/* A letter a call: s a file was synced, r a file got its name, d a folder was synced; capital: it was made to fail. */
static char calls[16];
static char failing; /* the letter of the call that fails; 0: none */
static int failing_errno;
static ino_t synced_folder; /* the last one */

int __real_fsync(int fd);                            /* NOLINT: the linker's names */
int __wrap_fsync(int fd);                            /* NOLINT */
int __real_rename(const char *from, const char *to); /* NOLINT */
int __wrap_rename(const char *from, const char *to); /* NOLINT */

/* fails() - note the call. Return: whether it is the one that fails */
static bool fails(char letter)
{
    size_t n = strlen(calls);
    bool yes = letter == failing;

    assert_true(n + 1 < sizeof(calls));
    calls[n] = yes ? (char)toupper(letter) : letter;
    if (yes)
        errno = failing_errno;
    return yes;
}

int __wrap_fsync(int fd) /* NOLINT */
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    if (S_ISDIR(st.st_mode))
        synced_folder = st.st_ino;
    return fails(S_ISDIR(st.st_mode) ? 'd' : 's') ? -1 : __real_fsync(fd);
}

int __wrap_rename(const char *from, const char *to) /* NOLINT */
{
    return fails('r') ? -1 : __real_rename(from, to);
}

static int make_folder(void **state)
{
    (void)state;
    memset(calls, 0, sizeof(calls));
    failing = 0;
    (void)snprintf(folder, sizeof(folder), "%s", "/tmp/thaw-test-fd.XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    (void)snprintf(target, sizeof(target), "%s/file", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    (void)unlink(target);
    (void)rmdir(target);
    return rmdir(folder); /* fails the test when something was left behind */
}

static unsigned count_entries(void)
{
    DIR *d = opendir(folder);
    unsigned n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    assert_int_equal(closedir(d), 0);
    return n - 2; /* . and .. */
}

static void check_content(const char *expected)
{
    char buf[256] = "";
    _cleanup_fd_ int fd = open(target, O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_true(read(fd, buf, sizeof(buf) - 1) >= 0);
    assert_string_equal(buf, expected);
}

static int put(const char *text)
{
    return file_replace(target, text, strlen(text));
}

static void closing_keeps_errno_and_gives_minus_one(void **state)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    (void)state;
    assert_true(fd >= 0);
    errno = E2BIG;
    assert_int_equal(fd_close(fd), -1);
    assert_int_equal(errno, E2BIG);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    errno = E2BIG;
    assert_int_equal(fd_close(-1), -1);
    assert_int_equal(errno, E2BIG);
}

static void all_is_written_through_a_narrow_pipe(void **state)
{
    static char out[100000];
    static char in[sizeof(out)];
    int ends[2];
    size_t got = 0;
    pid_t child;

    (void)state;
    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (char)(i * 31);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)close(ends[0]);
        _exit(fd_write_all(ends[1], out, sizeof(out)) == 0 ? 0 : 1);
    }
    ends[1] = fd_close(ends[1]);
    for (ssize_t n; (n = read(ends[0], in + got, sizeof(in) - got)) > 0;)
        got += (size_t)n;
    assert_int_equal(got, sizeof(out));
    assert_memory_equal(in, out, sizeof(out));
    ends[0] = fd_close(ends[0]);
}

static void a_write_that_fails_says_why(void **state)
{
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(fd_write_all(fd, "x", 1), -ENOSPC);
    assert_int_equal(fd_write_all(fd, "", 0), 0);
    fd = fd_close(fd);
    assert_int_equal(fd_write_all(-1, "x", 1), -EBADF);
}

static void a_lock_is_waited_for_until_the_deadline(void **state)
{
    int one = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int other = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    uint64_t until_ns;

    (void)state;
    assert_true(one >= 0 && other >= 0);
    assert_int_equal(fd_lock(one, LOCK_EX, 0), 0);
    until_ns = clock_now_ns() + 20 * NS_PER_MS;
    assert_int_equal(fd_lock(other, LOCK_SH, until_ns), -EWOULDBLOCK);
    assert_true(clock_now_ns() >= until_ns);
    one = fd_close(one);
    assert_int_equal(fd_lock(other, LOCK_SH, 0), 0);
    other = fd_close(other);
    assert_int_equal(fd_lock(-1, LOCK_SH, UINT64_MAX), -EBADF);
}

static void a_file_is_created_and_replaced_whole(void **state)
{
    struct stat st;

    (void)state;
    assert_int_equal(put("one"), 0);
    check_content("one");
    assert_int_equal(put("two, longer"), 0);
    check_content("two, longer");
    assert_int_equal(put(""), 0);
    check_content("");
    assert_int_equal(count_entries(), 1);
    assert_int_equal(stat(target, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
}

static void a_reader_that_has_the_old_file_open_keeps_it(void **state)
{
    char buf[16] = "";
    int fd;

    (void)state;
    assert_int_equal(put("old"), 0);
    fd = open(target, O_RDONLY | O_CLOEXEC);
    assert_int_equal(put("new"), 0);
    assert_int_equal(read(fd, buf, sizeof(buf) - 1), 3);
    assert_string_equal(buf, "old");
    fd = fd_close(fd);
}

/* The kernel refuses to make a file longer than RLIMIT_FSIZE: a disk that fills up half way through. */
static void a_disk_that_fills_up_leaves_the_old_content_and_nothing_else(void **state)
{
    static char big[100000];
    struct rlimit was;
    struct rlimit small;
    int r;

    (void)state;
    assert_int_equal(put("old"), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = (struct rlimit){.rlim_cur = 4096, .rlim_max = was.rlim_max};
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    r = file_replace(target, big, sizeof(big));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(r, -EFBIG);
    assert_non_null(strstr(err_text(), target));
    check_content("old");
    assert_int_equal(count_entries(), 1);
}

static void a_target_that_cannot_be_replaced_leaves_nothing_behind(void **state)
{
    (void)state;
    assert_int_equal(mkdir(target, 0755), 0);
    assert_true(put("text") < 0);
    assert_non_null(strstr(err_text(), target));
    assert_int_equal(count_entries(), 1);
}

static void a_folder_that_is_not_there_is_named(void **state)
{
    char path[256];

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/none/file", folder);
    assert_int_equal(file_replace(path, "x", 1), -ENOENT);
    assert_non_null(strstr(err_text(), path));
}

static void a_name_that_is_too_long_is_refused(void **state)
{
    static char path[PATH_MAX + 10];

    (void)state;
    memset(path, 'x', sizeof(path) - 1);
    assert_int_equal(file_replace(path, "x", 1), -ENAMETOOLONG);
}

static int put_durably(const char *text)
{
    return file_replace_durable(target, text, strlen(text), -1);
}

static void what_need_not_last_waits_for_no_disk(void **state)
{
    (void)state;
    assert_int_equal(put("text"), 0);
    assert_string_equal(calls, "r");
}

static void what_must_last_is_on_the_disk_before_it_has_its_name_and_its_name_after_that(
    void **state)
{
    struct stat st;

    (void)state;
    assert_int_equal(put_durably("one"), 0);
    assert_string_equal(calls, "srd");
    check_content("one");
    assert_int_equal(put_durably("two"), 0);
    check_content("two");
    assert_int_equal(count_entries(), 1);
    assert_int_equal(stat(target, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
}

static void a_folder_that_is_open_already_is_not_opened_again(void **state)
{
    char other[] = "/tmp/thaw-test-fd.XXXXXX";
    struct stat st;
    int dir_fd;

    (void)state;
    /* Another folder in its place: that it is the one that is synced shows that none is opened. */
    assert_non_null(mkdtemp(other));
    dir_fd = open(other, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir_fd >= 0);
    assert_int_equal(rmdir(other), 0);
    assert_int_equal(file_replace_durable(target, "x", 1, dir_fd), 0);
    assert_string_equal(calls, "srd");
    check_content("x");
    assert_int_equal(fstat(dir_fd, &st), 0);
    assert_true(synced_folder == st.st_ino);
    dir_fd = fd_close(dir_fd);
}

static void a_name_without_a_folder_is_in_the_current_one(void **state)
{
    int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    (void)state;
    assert_true(here >= 0);
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(file_replace_durable("file", "x", 1, -1), 0);
    assert_int_equal(fchdir(here), 0);
    assert_string_equal(calls, "srd");
    check_content("x");
    here = fd_close(here);
}

static void a_disk_that_fails_leaves_the_old_content_and_nothing_else(void **state)
{
    static const char *const failed[] = {"S", "sR"};

    (void)state;
    assert_int_equal(put("old"), 0);
    for (size_t i = 0; i < ARRAY_LEN(failed); i++) {
        memset(calls, 0, sizeof(calls));
        failing = (char)tolower(failed[i][i]);
        failing_errno = EIO;
        assert_int_equal(put_durably("new"), -EIO);
        assert_string_equal(calls, failed[i]);
        assert_non_null(strstr(err_text(), target));
        check_content("old");
        assert_int_equal(count_entries(), 1);
    }
}

static void a_folder_that_cannot_be_synced_is_an_error_and_the_file_is_whole(void **state)
{
    (void)state;
    assert_int_equal(put("old"), 0);
    failing = 'd';
    failing_errno = EIO;
    assert_int_equal(put_durably("new"), -EIO);
    assert_non_null(strstr(err_text(), target));
    check_content("new");
    assert_int_equal(count_entries(), 1);
}

static void a_file_system_that_syncs_no_folders_is_no_error(void **state)
{
    (void)state;
    failing = 'd';
    failing_errno = EINVAL;
    assert_int_equal(put_durably("new"), 0);
    check_content("new");
}

static void without_its_folder_nothing_is_made_durable(void **state)
{
    char path[256];

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/none/file", folder);
    assert_int_equal(file_replace_durable(path, "x", 1, -1), -ENOENT);
    assert_non_null(strstr(err_text(), path));
    assert_string_equal(calls, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closing_keeps_errno_and_gives_minus_one),
        cmocka_unit_test(all_is_written_through_a_narrow_pipe),
        cmocka_unit_test(a_lock_is_waited_for_until_the_deadline),
        cmocka_unit_test(a_write_that_fails_says_why),
        cmocka_unit_test_setup_teardown(a_file_is_created_and_replaced_whole, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_reader_that_has_the_old_file_open_keeps_it, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(
            a_disk_that_fills_up_leaves_the_old_content_and_nothing_else, make_folder,
            remove_folder),
        cmocka_unit_test_setup_teardown(a_target_that_cannot_be_replaced_leaves_nothing_behind,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_folder_that_is_not_there_is_named, make_folder,
                                        remove_folder),
        cmocka_unit_test(a_name_that_is_too_long_is_refused),
        cmocka_unit_test_setup_teardown(what_need_not_last_waits_for_no_disk, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(
            what_must_last_is_on_the_disk_before_it_has_its_name_and_its_name_after_that,
            make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_folder_that_is_open_already_is_not_opened_again,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_name_without_a_folder_is_in_the_current_one, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_disk_that_fails_leaves_the_old_content_and_nothing_else,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(
            a_folder_that_cannot_be_synced_is_an_error_and_the_file_is_whole, make_folder,
            remove_folder),
        cmocka_unit_test_setup_teardown(a_file_system_that_syncs_no_folders_is_no_error,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(without_its_folder_nothing_is_made_durable, make_folder,
                                        remove_folder),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("fd", tests, NULL, NULL);
}
