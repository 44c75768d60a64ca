/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base.c - what a handler is compared with
 *
 * A fault that another process answers is at least one wake-up there and one back. A byte through
 * one pipe and back through another is just that, and pays the same price for a core that sleeps,
 * for an interrupt to another core, or for a context switch: so it is measured in the same run and
 * on the same cores, and a handler's time is given as a multiple of it.
 *
 * The kernel's own page faults are the other end of the scale: a new anonymous page (the work of
 * COPY without the bytes and without the handler), a page of a mapped file (what a restore without
 * userfaultfd does) and a write to one (which leaves a private copy, as COPY does).
 */

#include "cli/bench/base.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"
#include "cli/bench/touch.h"

#define WARM_UP_TRIPS 64u

static void echo_forever(int in, int out, int cpu, pid_t parent) __attribute__((noreturn));

static void echo_forever(int in, int out, int cpu, pid_t parent)
{
    char byte;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || bench_cpu_bind(cpu) < 0)
        _exit(1);
    while (read(in, &byte, 1) == 1 && write(out, &byte, 1) == 1)
        ;
    _exit(0);
}

static int round_trip(struct bench_ping *p)
{
    char byte = 0;

    if (write(p->to[1], &byte, 1) != 1 || read(p->from[0], &byte, 1) != 1)
        return err_origin(-EPIPE, "the ping-pong's other end is gone");
    return 0;
}

int bench_ping_start(struct bench_ping *p, const struct bench_task *t)
{
    pid_t parent = getpid();
    int r = 0;

    if (pipe2(p->to, O_CLOEXEC) < 0 || pipe2(p->from, O_CLOEXEC) < 0)
        return err_origin_errno(-errno, "pipe");
    p->partner = fork();
    if (p->partner < 0)
        return err_origin_errno(-errno, "fork");
    if (p->partner == 0) {
        (void)close(p->to[1]);
        (void)close(p->from[0]);
        echo_forever(p->to[0], p->from[1], t->partner_cpu, parent);
    }
    (void)close(p->to[0]);
    (void)close(p->from[1]);
    for (unsigned i = 0; r == 0 && i < WARM_UP_TRIPS; i++)
        r = round_trip(p);
    return r;
}

int bench_ping_measure(struct bench_ping *p, const struct bench_task *t, struct bench_report *rep)
{
    uint64_t *ticks = malloc(t->n_round_trips * sizeof(*ticks));
    uint64_t begin;
    int r = 0;

    if (!ticks)
        return err_origin(-ENOMEM, "no memory for %u samples", t->n_round_trips);
    memset(ticks, 0, t->n_round_trips * sizeof(*ticks));
    begin = bench_clock_ticks(t->clock);
    for (unsigned i = 0; r == 0 && i < t->n_round_trips; i++) {
        uint64_t trip = bench_clock_ticks(t->clock);

        r = round_trip(p);
        ticks[i] = bench_clock_ticks(t->clock) - trip;
    }
    rep->total_ns = (double)(bench_clock_ticks(t->clock) - begin) * t->clock->ns_per_tick;
    rep->n_touched = t->n_round_trips;
    if (r == 0)
        bench_summarise(&rep->touch, ticks, t->n_round_trips, t->clock);
    free(ticks);
    return r;
}

void bench_ping_stop(struct bench_ping *p)
{
    (void)close(p->to[1]); /* the partner reads its end of file */
    (void)close(p->from[0]);
    while (waitpid(p->partner, NULL, 0) < 0 && errno == EINTR)
        ;
}

static int anonymous_flags(uint64_t page_bytes)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;

    return page_bytes == 4096 ? flags : flags | MAP_HUGETLB | MAP_HUGE_2MB;
}

int bench_base_map(const struct bench_task *t, char **out)
{
    uint64_t bytes = t->image->size_bytes;
    char *memory;

    if (t->kind == BENCH_ANON) {
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, anonymous_flags(t->page_bytes), -1, 0);
        if (memory != MAP_FAILED)
            (void)madvise(memory, bytes, MADV_NOHUGEPAGE);
    } else {
        _cleanup_fd_ int fd = open(t->image->path, O_RDONLY | O_CLOEXEC);

        if (fd < 0)
            return err_origin_errno(-errno, "cannot open %s", t->image->path);
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    }
    if (memory == MAP_FAILED)
        return err_origin_errno(-errno, "cannot map %llu bytes", (unsigned long long)bytes);
    *out = memory;
    return 0;
}

int bench_memory_wake(uint64_t bytes, uint64_t page_bytes)
{
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, anonymous_flags(page_bytes), -1, 0);

    if (memory == MAP_FAILED)
        return err_origin_errno(
            -errno, "cannot map %llu bytes%s", (unsigned long long)bytes,
            page_bytes == 4096 ? "" : " of 2 MiB pages (see /proc/sys/vm/nr_hugepages)");
    (void)madvise(memory, bytes, MADV_NOHUGEPAGE);
    if (madvise(memory, bytes, MADV_POPULATE_WRITE) < 0) {
        for (uint64_t off = 0; off < bytes; off += page_bytes)
            *(volatile char *)(memory + off) = 1;
    }
    (void)munmap(memory, bytes);
    return 0;
}
