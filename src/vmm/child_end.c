/* SPDX-License-Identifier: Apache-2.0 */
/*
 * child_end.c - programs that somebody else has started: do they live, how did they end, what did they say?
 *
 * A process is held by a pidfd, and the pidfd is compared with the time at which the process began: so a number that is used
 * again is never taken for the process that had it. Nothing is done by number alone.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"
#include "base/procfs.h"
#include "vmm/child.h"

#define TAIL_BYTES 4096 /* of a log; a line that is longer is not a line for people */

/* child_open() - Return: a pidfd (give); -ESRCH (no text) if there is no such process; another negative errno with a text */
static int child_open(struct vmm_id id)
{
    _cleanup_fd_ int fd = -1;
    uint64_t ticks = 0;
    int r;

    if (id.pid <= 0)
        return -ESRCH;
    fd = (int)syscall(SYS_pidfd_open, id.pid, 0);
    if (fd < 0 && errno == ESRCH)
        return -ESRCH;
    if (fd < 0)
        return err_origin_errno(-errno, "cannot hold on to process %d", id.pid);
    r = procfs_start_ticks(id.pid, &ticks);
    if (r == -ENOENT || r == -ESRCH || (r == 0 && ticks != id.start_ticks))
        return -ESRCH;
    if (r < 0)
        return err_origin_errno(r, "cannot tell when process %d began", id.pid);
    return TAKE_FD(fd);
}

int fd_wait(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd pfd = {.fd = fd, .events = events};
    int n;

    do
        n = poll(&pfd, 1, clock_left_ms(deadline_ns));
    while (n < 0 && errno == EINTR);
    return n > 0 ? 0 : n < 0 ? -errno : -ETIMEDOUT;
}

static int wait_pidfd(int fd, unsigned timeout_ms)
{
    int r = fd_wait(fd, POLLIN, clock_now_ns() + timeout_ms * NS_PER_MS);

    return r == 0 || r == -ETIMEDOUT ? r : err_origin_errno(r, "cannot wait for a process");
}

int child_wait_end(struct vmm_id id, unsigned timeout_ms)
{
    _cleanup_fd_ int fd = child_open(id);

    if (fd == -ESRCH)
        return 0;
    return fd < 0 ? fd : wait_pidfd(fd, timeout_ms);
}

bool child_has_ended(struct vmm_id id)
{
    return child_wait_end(id, 0) == 0;
}

static int signal_pidfd(int fd, struct vmm_id id, int signal)
{
    if (syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0) == 0)
        return 0;
    return errno == ESRCH ? -ESRCH : err_origin_errno(-errno, "cannot signal process %d", id.pid);
}

int child_signal(struct vmm_id id, int signal)
{
    _cleanup_fd_ int fd = child_open(id);

    return fd < 0 ? fd : signal_pidfd(fd, id, signal);
}

int child_kill(struct vmm_id id, unsigned timeout_ms)
{
    _cleanup_fd_ int fd = child_open(id);
    int r = fd < 0 ? fd : signal_pidfd(fd, id, SIGKILL);

    if (r == -ESRCH)
        return 0;
    if (r == 0)
        r = wait_pidfd(fd, timeout_ms);
    return r == -ETIMEDOUT
               ? err_origin(r, "process %d did not end within %u ms of SIGKILL", id.pid, timeout_ms)
               : r;
}

/* ---- what is in files ------------------------------------------------------------------------------------------ */

int child_id_read(const char *path, struct vmm_id *out)
{
    unsigned long long ticks = 0;
    char line[64];
    int pid = 0;
    int r = procfs_read(path, line, sizeof(line));

    if (r < 0)
        return err_origin_errno(r, "cannot read %s", path);
    if (sscanf(line, "%d %llu", &pid, &ticks) != 2 || pid <= 0)
        return err_origin(-EINVAL, "%s: expected a process number and when it began", path);
    *out = (struct vmm_id){.pid = pid, .start_ticks = ticks};
    return 0;
}

struct child_end child_end_read(const char *path)
{
    struct child_end end = {.how = CHILD_UNKNOWN};
    char line[32];
    int number;

    if (procfs_read(path, line, sizeof(line)) < 0)
        return end;
    if (sscanf(line, "exited %d", &number) == 1)
        end = (struct child_end){.how = CHILD_EXITED, .number = number};
    else if (sscanf(line, "signal %d", &number) == 1)
        end = (struct child_end){.how = CHILD_SIGNALLED, .number = number};
    return end;
}

void child_end_text(struct child_end end, char *buf, size_t len)
{
    const char *name = end.how == CHILD_SIGNALLED ? sigabbrev_np(end.number) : NULL;

    if (end.how == CHILD_EXITED)
        (void)snprintf(buf, len, "exited with status %d", end.number);
    else if (end.how == CHILD_SIGNALLED && name)
        (void)snprintf(buf, len, "killed by signal %d (%s)", end.number, name);
    else if (end.how == CHILD_SIGNALLED)
        (void)snprintf(buf, len, "killed by signal %d", end.number);
    else
        (void)snprintf(buf, len, "ended, nobody knows how");
}

int child_log_open(const char *path)
{
    /* A new file, not an emptied one: an older program may still write to that. */
    int fd = file_remove(path);

    if (fd < 0)
        return fd;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
    return fd < 0 ? err_origin_errno(-errno, "cannot create %s", path) : fd;
}

/* tail_read() - the last bytes of a file. Return: how many, with a NUL behind them */
static size_t tail_read(const char *path, char *buf, size_t len)
{
    _cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    off_t from = size > (off_t)len - 1 ? size - (off_t)len + 1 : 0;
    ssize_t n = size < 0 ? -1 : pread(fd, buf, len - 1, from);

    if (n < 0)
        n = 0;
    buf[n] = '\0';
    return (size_t)n;
}

void log_last_line(const char *path, char *buf, size_t len)
{
    char tail[TAIL_BYTES];
    size_t end = tail_read(path, tail, sizeof(tail));
    size_t from;

    assert(len > 0);
    while (end > 0 && (unsigned char)tail[end - 1] <= ' ')
        end--;
    tail[end] = '\0';
    for (from = end; from > 0 && tail[from - 1] != '\n' && tail[from - 1] != '\0'; from--)
        continue;
    (void)snprintf(buf, len, "%s", tail + from);
    for (char *c = buf; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    }
}
