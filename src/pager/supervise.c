/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/supervise.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"
#include "pager/restarts.h"

/* struct keeper - the supervisor's own state */
struct keeper {
    const struct supervised *s;
    struct restarts restarts;
    uint64_t start_ns; /* when to start the next pager; RESTARTS_NEVER: one runs */
    pid_t pid;         /* of the pager that runs; 0: none */
    int pidfd;         /* owned: of the same; -1: none */
    bool stopping;     /* a stop was asked for */
    bool served;       /* the pager that runs has got ready */
    bool crashing;     /* pagers crash again and again */
    bool over;
    int result;
    char last[80]; /* how the last pager ended */
};

/* ---- the pager's process -------------------------------------------------------------------------------------- */

static __attribute__((noreturn)) void be_pager(const struct supervised *s)
{
    int r = control_renew(s->control);

    if (r == 0)
        r = s->serve(s->ctx);
    else
        log_line(s->log, THAW_LOG_ERROR, "msg=\"cannot serve\" error=\"%s\"", err_text());
    (void)fflush(NULL);
    _exit(r < 0 ? 1 : r);
}

/* died() - the pager is dead, or there was none to be had: when is the next one? */
static void died(struct keeper *k, bool crashed)
{
    k->start_ns = restarts_died(&k->restarts, clock_now_ns(), crashed);
    k->crashing = crashed && k->start_ns == RESTARTS_NEVER;
}

/* end_pager() - kill the pager that runs and forget it */
static void end_pager(struct keeper *k)
{
    if (k->pid == 0)
        return;
    (void)kill(k->pid, SIGKILL);
    while (waitpid(k->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    k->pid = 0;
    k->pidfd = fd_close(k->pidfd);
}

/* #syscalls:start clone clone3 fork pidfd_open kill */
static void start_pager(struct keeper *k)
{
    pid_t pid;

    (void)fflush(NULL);
    pid = fork();
    if (pid == 0)
        be_pager(k->s);
    if (pid > 0) {
        k->pid = pid;
        k->served = false;
        k->start_ns = RESTARTS_NEVER;
        k->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    }
    if (pid < 0 || k->pidfd < 0) {
        (void)snprintf(k->last, sizeof(k->last), "none could be started: %s",
                       strerrordesc_np(errno));
        end_pager(k);
        died(k, false);
        return;
    }
    if (k->stopping)
        (void)kill(pid, SIGTERM);
}

static bool is_crash_signal(int signal)
{
    return signal == SIGSEGV || signal == SIGBUS || signal == SIGABRT || signal == SIGILL ||
           signal == SIGFPE || signal == SIGSYS || signal == SIGTRAP;
}

/*
 * describe_end() - how the pager ended, for people. Return: whether it was a mistake of its own: a signal that says so,
 * or that it went away although there is a VMM to serve
 */
static bool describe_end(struct keeper *k, int status)
{
    if (WIFSIGNALED(status)) {
        (void)snprintf(k->last, sizeof(k->last), "process %d was ended by signal %d (%s)", k->pid,
                       WTERMSIG(status), sigabbrev_np(WTERMSIG(status)));
        return is_crash_signal(WTERMSIG(status));
    }
    (void)snprintf(k->last, sizeof(k->last), "process %d ended with exit status %d", k->pid,
                   WEXITSTATUS(status));
    return k->served;
}

static void take_ready(struct keeper *k)
{
    uint64_t count;

    if (read(k->s->ready_fd, &count, sizeof(count)) != (ssize_t)sizeof(count))
        return;
    k->served = true;
    restarts_ready(&k->restarts);
}

/* reap() - the pager has ended. What it leaves alive is served by another one */
/* #syscalls:start wait4 read */
static void reap(struct keeper *k)
{
    const struct supervised *s = k->s;
    uint64_t now_ns = clock_now_ns();
    int status = 0;
    bool crashed;

    while (waitpid(k->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    take_ready(k);
    crashed = describe_end(k, status);
    s->block->header->left_ns = now_ns;
    k->pidfd = fd_close(k->pidfd);
    k->pid = 0;
    wakeup_let_processors_sleep(s->wakeup);
    if (peer_is_gone(s->peer) || s->block->header->let_go) {
        k->over = true;
        k->result = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
        return;
    }
    log_line(s->log, THAW_LOG_WARN, "msg=\"the pager died\" vmm_pid=%d how=\"%s\"", s->peer->pid,
             k->last);
    died(k, crashed);
}

/* ---- what there is to do -------------------------------------------------------------------------------------- */

static void log_waiting(void *ctx, unsigned seconds)
{
    const struct keeper *k = ctx;

    log_line(k->s->log, THAW_LOG_WARN, "msg=\"waiting for the VMM to die\" vmm_pid=%d seconds=%u",
             k->s->peer->pid, seconds);
}

/* stop_vmm() - nobody will serve it any more. Return: 0 or a negative errno with a text */
static int stop_vmm(struct keeper *k)
{
    return peer_stop(k->s->peer, log_waiting, k);
}

/* give_up() - fail closed: the VMM is dead before anything is closed */
static void give_up(struct keeper *k)
{
    int pid = k->s->peer->pid;
    char why[160];
    int r;

    if (k->crashing)
        (void)snprintf(why, sizeof(why), "the pager crashed %u times (the last: %s)",
                       RESTARTS_MAX_CRASHES, k->last);
    else
        (void)snprintf(why, sizeof(why), "no pager came back within %u s (the last: %s)",
                       (unsigned)(k->s->grace_ns / NS_PER_S), k->last);
    r = stop_vmm(k);
    end_pager(k);
    k->over = true;
    k->result = r < 0 ? err_origin(r, "%s; and the VMM, process %d, could not be stopped", why, pid)
                      : err_origin(-EIO, "%s; the VMM, process %d, was stopped", why, pid);
}

/* take_control() - requests to this process are for the pager; without one, to stop is simple */
/* #syscalls:start kill */
static void take_control(struct keeper *k)
{
    unsigned bits = control_take(k->s->control);

    if (control_has(bits, THAW_REQUEST_STATS) && k->pid > 0)
        (void)kill(k->pid, SIGUSR1);
    if (control_has(bits, THAW_REQUEST_READY) && k->pid > 0)
        (void)kill(k->pid, SIGUSR2);
    if (!control_has(bits, THAW_REQUEST_STOP))
        return;
    k->stopping = true;
    if (k->pid > 0) {
        (void)kill(k->pid, SIGTERM);
        return;
    }
    k->result = stop_vmm(k);
    k->over = true;
}

/* ---- waiting -------------------------------------------------------------------------------------------------- */

static int timeout_ms(const struct keeper *k, uint64_t now_ns)
{
    uint64_t until_ns = min_u64(k->start_ns, restarts_deadline_ns(&k->restarts));

    if (until_ns == RESTARTS_NEVER)
        return -1;
    if (until_ns <= now_ns)
        return 0;
    return (int)min_u64((until_ns - now_ns) / NS_PER_MS + 1, 60000);
}

/* #syscalls:start poll ppoll */
static void wait_and_act(struct keeper *k)
{
    struct pollfd fds[] = {
        {.fd = k->s->control->fd, .events = POLLIN},
        {.fd = k->s->ready_fd, .events = POLLIN},
        {.fd = k->pidfd, .events = POLLIN}, /* -1 is passed over */
        /* While a pager runs it is the one that hears of the VMM's end. */
        {.fd = k->pid > 0 ? -1 : k->s->peer->pidfd, .events = POLLIN},
    };
    int n = poll(fds, ARRAY_LEN(fds), timeout_ms(k, clock_now_ns()));

    if (n < 0)
        return; /* a signal: its handler has noted what it wants */
    if (fds[1].revents != 0)
        take_ready(k);
    if (fds[2].revents != 0)
        reap(k);
    if (fds[0].revents != 0 && !k->over)
        take_control(k);
    if (fds[3].revents != 0)
        k->over = true;
}

/* start_or_give_up() - what the clock says */
static void start_or_give_up(struct keeper *k)
{
    uint64_t now_ns = clock_now_ns();

    if (restarts_deadline_ns(&k->restarts) <= now_ns ||
        (k->pid == 0 && k->start_ns == RESTARTS_NEVER))
        give_up(k);
    else if (k->pid == 0 && k->start_ns <= now_ns)
        start_pager(k);
}

int supervise(const struct supervised *s)
{
    struct keeper k = {.s = s, .pidfd = -1, .last = "none was started"};

    restarts_init(&k.restarts, s->grace_ns);
    s->block->header->keeper_pid = getpid();
    start_pager(&k);
    while (!k.over) {
        wait_and_act(&k);
        if (!k.over)
            start_or_give_up(&k);
    }
    return k.result;
}
