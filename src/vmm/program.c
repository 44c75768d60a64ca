/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program.c - which file is a program, and what does it print?
 *
 * The programs that are asked here answer at once and end (`--version`). They are children of this process as usual; one that
 * does not end in time is killed. Their stderr is taken along for the error's text.
 */

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"
#include "vmm/child.h"

#define OUTPUT_MAX (64 * KIB)

/* ---- which file ------------------------------------------------------------------------------------------------ */

/* may_run() - Return: 0, -ENOENT or -EACCES (no text) */
static int may_run(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return errno == ENOENT || errno == ENOTDIR ? -ENOENT : -EACCES;
    return S_ISREG(st.st_mode) && access(path, X_OK) == 0 ? 0 : -EACCES;
}

/* make_absolute() - not realpath(): a program may look at the name by which it was called. Return: NULL without memory */
static char *make_absolute(const char *path)
{
    char *here, *out;

    if (path[0] == '/')
        return strdup(path);
    here = getcwd(NULL, 0);
    if (!here || asprintf(&out, "%s/%s", here, path) < 0)
        out = NULL;
    free(here);
    return out;
}

/* search_path() - Return: 0, -ENOENT, or -EACCES if there was one that may not be run (no text) */
static int search_path(const char *name, char *found, size_t len)
{
    const char *at = getenv("PATH");
    int r = -ENOENT;

    if (!at)
        at = "/usr/local/bin:/usr/bin:/bin";
    for (;;) {
        size_t n = strcspn(at, ":");
        int one;

        (void)snprintf(found, len, "%.*s%s%s", (int)n, at, n > 0 ? "/" : "", name);
        one = may_run(found);
        if (one == 0)
            return 0;
        if (one == -EACCES)
            r = -EACCES;
        if (at[n] == '\0')
            return r;
        at += n + 1;
    }
}

int program_find(const char *name, char **out)
{
    char found[PATH_MAX];
    int r;

    if (strlen(name) >= sizeof(found) / 2)
        return err_origin(-ENOENT, "the name of a program is longer than %zu bytes",
                          sizeof(found) / 2);
    if (strchr(name, '/')) {
        (void)snprintf(found, sizeof(found), "%s", name);
        r = may_run(found);
    } else {
        r = search_path(name, found, sizeof(found));
    }
    if (r == -ENOENT)
        return err_origin(
            r, strchr(name, '/') ? "there is no program %s" : "there is no program %s on PATH",
            name);
    if (r < 0)
        return err_origin_errno(r, "the program %s cannot be run", name);
    *out = make_absolute(found);
    return *out ? 0 : err_origin(-ENOMEM, "no memory for the name of %s", name);
}

/* is_binary() - ELF(5) */
static bool is_binary(int fd)
{
    char magic[SELFMAG];

    return pread(fd, magic, sizeof(magic), 0) == sizeof(magic) &&
           memcmp(magic, ELFMAG, SELFMAG) == 0;
}

int program_stamp(const char *name, char **out)
{
    _cleanup_free_ char *path = NULL;
    _cleanup_fd_ int fd = -1;
    struct stat st;
    int r = program_find(name, &path);

    *out = NULL;
    if (r < 0)
        return r;
    assert(path);
    fd = open(path, O_RDONLY | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || !is_binary(fd))
        return 0;
    /* Whoever writes to the file, or puts an older one in its place, changes its inode: that cannot be set back. */
    if (asprintf(out, "%s %ju:%ju %jd %jd.%09ld", path, (uintmax_t)st.st_dev, (uintmax_t)st.st_ino,
                 (intmax_t)st.st_size, (intmax_t)st.st_ctim.tv_sec, st.st_ctim.tv_nsec) >= 0)
        return 0;
    *out = NULL;
    return err_origin(-ENOMEM, "no memory for the name of %s", name);
}

/* ---- what it prints -------------------------------------------------------------------------------------------- */

/* struct reading - a program that runs, and what has come of it */
struct reading {
    pid_t pid;
    int fds[2]; /* its stdout and stderr; -1 when they are at their end */
    char *text[2];
    size_t len[2];
    uint64_t deadline_ns;
};

static void reading_deinit(struct reading *r)
{
    for (unsigned i = 0; i < 2; i++) {
        r->fds[i] = fd_close(r->fds[i]);
        free(r->text[i]);
    }
}

/* spawn() - with its outputs in pipes. Return: 0 or a negative errno (no text) */
static int spawn(struct reading *out, const char *path, const char *const *argv)
{
    posix_spawn_file_actions_t actions;
    int pipes[2][2];
    int r;

    if (pipe2(pipes[0], O_CLOEXEC) < 0)
        return -errno;
    if (pipe2(pipes[1], O_CLOEXEC) < 0) {
        r = -errno;
        (void)close(pipes[0][0]);
        (void)close(pipes[0][1]);
        return r;
    }
    r = posix_spawn_file_actions_init(&actions);
    if (r == 0) {
        (void)posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
        (void)posix_spawn_file_actions_adddup2(&actions, pipes[0][1], 1);
        (void)posix_spawn_file_actions_adddup2(&actions, pipes[1][1], 2);
        (void)posix_spawn_file_actions_addclosefrom_np(&actions, 3);
        r = posix_spawn(&out->pid, path, &actions, NULL, (char *const *)(uintptr_t)argv, environ);
        (void)posix_spawn_file_actions_destroy(&actions);
    }
    for (unsigned i = 0; i < 2; i++) {
        (void)close(pipes[i][1]);
        out->fds[i] = pipes[i][0];
    }
    return -r;
}

/* take() - what has come on one of its outputs; what is too much is thrown away */
static void take(struct reading *r, unsigned i)
{
    char spill[4096];
    size_t room = OUTPUT_MAX - r->len[i];
    ssize_t n = room > 0 ? read(r->fds[i], r->text[i] + r->len[i], room)
                         : read(r->fds[i], spill, sizeof(spill));

    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0)
        r->fds[i] = fd_close(r->fds[i]);
    else if (room > 0)
        r->len[i] += (size_t)n;
}

/* read_all() - until both outputs are at their end, or there is no time left */
static void read_all(struct reading *r)
{
    while (r->fds[0] >= 0 || r->fds[1] >= 0) {
        struct pollfd pfds[] = {{.fd = r->fds[0], .events = POLLIN},
                                {.fd = r->fds[1], .events = POLLIN}};
        int n = poll(pfds, ARRAY_LEN(pfds), clock_left_ms(r->deadline_ns));

        if (n == 0)
            return;
        /* One that never stops writing always has something to read: what is too much is not waited for. */
        if (clock_left_ms(r->deadline_ns) == 0 && max_u64(r->len[0], r->len[1]) == OUTPUT_MAX)
            return;
        for (unsigned i = 0; n > 0 && i < 2; i++) {
            if (pfds[i].revents != 0)
                take(r, i);
        }
    }
}

/* has_ended() - within the time that is left. It is a child that nobody has waited for: its number is its own */
static bool has_ended(const struct reading *r)
{
    _cleanup_fd_ int fd = (int)syscall(SYS_pidfd_open, r->pid, 0);

    return fd < 0 ? errno == ESRCH : fd_wait(fd, POLLIN, r->deadline_ns) == 0;
}

/* reap() - Return: 0, or -ETIMEDOUT; then it has been killed */
static int reap(const struct reading *r, int *status)
{
    bool in_time = has_ended(r);

    if (!in_time)
        (void)kill(r->pid, SIGKILL);
    while (waitpid(r->pid, status, 0) < 0) {
        if (errno != EINTR)
            return 0; /* somebody else has: its output is all that is known */
    }
    return in_time ? 0 : -ETIMEDOUT;
}

static int check_end(const struct reading *r, const char *path, const char *arg, int status)
{
    struct child_end end = {.how = WIFSIGNALED(status) ? CHILD_SIGNALLED : CHILD_EXITED,
                            .number = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)};
    char how[64];

    if (status == 0)
        return 0;
    r->text[1][strcspn(r->text[1], "\n")] = '\0';
    child_end_text(end, how, sizeof(how));
    return err_origin(-EIO, "%s %s: %s%s%.200s", path, arg, how, r->len[1] > 0 ? ": " : "",
                      r->text[1]);
}

int program_output(const char *const *argv, unsigned timeout_ms, char **out)
{
    _cleanup_(reading_deinit) struct reading reading = {
        .fds = {-1, -1},
        .text = {calloc(1, OUTPUT_MAX + 1), calloc(1, OUTPUT_MAX + 1)},
        .deadline_ns = clock_now_ns() + timeout_ms * NS_PER_MS,
    };
    _cleanup_free_ char *path = NULL;
    int status = 0;
    int r;

    if (!reading.text[0] || !reading.text[1])
        return err_origin(-ENOMEM, "no memory for the output of %s", argv[0]);
    r = program_find(argv[0], &path);
    if (r < 0)
        return r;
    assert(path);
    r = spawn(&reading, path, argv);
    if (r < 0)
        return err_origin_errno(r, "cannot start %s", path);
    read_all(&reading);
    r = reap(&reading, &status);
    if (r < 0)
        return err_origin(r, "%s %s did not end within %u ms", path, argv[1] ? argv[1] : "",
                          timeout_ms);
    r = check_end(&reading, path, argv[1] ? argv[1] : "", status);
    if (r < 0)
        return r;
    *out = TAKE(reading.text[0]);
    return 0;
}
