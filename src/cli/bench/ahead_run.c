/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ahead_run.c - one run: two processes, a pipe between them, a deadline
 *
 * Both are children and die with this process. A run is over when the guest has ended; the server then ends by itself. Whichever
 * fails leaves a sentence in the shared memory.
 */

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"
#include "cli/bench/ahead_run.h"
#include "cli/bench/ground.h"

#define PATIENCE_MS   5000 /* for a server to end after its guest */
#define LAST_WORDS_MS 200

/* struct process - a child; pid 0: none */
struct process {
    pid_t pid;
    int pidfd;
};

typedef int part_fn(const struct ahead_part *part);

static void play_part(part_fn *fn, const struct ahead_part *part, char *error, size_t len,
                      pid_t parent) __attribute__((noreturn));

static void play_part(part_fn *fn, const struct ahead_part *part, char *error, size_t len,
                      pid_t parent)
{
    int r;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    (void)signal(SIGINT, SIG_IGN); /* the parent hears it and ends the run */
    (void)signal(SIGTERM, SIG_DFL);
    (void)signal(SIGPIPE, SIG_IGN);
    r = fn(part);
    if (r < 0)
        (void)snprintf(error, len, "%s", err_text());
    _exit(r < 0);
}

static int start(struct process *p, part_fn *fn, const struct ahead_part *part, char *error,
                 size_t len)
{
    pid_t parent = getpid();

    p->pid = fork();
    if (p->pid < 0) {
        p->pid = 0;
        return err_origin_errno(-errno, "fork");
    }
    if (p->pid == 0)
        play_part(fn, part, error, len, parent);
    p->pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0);
    return p->pidfd < 0 ? err_origin_errno(-errno, "pidfd_open") : 0;
}

/* stop() - it is gone on return. @how: what became of it. Return: did it end by itself, with status 0? */
static bool stop(struct process *p, int patience_ms, char how[64])
{
    struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};
    bool ended;
    int status = 0;

    if (p->pid == 0)
        return true;
    ended = poll(&pfd, 1, patience_ms) > 0;
    if (ended)
        bench_process_ended(p->pid, how, 64);
    else
        (void)snprintf(how, 64, "no end within %d ms", patience_ms);
    (void)kill(p->pid, SIGKILL);
    while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR)
        ;
    p->pidfd = fd_close(p->pidfd);
    p->pid = 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* wait_for_guest() - until it ended, or the time is up */
static int wait_for_guest(const struct ahead *a, const struct process *guest,
                          const volatile sig_atomic_t *interrupted)
{
    uint64_t deadline_ns = clock_now_ns() + a->deadline_s * NS_PER_S;
    struct pollfd pfd = {.fd = guest->pidfd, .events = POLLIN};

    for (;;) {
        uint64_t now_ns = clock_now_ns();

        if (*interrupted)
            return err_origin(-EINTR, "interrupted");
        if (now_ns >= deadline_ns)
            return err_origin(-ETIMEDOUT, "the guest did not end within %u s", a->deadline_s);
        if (poll(&pfd, 1, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1) > 0)
            return 0;
    }
}

static int prepare_file(const struct bench_image *image, enum ahead_bytes bytes)
{
    _cleanup_fd_ int fd = -1;

    if (bytes != AHEAD_COLD)
        return bench_image_warm(image);
    fd = open(image->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
        return err_origin(-EIO, "cannot drop %s from the page cache", image->path);
    return 0;
}

static int hold_latency(const struct ahead_case *c, int *out)
{
    const int32_t zero = 0;

    if (c->place != BENCH_AWAKE)
        return 0;
    *out = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);
    if (*out < 0 || write(*out, &zero, sizeof(zero)) != sizeof(zero))
        return err_origin_errno(-errno, "cannot keep the cores awake: /dev/cpu_dma_latency");
    return 0;
}

/* ---- figures -------------------------------------------------------------------------------------------------- */

static double counter(const json_t *stats, const char *name)
{
    return json_number_value(json_object_get(json_object_get(stats, "counters"), name));
}

static double rate_of(const struct ahead_case *c, const struct ahead_shared *s)
{
    uint64_t end_ns = s->over_ns;
    uint64_t end_bytes = s->over_bytes;

    if (c->work != AHEAD_WAIT && c->before_bytes == 0)
        return c->set_bytes > 0 ? s->window_rate_bps : NAN;
    if (c->before_bytes > 0)
        end_ns = s->resume_ns;
    if (end_ns <= s->first_ns || end_bytes <= s->first_bytes)
        return NAN;
    return (double)(end_bytes - s->first_bytes) * (double)NS_PER_S / (double)(end_ns - s->first_ns);
}

static void fill_touches(const struct ahead_case *c, const struct ahead_shared *s, double *figures)
{
    const struct bench_report *rep = &s->report;
    bool is_sampled = c->work == AHEAD_SAMPLE || c->work == AHEAD_DISCARD;

    figures[AHEAD_P50_NS] = rep->touch.p50_ns;
    figures[AHEAD_P99_NS] = rep->touch.p99_ns;
    figures[AHEAD_TOTAL_NS] = rep->total_ns;
    figures[AHEAD_N_SAMPLES] = (double)(is_sampled ? s->n_samples : rep->n_touched);
    if (c->work == AHEAD_TOUCH) {
        figures[AHEAD_FAULTS] = (double)rep->n_faults;
        figures[AHEAD_PER_S] = (double)rep->n_faults * (double)NS_PER_S / rep->total_ns;
    }
}

static void fill_figures(const struct ahead_case *c, const struct ahead_shared *s, double *figures)
{
    json_t *stats = json_loads(s->stats, 0, NULL);

    for (unsigned i = 0; i < AHEAD_N_FIGURES; i++)
        figures[i] = NAN;
    if (c->server != AHEAD_NOBODY)
        figures[AHEAD_RATE_BPS] = rate_of(c, s);
    if (c->before_bytes > 0)
        figures[AHEAD_BEFORE_NS] = (double)(s->resumed_ns - s->attached_ns);
    if (c->server == AHEAD_THAW && s->first_ns > s->attached_ns)
        figures[AHEAD_FIRST_NS] = (double)(s->first_ns - s->attached_ns);
    if (c->work != AHEAD_WAIT && c->work != AHEAD_DISCARDS)
        fill_touches(c, s, figures);
    if (stats && c->set_path && c->work == AHEAD_TOUCH)
        figures[AHEAD_FAULTS] = counter(stats, "faults");
    if (c->work != AHEAD_PING)
        figures[AHEAD_INSTALLED] = (double)s->present_bytes;
    for (unsigned i = 0; i < AHEAD_N_LENGTHS; i++) {
        if (s->discard_ns[i] > 0)
            figures[AHEAD_DISCARD_NS + i] = s->discard_ns[i];
    }
    json_decref(stats);
}

/* ---- the run -------------------------------------------------------------------------------------------------- */

static struct ahead_part part_of(struct ahead *a, const struct ahead_case *c,
                                 struct ahead_shared *s)
{
    bool is_free = c->place == BENCH_FREE;
    struct ahead_part part = {
        .ahead = a,
        .c = c,
        .image = c->is_large ? &a->large : &a->image,
        .shared = s,
        .cpu = is_free ? -1 : a->cpus[0],
        .partner_cpu = is_free                  ? -1
                       : c->place == BENCH_SAME ? a->cpus[0]
                                                : a->cpus[1],
    };

    (void)snprintf(part.socket_path, sizeof(part.socket_path), "%s/socket", a->dir);
    return part;
}

/* run_parts() - both, to the guest's end */
static int run_parts(struct ahead_part part, const volatile sig_atomic_t *interrupted)
{
    struct ahead_shared *s = part.shared;
    struct ahead_part server_part = part;
    struct process server = {0}, guest = {0};
    int ends[2];
    char guest_how[64] = "", server_how[64] = "none";
    bool good;
    int r = 0;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_origin_errno(-errno, "pipe");
    part.news = ends[0];
    server_part.news = ends[1];
    server_part.cpu = part.partner_cpu;
    (void)unlink(part.socket_path);
    if (part.c->server != AHEAD_NOBODY)
        r = start(&server, ahead_serve, &server_part, s->server_error, sizeof(s->server_error));
    (void)close(ends[1]);
    if (r == 0)
        r = start(&guest, ahead_guest, &part, s->report.error, sizeof(s->report.error));
    (void)close(ends[0]);
    if (r == 0)
        r = wait_for_guest(part.ahead, &guest, interrupted);
    good = stop(&guest, 0, guest_how) && r == 0;
    good = stop(&server, good ? PATIENCE_MS : LAST_WORDS_MS, server_how) && good;
    if (r == 0 && !good)
        r = err_origin(-EIO, "%s: the guest: %s %s; the server: %s %s", part.c->name, guest_how,
                       s->report.error, server_how, s->server_error);
    return r;
}

int ahead_run(struct ahead *a, const struct ahead_case *c, double figures[AHEAD_N_FIGURES],
              const volatile sig_atomic_t *interrupted)
{
    struct ahead_shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    struct ahead_part part = part_of(a, c, s);
    int latency_fd = -1;
    int r;

    if (s == MAP_FAILED)
        return err_origin(-ENOMEM, "no memory for a report");
    r = prepare_file(part.image, c->bytes);
    if (r == 0) {
        a->n_runs++;
        a->n_busy_runs += !bench_wait_for_quiet(a->idle_wait_s, interrupted);
        r = hold_latency(c, &latency_fd);
    }
    if (r == 0)
        r = run_parts(part, interrupted);
    if (r == 0)
        fill_figures(c, s, figures);
    (void)fd_close(latency_fd);
    (void)munmap(s, sizeof(*s));
    return r;
}
