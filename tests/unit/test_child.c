/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/procfs.h"
#include "vmm/child.h"

#define LONG_MS 20000u

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "%s", "/tmp/thaw-test-child.XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

/* remove_folder() - all files in it; fails the test when something else was left behind */
static int remove_folder(void **state)
{
    DIR *dir = opendir(folder);
    struct dirent *e;

    (void)state;
    while (dir && (e = readdir(dir)))
        (void)unlinkat(dirfd(dir), e->d_name, 0);
    if (dir)
        closedir(dir);
    return rmdir(folder);
}

static const char *in_folder(const char *name)
{
    static char path[256];

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

/* content() - of a file of the folder, its newlines as blanks; "" if there is none */
static const char *content(const char *name)
{
    static char text[8192];
    int fd = open(in_folder(name), O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

    (void)fd_close(fd);
    text[n < 0 ? 0 : n] = '\0';
    for (char *c = text; *c; c++)
        *c = *c == '\n' ? ' ' : *c;
    return text;
}

static void wait_for_file(const char *name)
{
    uint64_t deadline_ns = clock_now_ns() + LONG_MS * NS_PER_MS;

    while (content(name)[0] == '\0') {
        assert_true(clock_now_ns() < deadline_ns);
        (void)usleep(1000);
    }
}

/* a_spec() - a shell that runs @script */
static struct child_spec a_spec(const char **argv, const char *script)
{
    argv[0] = "sh";
    argv[1] = "-c";
    argv[2] = script;
    argv[3] = NULL;
    return (struct child_spec){
        .argv = argv,
        .folder = folder,
        .stdin_fd = -1,
        .stdout_fd = -1,
        .stderr_fd = -1,
        .exit_file = "exit",
    };
}

static struct vmm_id start(const char *script)
{
    const char *argv[4];
    struct child_spec spec = a_spec(argv, script);
    struct vmm_id id = {0};

    assert_int_equal(child_start(&spec, &id), 0);
    return id;
}

/* ---- what it gets ---------------------------------------------------------------------------------------------- */

static void a_program_runs_in_its_folder_with_the_output_that_it_was_given(void **state)
{
    const char *argv[4];
    struct child_spec spec = a_spec(argv, "pwd; cat; echo to stderr >&2");
    struct vmm_id id;
    int log = child_log_open(in_folder("log"));
    uint64_t ticks = 0;

    (void)state;
    assert_true(log >= 0);
    spec.stdout_fd = spec.stderr_fd = log;
    assert_int_equal(child_start(&spec, &id), 0);
    (void)fd_close(log);
    if (procfs_start_ticks(id.pid, &ticks) == 0)
        assert_int_equal(ticks, id.start_ticks);
    assert_int_equal(child_wait_end(id, LONG_MS), 0);
    wait_for_file("exit");
    assert_string_equal(content("exit"), "exited 0 ");
    assert_non_null(strstr(content("log"), folder));
    assert_non_null(strstr(content("log"), " to stderr "));
}

static void a_program_has_no_descriptor_but_the_three_and_no_signal_blocked_or_ignored(void **state)
{
    const char *argv[4];
    struct child_spec spec =
        a_spec(argv, "ls /proc/self/fd >fds; grep -E 'Sig(Blk|Ign)' /proc/self/status >sigs");
    struct vmm_id id;
    int inherited =
        open("/dev/null", O_RDONLY); /* NOLINT(android-cloexec-open): that is the point */
    sigset_t blocked, before;
    unsigned long long is_blocked, is_ignored;

    (void)state;
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGUSR1);
    (void)pthread_sigmask(SIG_BLOCK, &blocked, &before);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGCHLD, SIG_IGN); /* a starter that takes no notice of its children */
    assert_int_equal(child_start(&spec, &id), 0);
    (void)signal(SIGCHLD, SIG_DFL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)fd_close(inherited);
    wait_for_file("exit");
    assert_string_equal(content("fds"), "0 1 2 3 "); /* 3 is the folder that ls reads */
    /* Two signals, 32 and 33, the C library keeps for itself: it changes nothing that a starter's starter did to them. */
    assert_int_equal(sscanf(content("sigs"), "SigBlk: %llx SigIgn: %llx", &is_blocked, &is_ignored),
                     2);
    assert_int_equal(is_blocked, 0);
    assert_int_equal(is_ignored & ~(3ull << 31), 0);
}

static void the_environment_is_changed_as_it_was_asked_for(void **state)
{
    static const char *const env[] = {"THAW_A=new", "THAW_C", "THAW_D=more", "THAW_ABSENT", NULL};
    const char *argv[4];
    struct child_spec spec = a_spec(argv, "env | grep ^THAW_[ABCD] | sort >env");
    struct vmm_id id;

    (void)state;
    (void)setenv("THAW_A", "old", 1);
    (void)setenv("THAW_B", "kept", 1);
    (void)setenv("THAW_C", "unwanted", 1);
    spec.env = env;
    assert_int_equal(child_start(&spec, &id), 0);
    wait_for_file("exit");
    assert_string_equal(content("env"), "THAW_A=new THAW_B=kept THAW_D=more ");
    assert_string_equal(getenv("THAW_A"), "old");
}

static void the_id_file_is_there_before_the_program_runs(void **state)
{
    const char *argv[4];
    struct child_spec spec = a_spec(argv, "cat pid >seen; echo $$ >own");
    struct vmm_id id, read_back;
    char expected[64];

    (void)state;
    spec.id_file = "pid";
    assert_int_equal(child_start(&spec, &id), 0);
    wait_for_file("exit");
    (void)snprintf(expected, sizeof(expected), "%d %llu ", id.pid,
                   (unsigned long long)id.start_ticks);
    assert_string_equal(content("seen"), expected);
    assert_int_equal(atoi(content("own")), id.pid);
    assert_int_equal(child_id_read(in_folder("pid"), &read_back), 0);
    assert_int_equal(read_back.pid, id.pid);
    assert_int_equal(read_back.start_ticks, id.start_ticks);
    assert_true(child_id_read(in_folder("seen-not"), &read_back) < 0);
    assert_int_equal(file_replace(in_folder("bad"), "x\n", 2), 0);
    assert_int_equal(child_id_read(in_folder("bad"), &read_back), -EINVAL);
}

/* ---- what cannot be started ------------------------------------------------------------------------------------ */

static int start_error(const char *program, const char *where)
{
    const char *argv[4];
    struct child_spec spec = a_spec(argv, "");
    struct vmm_id id = {0};
    int r;

    argv[0] = program;
    spec.folder = where;
    spec.id_file = "pid";
    r = child_start(&spec, &id);
    assert_true(r < 0);
    assert_int_equal(id.pid, 0);
    return r;
}

static void a_program_that_cannot_be_executed_is_an_error_that_says_why(void **state)
{
    char script[256];

    (void)state;
    assert_int_equal(start_error("thaw-no-such-program", folder), -ENOENT);
    assert_non_null(strstr(err_text(), "no program thaw-no-such-program on PATH"));
    assert_int_equal(start_error("/nowhere/vmm", folder), -ENOENT);
    assert_non_null(strstr(err_text(), "no program /nowhere/vmm"));
    assert_int_equal(start_error("/etc/passwd", folder), -EACCES);
    assert_int_equal(start_error("sh", "/nowhere"), -ENOENT);
    assert_non_null(strstr(err_text(), "cannot enter its folder"));
    /* One that is there and may be run, and still is no program. */
    (void)snprintf(script, sizeof(script), "%s", in_folder("script"));
    assert_int_equal(file_replace(script, "#!/nowhere/interpreter\n", 23), 0);
    assert_int_equal(chmod(script, 0755), 0);
    assert_int_equal(start_error(script, folder), -ENOENT);
    assert_non_null(strstr(err_text(), "cannot be executed: No such file"));
    assert_int_equal(access(in_folder("exit"), F_OK), -1);
}

/* ---- who dies when --------------------------------------------------------------------------------------------- */

static void the_starter_may_die_and_the_end_is_written_down_all_the_same(void **state)
{
    struct vmm_id id;
    pid_t starter;

    (void)state;
    starter = fork();
    assert_true(starter >= 0);
    if (starter == 0) {
        const char *argv[4];
        struct child_spec spec = a_spec(argv, "while [ ! -e go ]; do sleep 0.01; done; exit 148");

        (void)setsid();
        spec.id_file = "pid";
        _exit(child_start(&spec, &id) == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(starter, NULL, 0), starter);
    (void)kill(-starter, SIGKILL); /* all that belonged to it */
    assert_int_equal(child_id_read(in_folder("pid"), &id), 0);
    assert_false(child_has_ended(id));
    assert_int_equal(content("exit")[0], '\0');
    assert_int_equal(file_replace(in_folder("go"), "x", 1), 0);
    wait_for_file("exit");
    assert_string_equal(content("exit"), "exited 148 ");
    assert_true(child_has_ended(id));
}

#define N_KILLS 40u

/* kill_starter() - somewhere on its way to a program that says in the file ran.N that it ran */
static void kill_starter(struct rng *rng, unsigned n)
{
    char script[64] = "", id_file[16], exit_file[16];
    const char *argv[4];
    struct child_spec spec = a_spec(argv, script);
    pid_t starter;

    (void)snprintf(script, sizeof(script), "echo $$ >ran.%u; exec sleep 60", n);
    (void)snprintf(id_file, sizeof(id_file), "pid.%u", n);
    (void)snprintf(exit_file, sizeof(exit_file), "exit.%u", n);
    spec.id_file = id_file;
    spec.exit_file = exit_file;
    starter = fork();
    if (starter == 0) {
        struct vmm_id id;

        _exit(child_start(&spec, &id) == 0 ? 0 : 1);
    }
    (void)usleep((useconds_t)rng_below(rng, 6000));
    (void)kill(starter, SIGKILL);
    assert_int_equal(waitpid(starter, NULL, 0), starter);
}

/* A starter that is killed at any moment leaves a program that can be found, or none. */
static void a_starter_that_is_killed_while_it_starts_leaves_nothing_unknown(void **state)
{
    struct rng rng = rng_init("killed while it starts");
    char name[16];

    (void)state;
    for (unsigned i = 0; i < N_KILLS; i++)
        kill_starter(&rng, i);
    for (unsigned i = 0; i < N_KILLS; i++) {
        struct vmm_id id;
        bool ran;

        (void)snprintf(name, sizeof(name), "ran.%u", i);
        ran = access(in_folder(name), F_OK) == 0;
        (void)snprintf(name, sizeof(name), "pid.%u", i);
        if (child_id_read(in_folder(name), &id) < 0) {
            assert_false(ran);
            continue;
        }
        assert_int_equal(child_kill(id, LONG_MS), 0);
        (void)snprintf(name, sizeof(name), "exit.%u", i);
        wait_for_file(name);
    }
}

static void a_program_that_is_killed_has_ended_by_that_signal(void **state)
{
    struct vmm_id id = start("exec sleep 60");
    char text[64];

    (void)state;
    assert_false(child_has_ended(id));
    assert_int_equal(child_wait_end(id, 10), -ETIMEDOUT);
    assert_int_equal(child_kill(id, LONG_MS), 0);
    assert_true(child_has_ended(id));
    assert_int_equal(child_wait_end(id, 0), 0);
    assert_int_equal(child_kill(id, 0), 0);
    wait_for_file("exit");
    assert_int_equal(child_signal(id, SIGTERM), -ESRCH);
    child_end_text(child_end_read(in_folder("exit")), text, sizeof(text));
    assert_string_equal(text, "killed by signal 9 (KILL)");
}

static void a_zombie_and_another_process_of_that_number_count_as_ended(void **state)
{
    pid_t zombie = fork();
    struct vmm_id id = {.pid = zombie};
    struct vmm_id other = {.pid = getpid()};

    (void)state;
    if (zombie == 0)
        _exit(0);
    assert_int_equal(procfs_start_ticks(zombie, &id.start_ticks), 0);
    assert_int_equal(child_wait_end(id, LONG_MS), 0);
    assert_true(child_has_ended(id));
    assert_int_equal(waitpid(zombie, NULL, 0), zombie);
    assert_true(child_has_ended(id));
    assert_int_equal(procfs_start_ticks(other.pid, &other.start_ticks), 0);
    assert_false(child_has_ended(other));
    other.start_ticks++;
    assert_true(child_has_ended(other));
    assert_int_equal(child_signal(other, SIGKILL), -ESRCH);
    assert_int_equal(child_kill(other, 0), 0); /* or this would be the test's end */
    assert_true(child_has_ended((struct vmm_id){0}));
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

static void how_a_program_ended_is_read_from_its_file_or_unknown(void **state)
{
    static const struct {
        const char *line, *text;
    } cases[] = {
        {"exited 148\n", "exited with status 148"},
        {"signal 11\n", "killed by signal 11 (SEGV)"},
        {"signal 40\n", "killed by signal 40"},
        {"exited\n", "ended, nobody knows how"},
        {"", "ended, nobody knows how"},
    };
    char text[64];

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(file_replace(in_folder("exit"), cases[i].line, strlen(cases[i].line)), 0);
        child_end_text(child_end_read(in_folder("exit")), text, sizeof(text));
        assert_string_equal(text, cases[i].text);
    }
    assert_int_equal(child_end_read(in_folder("none")).how, CHILD_UNKNOWN);
}

static const char *last_line_of(const char *text)
{
    static char line[64];

    assert_int_equal(file_replace(in_folder("log"), text, strlen(text)), 0);
    log_last_line(in_folder("log"), line, sizeof(line));
    return line;
}

static void the_last_line_of_a_log_is_the_last_one_with_something_in_it(void **state)
{
    char big[20000];
    char line[8];

    (void)state;
    assert_string_equal(last_line_of("one\ntwo\n"), "two");
    assert_string_equal(last_line_of("one\ntwo"), "two");
    assert_string_equal(last_line_of("one\ntwo \r\n\n  \n"), "two");
    assert_string_equal(last_line_of("one"), "one");
    assert_string_equal(last_line_of("one\n\033[1mtwo\t2\n"), "?[1mtwo?2");
    assert_string_equal(last_line_of(""), "");
    assert_string_equal(last_line_of("\n\n"), "");
    memset(big, 'x', sizeof(big));
    (void)snprintf(big + sizeof(big) - 8, 8, "\nlast\n");
    assert_string_equal(last_line_of(big), "last");
    log_last_line(in_folder("none"), line, sizeof(line));
    assert_string_equal(line, "");
}

static void a_log_is_a_new_file_whatever_was_there(void **state)
{
    int old = child_log_open(in_folder("log"));
    int new;

    (void)state;
    new = child_log_open(in_folder("log"));
    assert_true(old >= 0 && new >= 0);
    assert_int_equal(fd_write_all(old, "old", 3), 0);
    assert_int_equal(fd_write_all(new, "new", 3), 0);
    (void)fd_close(old);
    (void)fd_close(new);
    assert_string_equal(content("log"), "new");
    assert_true(child_log_open("/nowhere/log") < 0);
}

/* ---- what programs print --------------------------------------------------------------------------------------- */

static void what_a_program_prints_is_its_stdout_and_its_stderr_tells_why_it_failed(void **state)
{
    const char *good[] = {"sh", "-c", "echo noise >&2; echo version 1.2", NULL};
    const char *bad[] = {"sh", "-c", "echo wrong word >&2; echo more >&2; exit 3", NULL};
    const char *slow[] = {"sh", "-c", "exec sleep 60", NULL};
    const char *deaf[] = {"sh", "-c", "exec sleep 60 >/dev/null 2>&1", NULL};
    const char *none[] = {"thaw-no-such-program", "--version", NULL};
    const char *endless[] = {"sh", "-c", "exec cat /dev/zero", NULL};
    const char *much[] = {"sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x", NULL};
    char *text = NULL;

    (void)state;
    assert_int_equal(program_output(good, LONG_MS, &text), 0);
    assert_string_equal(text, "version 1.2\n");
    free(text);
    assert_int_equal(program_output(bad, LONG_MS, &text), -EIO);
    assert_non_null(strstr(err_text(), "exited with status 3: wrong word"));
    assert_int_equal(program_output(slow, 50, &text), -ETIMEDOUT);
    assert_int_equal(program_output(deaf, 50, &text), -ETIMEDOUT);
    assert_int_equal(program_output(endless, 50, &text), -ETIMEDOUT);
    assert_int_equal(program_output(none, LONG_MS, &text), -ENOENT);
    assert_int_equal(program_output(much, LONG_MS, &text), 0);
    assert_int_equal(strlen(text), 65536);
    free(text);
}

static void a_name_with_a_slash_is_not_looked_for_on_path(void **state)
{
    char *path = NULL;
    char here[PATH_MAX];

    (void)state;
    assert_int_equal(program_find("sh", &path), 0);
    assert_int_equal(path[0], '/');
    free(path);
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(file_replace("tool", "#!/bin/sh\n", 10), 0);
    assert_int_equal(chmod("tool", 0755), 0);
    assert_int_equal(program_find("./tool", &path), 0);
    assert_int_equal(access(path, X_OK), 0);
    assert_int_equal(path[0], '/');
    free(path);
    assert_int_equal(program_find("tool", &path), -ENOENT);
    assert_int_equal(program_find("./tool/sub", &path), -ENOENT);
    assert_int_equal(program_find("./", &path), -EACCES);
    assert_int_equal(chdir(here), 0);
}

/* ---- which content a program has ------------------------------------------------------------------------------- */

/* put_program() - Return: @path */
static const char *put_program(const char *path, const char *content)
{
    assert_int_equal(file_replace(path, content, strlen(content)), 0);
    assert_int_equal(chmod(path, 0755), 0);
    return path;
}

/* stamp_of() - "" if it has none. Return: (give) */
static char *stamp_of(const char *path)
{
    char *stamp = NULL;

    assert_int_equal(program_stamp(path, &stamp), 0);
    return stamp ? stamp : strdup("");
}

static void another_program_has_another_stamp_and_a_script_has_none(void **state)
{
    static const char binary[] = "\177ELF and what is behind it";
    char *path = strdup(in_folder("program"));
    char *first = stamp_of(put_program(path, binary));
    char *again = stamp_of(path);
    char *other, *script;

    (void)state;
    assert_string_equal(again, first);
    assert_non_null(strstr(first, "/program "));
    /* of the same length */
    assert_int_equal(rename(put_program(in_folder("new"), binary), path), 0);
    other = stamp_of(path);
    assert_string_not_equal(other, first);
    script = stamp_of(put_program(path, "#!/bin/sh\n"));
    assert_string_equal(script, "");
    free(first);
    free(again);
    free(other);
    free(script);
    assert_int_equal(program_stamp("/nowhere/program", &other), -ENOENT);
    free(path);
}

#define IN_FOLDER(fn) cmocka_unit_test_setup_teardown(fn, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_program_runs_in_its_folder_with_the_output_that_it_was_given),
        IN_FOLDER(a_program_has_no_descriptor_but_the_three_and_no_signal_blocked_or_ignored),
        IN_FOLDER(the_environment_is_changed_as_it_was_asked_for),
        IN_FOLDER(the_id_file_is_there_before_the_program_runs),
        IN_FOLDER(a_program_that_cannot_be_executed_is_an_error_that_says_why),
        IN_FOLDER(the_starter_may_die_and_the_end_is_written_down_all_the_same),
        IN_FOLDER(a_starter_that_is_killed_while_it_starts_leaves_nothing_unknown),
        IN_FOLDER(a_program_that_is_killed_has_ended_by_that_signal),
        IN_FOLDER(a_zombie_and_another_process_of_that_number_count_as_ended),
        IN_FOLDER(how_a_program_ended_is_read_from_its_file_or_unknown),
        IN_FOLDER(the_last_line_of_a_log_is_the_last_one_with_something_in_it),
        IN_FOLDER(a_log_is_a_new_file_whatever_was_there),
        IN_FOLDER(what_a_program_prints_is_its_stdout_and_its_stderr_tells_why_it_failed),
        IN_FOLDER(a_name_with_a_slash_is_not_looked_for_on_path),
        IN_FOLDER(another_program_has_another_stamp_and_a_script_has_none),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("child", tests, NULL, NULL);
}
