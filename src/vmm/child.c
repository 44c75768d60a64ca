/* SPDX-License-Identifier: Apache-2.0 */
/*
 * child.c - start a program that outlives its starter
 *
 *     starter ---fork---> (between) ---fork---> keeper ---fork---> program
 *        <------------ report --------------------|   <--- line ---->|
 *
 * The one in between makes a session and ends at once, so that the keeper is nobody's child: it becomes no zombie of the
 * starter, and no terminal or process group of the starter reaches it. The keeper ignores all signals that can be ignored
 * and keeps no descriptor but its ends of the two connections, until the program runs; then it waits, writes the exit file
 * and ends.
 *
 * Who dies when, and what becomes of the others:
 *
 *     the starter, before it has heard the report    the keeper's report fails: it kills the program, which nobody knows of
 *     the starter, afterwards                        nothing
 *     the keeper, before it has let the program go   the program reads the end of the line and ends before it becomes one
 *     the keeper, afterwards                         nothing, but nobody writes down how the program ended
 *
 * The program is let go when the id file has been written. So there is no moment at which it runs and cannot be found by
 * who looks into its folder.
 *
 * What is made before the first fork (the program's path, its environment) needs memory; afterwards each process is alone
 * with what it has, as other threads of the starter may have held locks.
 */

#include "vmm/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/procfs.h"

#define START_NS          (10 * NS_PER_S) /* a keeper that has not reported by then never will */
#define FD_OUT_OF_THE_WAY 10              /* descriptors go here before 0 to 3 are given out */

/* enum step - what the keeper was at when something failed */
enum step {
    STEP_NONE,
    STEP_FOLDER,
    STEP_FORK,
    STEP_FDS,
    STEP_ID_FILE,
    STEP_EXEC,
};

static const char *const step_texts[] = {
    [STEP_FOLDER] = "cannot enter its folder",    [STEP_FORK] = "no process could be made",
    [STEP_FDS] = "cannot set up its descriptors", [STEP_ID_FILE] = "cannot write its id file",
    [STEP_EXEC] = "it cannot be executed",
};

/* struct report - what the keeper tells the starter, and the program the keeper */
struct report {
    enum step failed;
    int neg_errno;
    struct vmm_id id;
};

/* struct start - what all of them know */
struct start {
    const struct child_spec *spec;
    char *program;     /* absolute */
    const char **env;  /* (borrowed strings) */
    int report_fd;     /* the keeper's end */
    sigset_t old_mask; /* of the starter's thread */
};

static void start_deinit(struct start *s)
{
    free(s->program);
    free(s->env);
    s->report_fd = fd_close(s->report_fd);
}

/* ---- the program, before it is one ----------------------------------------------------------------------------- */

static __attribute__((noreturn)) void fail(int line, enum step step)
{
    struct report report = {.failed = step, .neg_errno = -errno};

    (void)!write(line, &report, sizeof(report));
    _exit(127);
}

static void signals_set(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    sigset_t none;

    for (int i = 1; i < NSIG; i++)
        (void)sigaction(i, &action, NULL); /* those that cannot be changed need not be */
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* fds_set() - the three that are given, @line as number 3 until the program is executed, and no others */
static int fds_set(const struct child_spec *spec, int *line)
{
    const int given[] = {spec->stdin_fd, spec->stdout_fd, spec->stderr_fd};
    int aside[ARRAY_LEN(given)];
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    *line = fcntl(*line, F_DUPFD_CLOEXEC, FD_OUT_OF_THE_WAY);
    if (null < 0 || *line < 0)
        return -errno;
    for (unsigned i = 0; i < ARRAY_LEN(given); i++) {
        aside[i] = fcntl(given[i] < 0 ? null : given[i], F_DUPFD_CLOEXEC, FD_OUT_OF_THE_WAY);
        if (aside[i] < 0)
            return -errno;
    }
    for (unsigned i = 0; i < ARRAY_LEN(given); i++) {
        if (dup2(aside[i], (int)i) < 0)
            return -errno;
    }
    if (dup3(*line, 3, O_CLOEXEC) < 0)
        return -errno;
    *line = 3;
    closefrom(4);
    return 0;
}

/* be_program() - wait until the keeper lets it go, then become the program */
static __attribute__((noreturn)) void be_program(const struct start *s, int line)
{
    char go;

    (void)setpgid(0, 0);
    if (fds_set(s->spec, &line) < 0)
        fail(line, STEP_FDS);
    signals_set(SIG_DFL);
    if (read(line, &go, 1) != 1)
        _exit(127);
    (void)execve(s->program, (char *const *)(uintptr_t)s->spec->argv,
                 (char *const *)(uintptr_t)s->env);
    fail(line, STEP_EXEC);
}

/* ---- the keeper ------------------------------------------------------------------------------------------------ */

static int id_write(const char *path, struct vmm_id id)
{
    char text[64];
    int n = snprintf(text, sizeof(text), "%d %llu\n", id.pid, (unsigned long long)id.start_ticks);

    return file_replace(path, text, (size_t)n);
}

/* let_go() - the program's id, its id file, then the program itself. @report: what came of it */
static void let_go(const struct start *s, int line, struct report *report)
{
    struct report heard;
    int r = procfs_start_ticks(report->id.pid, &report->id.start_ticks);

    if (r == 0 && s->spec->id_file)
        r = id_write(s->spec->id_file, report->id);
    if (r < 0) {
        report->failed = STEP_ID_FILE;
        report->neg_errno = r;
        return;
    }
    (void)!write(line, "g", 1); /* one that has failed already has said so */
    /* The end of the line is the good answer: it was closed by executing the program. */
    if (read(line, &heard, sizeof(heard)) == sizeof(heard)) {
        report->failed = heard.failed;
        report->neg_errno = heard.neg_errno;
    }
}

static void exit_write(const char *path, int status)
{
    char text[32];
    int n = WIFSIGNALED(status) ? snprintf(text, sizeof(text), "signal %d\n", WTERMSIG(status))
                                : snprintf(text, sizeof(text), "exited %d\n", WEXITSTATUS(status));

    (void)file_replace(path, text, (size_t)n); /* without a folder nobody asks */
}

static int wait_for(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return status;
}

static bool report_send(int fd, const struct report *report)
{
    return write(fd, report, sizeof(*report)) == sizeof(*report);
}

/* keep() - the program has been forked: see it through to its end */
static void keep(const struct start *s, int line, struct report *report)
{
    const struct child_spec *spec = s->spec;
    int status;

    let_go(s, line, report);
    if (report->failed != STEP_NONE)
        (void)kill(report->id.pid, SIGKILL);
    if (!report_send(0, report))
        (void)kill(report->id.pid, SIGKILL);
    closefrom(0);
    status = wait_for(report->id.pid);
    if (report->failed == STEP_NONE && spec->exit_file)
        exit_write(spec->exit_file, status);
    else if (report->failed != STEP_NONE && spec->id_file)
        (void)unlink(spec->id_file);
}

/* keeper_fds() - nothing but the report as 0 and the line as 1 */
static int keeper_fds(int report_fd, int line)
{
    report_fd = fcntl(report_fd, F_DUPFD_CLOEXEC, FD_OUT_OF_THE_WAY);
    line = fcntl(line, F_DUPFD_CLOEXEC, FD_OUT_OF_THE_WAY);
    if (report_fd < 0 || line < 0 || dup3(report_fd, 0, O_CLOEXEC) < 0 ||
        dup3(line, 1, O_CLOEXEC) < 0)
        return -errno;
    closefrom(2);
    return 0;
}

static __attribute__((noreturn)) void be_keeper(const struct start *s)
{
    struct report report = {.failed = STEP_NONE};
    int lines[2];

    signals_set(SIG_IGN);
    (void)signal(SIGCHLD, SIG_DFL); /* ignored, it would take the program's status away */
    (void)prctl(PR_SET_NAME, "thaw-keeper");
    if (chdir(s->spec->folder) < 0) {
        report = (struct report){.failed = STEP_FOLDER, .neg_errno = -errno};
    } else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, lines) < 0 ||
               (report.id.pid = fork()) < 0) {
        report = (struct report){.failed = STEP_FORK, .neg_errno = -errno};
    } else if (report.id.pid == 0) {
        (void)close(lines[0]);
        be_program(s, lines[1]);
    } else {
        (void)close(lines[1]); /* the program's end must be the last one */
        if (keeper_fds(s->report_fd, lines[0]) == 0) {
            keep(s, 1, &report);
            _exit(0);
        }
        report = (struct report){.failed = STEP_FDS, .neg_errno = -errno};
    }
    (void)report_send(s->report_fd, &report);
    _exit(1);
}

/* ---- the starter ----------------------------------------------------------------------------------------------- */

/* env_find() - where @env has the variable that @change is about; its end if it has none */
static size_t env_find(const char *const *env, const char *change)
{
    size_t len = strcspn(change, "=");
    size_t i = 0;

    while (env[i] && !(strncmp(env[i], change, len) == 0 && env[i][len] == '='))
        i++;
    return i;
}

/* env_make() - the starter's environment with @changes. Return: an array, (give), of borrowed strings; or NULL */
static const char **env_make(const char *const *changes)
{
    size_t n_old = 0, n_changes = 0;
    const char **env;

    while (environ && environ[n_old])
        n_old++;
    while (changes && changes[n_changes])
        n_changes++;
    env = calloc(n_old + n_changes + 1, sizeof(*env));
    if (!env)
        return NULL;
    if (n_old > 0)
        memcpy((void *)env, (void *)environ, n_old * sizeof(*env));
    for (size_t i = 0; i < n_changes; i++) {
        size_t at = env_find(env, changes[i]);

        if (strchr(changes[i], '=')) {
            env[at] = changes[i];
            continue;
        }
        for (; env[at]; at++)
            env[at] = env[at + 1];
    }
    return env;
}

/* fork_twice() - a keeper that is nobody's child. Return: 0 or a negative errno (no text) */
static int fork_twice(const struct start *s)
{
    pid_t pid = fork();

    if (pid < 0)
        return -errno;
    if (pid == 0) {
        (void)setsid();
        pid = fork();
        if (pid == 0)
            be_keeper(s);
        _exit(pid < 0 ? errno : 0);
    }
    /* Whoever waits for all children of this process may have been faster: then the report tells, or its end. */
    return -WEXITSTATUS(wait_for(pid));
}

/* report_read() - Return: 0 or a negative errno (no text): -ECHILD if the keeper ended without a word */
static int report_read(int fd, struct report *out)
{
    uint64_t deadline_ns = clock_now_ns() + START_NS;
    struct pollfd pfd = {.fd = fd, .events = POLLIN};

    while (poll(&pfd, 1, clock_left_ms(deadline_ns)) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    if (pfd.revents == 0)
        return -ETIMEDOUT;
    return read(fd, out, sizeof(*out)) == sizeof(*out) ? 0 : -ECHILD;
}

static int start_prepare(struct start *s)
{
    int r = program_find(s->spec->argv[0], &s->program);

    if (r < 0)
        return r;
    s->env = env_make(s->spec->env);
    return s->env ? 0 : err_origin(-ENOMEM, "no memory to start %s", s->program);
}

/* start_keeper() - with all signals held back, so that no handler of the starter runs in a process that is not it */
static int start_keeper(struct start *s)
{
    sigset_t all;
    int r;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &s->old_mask);
    r = fork_twice(s);
    (void)pthread_sigmask(SIG_SETMASK, &s->old_mask, NULL);
    return r;
}

int child_start(const struct child_spec *spec, struct vmm_id *out)
{
    _cleanup_(start_deinit) struct start s = {.spec = spec, .report_fd = -1};
    _cleanup_fd_ int heard = -1;
    struct report report = {.failed = STEP_FORK};
    int ends[2];
    int r = start_prepare(&s);

    if (r < 0)
        return r;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_origin_errno(-errno, "cannot start %s", s.program);
    heard = ends[0];
    s.report_fd = ends[1];
    r = start_keeper(&s);
    s.report_fd = fd_close(s.report_fd);
    if (r == 0)
        r = report_read(heard, &report);
    if (r < 0)
        return err_origin_errno(r, "cannot start %s", s.program);
    if (report.failed != STEP_NONE)
        return err_origin_errno(report.neg_errno, "cannot start %s in %s: %s", s.program,
                                spec->folder, step_texts[report.failed]);
    *out = report.id;
    return 0;
}
