/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve.c - `thaw serve`: one pager process for one VM
 *
 * Options become struct thaw_pager_options, signals become requests, statistics become a file. The rest is the library's.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <thaw/thaw.h>

#include "base/fd.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/serve_options.h"

#define VERB "serve"

/* ---- serving -------------------------------------------------------------------------------------------------- */

static struct thaw_pager *signalled_pager; /* whom signals are for; set before the handlers are */

static void on_signal(int signal)
{
    thaw_pager_request(signalled_pager, signal == SIGUSR1   ? THAW_REQUEST_STATS
                                        : signal == SIGUSR2 ? THAW_REQUEST_READY
                                                            : THAW_REQUEST_STOP);
}

static sigset_t asking_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    return set;
}

/* hold_signals() - until there is a pager that can be asked to stop, signals wait: nothing is left behind */
static void hold_signals(void)
{
    sigset_t set = asking_signals();

    (void)sigprocmask(SIG_BLOCK, &set, NULL);
}

/*
 * release_signals() - from here on they are handled as they come
 *
 * What waits is taken here and not left to come up as the mask is lifted: ThreadSanitizer loses some of those (GCC 12).
 */
/* #syscalls:start rt_sigtimedwait */
static void release_signals(void)
{
    sigset_t set = asking_signals();
    const struct timespec at_once = {0};
    int signal;

    while ((signal = sigtimedwait(&set, NULL, &at_once)) > 0)
        on_signal(signal);
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* #syscalls:start rt_sigaction */
static void set_signals(struct thaw_pager *p)
{
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    signalled_pager = p;
    sigemptyset(&act.sa_mask);
    (void)sigaction(SIGTERM, &act, NULL);
    (void)sigaction(SIGINT, &act, NULL);
    (void)sigaction(SIGUSR1, &act, NULL);
    (void)sigaction(SIGUSR2, &act, NULL);
    act.sa_handler = SIG_IGN;
    (void)sigaction(SIGPIPE, &act,
                    NULL); /* whoever reads our statistics may go away; the VM stays */
    (void)sigaction(SIGHUP, &act, NULL);
}

/* keep_stats_dir() - where the statistics' file is replaced until the end */
static void keep_stats_dir(struct serve_args *a)
{
    const char *slash = a->stats_path ? strrchr(a->stats_path, '/') : NULL;

    if (!a->stats_path)
        return;
    (void)snprintf(a->write_dir, sizeof(a->write_dir), "%.*s",
                   slash ? (int)(slash - a->stats_path) + 1 : 1, slash ? a->stats_path : ".");
    a->opts.write_dir = a->write_dir;
}

/* end_pager() - signals from here on wait for the end of the process: there is nobody to ask any more */
static void end_pager(struct thaw_pager *p)
{
    hold_signals();
    (void)thaw_pager_free(p);
}

static void print_log(void *ctx, enum thaw_log_level level, const char *line)
{
    const struct serve_args *a = ctx;

    if (level <= a->log_level)
        (void)fprintf(stderr, "level=%s %s\n", log_level_name(level), line);
}

/* may_write() - a line now, without waiting? A VM waits for this thread. A pipe has room for PIPE_BUF or says no */
/* #syscalls poll */
static bool may_write(int fd)
{
    struct pollfd out = {.fd = fd, .events = POLLOUT};

    return poll(&out, 1, 0) > 0 && (out.revents & POLLOUT);
}

/* print_line() - one line, or none where nobody reads */
static void print_line(const char *line, size_t len)
{
    if (may_write(STDOUT_FILENO))
        (void)fd_write_all(STDOUT_FILENO, line, len);
}

/* tell_resume() - whoever resumes the VM reads this; a pipe that nobody empties is not waited for */
static void tell_resume(void *ctx)
{
    static const char line[] = "resume\n";
    struct serve_args *a = ctx;

    if (a->resume_fd < 0)
        return;
    if (may_write(a->resume_fd))
        (void)fd_write_all(a->resume_fd, line, sizeof(line) - 1);
    a->resume_fd = fd_close(a->resume_fd);
}

/* show_progress() - a bar that draws over itself */
static void show_progress(void *ctx, const struct thaw_progress *p)
{
    uint64_t pages = p->working_set_pages + p->fill_pages;
    uint64_t done = p->working_set_done + p->fill_done;
    char bar[PROGRESS_BAR_BYTES];
    char line[120];
    int len =
        snprintf(line, sizeof(line), "\r%s of %ju MiB ahead%s", progress_bar(done, pages, bar),
                 (uintmax_t)(pages * p->page_bytes / MIB), p->over ? "\n" : "");

    (void)ctx;
    if (may_write(STDERR_FILENO))
        (void)fd_write_all(STDERR_FILENO, line, (size_t)len);
}

static void write_stats(void *ctx, const char *json)
{
    const struct serve_args *a = ctx;
    char *line;
    int len = asprintf(&line, "%s\n", json);

    if (len < 0)
        return;
    if (!a->stats_path)
        print_line(line, (size_t)len);
    else if (file_replace(a->stats_path, line, (size_t)len) < 0)
        (void)cli_error(VERB, "%s", thaw_last_error());
    free(line);
}

/* serve() - until the VM is gone, in this process; the pager is freed. Return: the exit status */
static int serve(void *ctx, struct thaw_pager *p)
{
    int r = thaw_pager_run(p);

    (void)ctx;
    r = r < 0 ? cli_error(VERB, "%s", thaw_last_error()) : CLI_OK;
    end_pager(p);
    return r;
}

/* serve_or_supervise() - the same, in child processes if wanted */
static int serve_or_supervise(struct serve_args *a, struct thaw_pager *p)
{
    int r;

    if (!a->supervise)
        return serve(a, p);
    r = thaw_pager_supervise(p, a->grace_ms, serve, a);
    if (r < 0)
        r = cli_error(VERB, "%s", thaw_last_error());
    end_pager(p);
    return r;
}

int cli_serve(int argc, char **argv)
{
    struct serve_args a = {
        .opts = {.fault_around_bytes = THAW_FAULT_AROUND_DEFAULT,
                 .confine = THAW_CONFINE_ON,
                 .image_filler = "/proc/self/exe",
                 .latency_qos = THAW_LATENCY_QOS_AUTO,
                 .cpus = "follow",
                 .spin_us = THAW_SPIN_AUTO},
        .log_level = THAW_LOG_INFO,
        .grace_ms = THAW_GRACE_DEFAULT_MS,
        .resume_fd = -1,
    };
    struct thaw_pager *p = NULL;
    int r = serve_parse_args(&a, argc, argv);

    if (r != CLI_OK)
        return r;
    if (a.help) {
        (void)fputs(serve_help, stdout);
        return CLI_OK;
    }
    a.opts.log = print_log;
    a.opts.log_ctx = &a;
    if (a.stats_path && file_may_replace(a.stats_path) < 0)
        return cli_error(VERB, "%s", thaw_last_error());
    keep_stats_dir(&a);
    hold_signals();
    r = thaw_pager_new(&p, &a.opts);
    if (r < 0)
        return cli_error(VERB, "%s", thaw_last_error());
    thaw_pager_on_stats(p, write_stats, &a);
    thaw_pager_on_resume(p, tell_resume, &a);
    if (isatty(STDERR_FILENO))
        thaw_pager_on_progress(p, show_progress, &a);
    set_signals(p);
    release_signals();
    r = thaw_pager_accept(p);
    if (r == 0)
        return serve_or_supervise(&a, p);
    r = r < 0 ? cli_error(VERB, "%s", thaw_last_error()) : CLI_OK;
    end_pager(p);
    return r;
}
