/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wakeup.c - the three ways, carried out
 *
 * Processors that do not sleep. While a file descriptor of /dev/cpu_dma_latency asks for 0 us, the kernel's idle loop polls
 * in place of halting, on all processors of the host. The file is opened once; writing the value that the kernel has by
 * default takes the wish back (Documentation/power/pm_qos_interface.rst). The kernel does the same when the descriptor is
 * closed, so a pager that is killed holds nothing; one that a supervisor forked shares the descriptor with it, and the
 * supervisor takes the wish back.
 *
 * The guest's processor. A folder of /proc names the VMM's threads, /proc/PID/task/TID/schedstat says how long each has run,
 * and .../stat where. If one of them did nearly all of the work, the pager's thread binds itself to its processor. The thread
 * that faulted sleeps, so the processor is free, and nothing has to be woken but by a context switch. With several busy threads,
 * and while pages are installed that nobody waits for, the pager's thread runs where it was allowed to at first.
 *
 * Looking before sleeping. epoll_wait() without a timeout, again and again: it sees everything that the pager waits for.
 */
#include "pager/wakeup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "pager/cpu_list.h"
#include "pager/landlock.h"
#include "pager/wakeup_rules.h"

#define LATENCY_FILE "/dev/cpu_dma_latency"
#define LATENCY_NONE 2000000000 /* us: PM_QOS_CPU_LATENCY_DEFAULT_VALUE */

struct wakeup {
    const struct log_sink *log;
    enum thaw_latency_qos qos;
    unsigned spin_us;
    bool follows;
    bool listed; /* @list is what was asked for */
    cpu_set_t
        list; /* where the pager's thread may run; what it was born with if nothing was asked for */
    int latency_fd;   /* owned; -1: none */
    int tasks_fd;     /* owned: /proc/PID/task; -1: none */
    int cpu;          /* bound to it, because the guest is there; -1: not bound */
    bool held;        /* processors are held awake */
    uint64_t held_ns; /* since when, or counted until */
    uint64_t
        asleep_ns; /* when the pager's thread had nothing more to do; 0: there was, or it is not asked */
    uint64_t n_messages; /* of the counter, when it was looked at last */
    uint64_t n_followed; /* the same, when the threads were looked at last */
    struct counters *counters;
    struct qos_rule qos_rule;
    struct spin_rule spin_rule;
    struct follow_rule follow_rule;
};

/* ---- options -------------------------------------------------------------------------------------------------- */

static bool follows(const struct thaw_pager_options *o)
{
    return o->cpus && strcmp(o->cpus, "follow") == 0;
}

static bool listed(const struct thaw_pager_options *o)
{
    return o->cpus && !follows(o) && strcmp(o->cpus, "any") != 0;
}

/* #syscalls:start sched_getaffinity */
int wakeup_check(const struct thaw_pager_options *o)
{
    cpu_set_t usable;
    cpu_set_t list;

    if (o->latency_qos != THAW_LATENCY_QOS_OFF && o->latency_qos != THAW_LATENCY_QOS_AUTO &&
        o->latency_qos != THAW_LATENCY_QOS_ON)
        return err_origin(-EINVAL, "no such way to keep processors awake: %d", (int)o->latency_qos);
    if (o->spin_us != THAW_SPIN_AUTO && o->spin_us > THAW_SPIN_MAX_US)
        return err_origin(-EINVAL, "looking for messages for %u us, expected at most %u",
                          o->spin_us, THAW_SPIN_MAX_US);
    if (!listed(o))
        return 0;
    if (cpu_list_parse(o->cpus, &list) < 0)
        return err_origin(-EINVAL, "processors %s, expected follow, any or numbers such as 0-3,7",
                          o->cpus);
    if (sched_getaffinity(0, sizeof(usable), &usable) < 0)
        return 0; /* more than CPU_SETSIZE of them */
    CPU_AND(&list, &list, &usable);
    if (CPU_COUNT(&list) == 0)
        return err_origin(-EINVAL, "processors %s: this process may use none of them", o->cpus);
    return 0;
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

/* #syscalls:start openat open */
static int open_latency(struct wakeup *w)
{
    if (w->qos == THAW_LATENCY_QOS_OFF)
        return 0;
    w->latency_fd = open(LATENCY_FILE, O_WRONLY | O_CLOEXEC);
    if (w->latency_fd >= 0)
        return 0;
    if (w->qos == THAW_LATENCY_QOS_ON)
        return err_origin_errno(-errno, "cannot keep processors awake: cannot open %s",
                                LATENCY_FILE);
    log_line(w->log, THAW_LOG_DEBUG, "msg=\"processors may sleep\" why=\"cannot open %s: %s\"",
             LATENCY_FILE, strerrordesc_np(errno));
    return 0;
}

int wakeup_new(struct wakeup **out, const struct thaw_pager_options *o, const struct log_sink *log)
{
    struct wakeup *w = calloc(1, sizeof(*w));
    int r;

    if (!w)
        return err_origin_errno(-ENOMEM, "cannot set up a pager");
    w->log = log;
    w->qos = o->latency_qos;
    w->spin_us = o->spin_us;
    w->follows = follows(o);
    w->listed = listed(o);
    w->latency_fd = -1;
    w->tasks_fd = -1;
    w->cpu = -1;
    if (w->listed)
        (void)cpu_list_parse(o->cpus, &w->list);
    else if (sched_getaffinity(0, sizeof(w->list), &w->list) < 0)
        w->follows = false; /* more processors than CPU_SETSIZE */
    r = open_latency(w);
    if (r < 0) {
        (void)wakeup_free(w);
        return r;
    }
    *out = w;
    return 0;
}

void wakeup_meet(struct wakeup *w, const struct peer *vmm, bool confined)
{
    char path[64];

    if (!w->follows)
        return;
    /* A confined process opens files in this folder as long as it lives, and only Landlock keeps it in there. */
    if (confined && landlock_version() < 0) {
        log_line(
            w->log, THAW_LOG_INFO,
            "msg=\"the guest's processor is not followed\" why=\"this kernel has no Landlock\"");
        return;
    }
    (void)snprintf(path, sizeof(path), "/proc/%d/task", vmm->pid);
    w->tasks_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (w->tasks_fd < 0)
        log_line(w->log, THAW_LOG_INFO,
                 "msg=\"the guest's processor is not followed\" why=\"cannot open %s: %s\"", path,
                 strerrordesc_np(errno));
}

int wakeup_tasks(const struct wakeup *w)
{
    return w->tasks_fd;
}

struct wakeup *wakeup_free(struct wakeup *w)
{
    if (!w)
        return NULL;
    (void)fd_close(w->latency_fd);
    (void)fd_close(w->tasks_fd);
    free(w);
    return NULL;
}

/* ---- processors that do not sleep ----------------------------------------------------------------------------- */

/* #syscalls write */
static bool ask_for(const struct wakeup *w, int32_t latency_us)
{
    return write(w->latency_fd, &latency_us, sizeof(latency_us)) == (ssize_t)sizeof(latency_us);
}

void wakeup_let_processors_sleep(struct wakeup *w)
{
    if (w->latency_fd >= 0)
        (void)ask_for(w, LATENCY_NONE);
}

static void count_held(struct wakeup *w, uint64_t now_ns)
{
    if (w->held && now_ns > w->held_ns)
        w->counters->awake_ns += now_ns - w->held_ns;
    w->held_ns = now_ns;
}

static void hold(struct wakeup *w, bool want, uint64_t now_ns)
{
    count_held(w, now_ns);
    if (want == w->held)
        return;
    if (!ask_for(w, want ? 0 : LATENCY_NONE)) { /* it is not tried again */
        w->latency_fd = fd_close(w->latency_fd);
        want = false;
    }
    w->counters->awakes += want;
    w->held = want;
}

/* ---- the guest's processor ------------------------------------------------------------------------------------ */

/* read_task() - the first bytes of a file of one thread. Return: is there anything? */
/* #syscalls openat:0=TASKS read */
static bool read_task(const struct wakeup *w, int tid, const char *name, char *buf, size_t len)
{
    _cleanup_fd_ int fd = -1;
    char path[48];
    ssize_t n;

    (void)snprintf(path, sizeof(path), "%d/%s", tid, name);
    fd = openat(w->tasks_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, buf, len - 1);
    buf[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* processor_of() - where a thread runs, or ran last; -1: it is gone */
static int processor_of(const struct wakeup *w, int tid)
{
    char line[1024];
    char *at;

    if (!read_task(w, tid, "stat", line, sizeof(line)))
        return -1;
    /* The second field is a name in parentheses, in which anything may be; the processor is the 39th (proc(5)). */
    at = strrchr(line, ')');
    for (unsigned field = 2; at && field < 39; field++)
        at = strchr(at + 1, ' ');
    return at ? (int)strtol(at + 1, NULL, 10) : -1;
}

struct dirent64_head { /* getdents64(2) */
    uint64_t inode;
    int64_t offset;
    uint16_t bytes;
    uint8_t type;
    char name[];
};

/* take_names() - the threads among some entries of the folder. Return: false: too many */
static bool take_names(const struct wakeup *w, const char *entries, size_t len,
                       struct thread_time *threads, unsigned *n)
{
    char text[64];

    for (size_t at = 0; at < len;) {
        const struct dirent64_head *e = (const void *)(entries + at);
        int tid = (int)strtol(e->name, NULL, 10);

        at += e->bytes;
        if (tid <= 0 || !read_task(w, tid, "schedstat", text, sizeof(text)))
            continue;
        if (*n == FOLLOW_THREADS)
            return false;
        threads[(*n)++] = (struct thread_time){.tid = tid, .run_ns = strtoull(text, NULL, 10)};
    }
    return true;
}

/* list_threads() - Return: how many; 0: none can be seen, or there are too many */
/* #syscalls getdents64 lseek */
static unsigned list_threads(const struct wakeup *w, struct thread_time threads[FOLLOW_THREADS])
{
    _Alignas(struct dirent64_head) char entries[2048];
    unsigned n = 0;
    long len;

    if (lseek(w->tasks_fd, 0, SEEK_SET) < 0)
        return 0;
    while ((len = syscall(SYS_getdents64, w->tasks_fd, entries, sizeof(entries))) > 0) {
        if (!take_names(w, entries, (size_t)len, threads, &n))
            return 0;
    }
    return len < 0 ? 0 : n;
}

/* bind_to() - run on @cpu; -1: on all that were there at first */
/* #syscalls sched_setaffinity:0=0 */
static void bind_to(struct wakeup *w, int cpu)
{
    cpu_set_t set = w->list;

    if (cpu == w->cpu)
        return;
    if (cpu >= 0) {
        if (cpu >= CPU_SETSIZE || !CPU_ISSET((size_t)cpu, &w->list))
            return;
        CPU_ZERO(&set);
        CPU_SET((size_t)cpu, &set);
    }
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        return; /* the administrator allows others now (cpuset) */
    w->cpu = cpu;
    w->counters->moves++;
}

static void follow(struct wakeup *w, uint64_t now_ns)
{
    struct thread_time threads[FOLLOW_THREADS];
    unsigned n = list_threads(w, threads);
    int tid = follow_rule_step(&w->follow_rule, threads, n, now_ns);

    bind_to(w, tid > 0 ? processor_of(w, tid) : -1);
}

/* ---- the pager's thread --------------------------------------------------------------------------------------- */

void wakeup_begin(struct wakeup *w, struct counters *counters, uint64_t now_ns)
{
    bool fixed = w->spin_us != 0 && w->spin_us != THAW_SPIN_AUTO;
    unsigned percent = fixed ? SPIN_FIXED_PERCENT : SPIN_PERCENT;

    w->counters = counters;
    w->n_messages = w->n_followed = counters->messages;
    qos_rule_init(&w->qos_rule, w->qos == THAW_LATENCY_QOS_ON ? 100 : QOS_PERCENT, now_ns);
    spin_rule_init(&w->spin_rule, fixed ? w->spin_us * NS_PER_US : 0, w->spin_us ? percent : 0,
                   now_ns);
    follow_rule_init(&w->follow_rule);
    if (w->listed && sched_setaffinity(0, sizeof(w->list), &w->list) < 0)
        log_line(w->log, THAW_LOG_WARN, "msg=\"cannot choose processors\" error=\"%s\"",
                 strerrordesc_np(errno));
}

void wakeup_turn(struct wakeup *w, bool ahead, uint64_t now_ns)
{
    uint64_t n = w->counters->messages - w->n_messages;

    w->n_messages += n;
    if (w->tasks_fd >= 0) {
        if (ahead)
            bind_to(w, -1);
        else if (w->n_messages - w->n_followed >= FOLLOW_MESSAGES &&
                 follow_rule_is_due(&w->follow_rule, now_ns)) {
            w->n_followed = w->n_messages;
            follow(w, now_ns);
        }
    }
    if (w->latency_fd >= 0) {
        /* Where the pager is on the guest's processor, nobody sleeps who is to be woken. */
        uint64_t count = w->cpu >= 0 ? 0 : min_u64(n, UINT32_MAX);

        hold(w, qos_rule_step(&w->qos_rule, (unsigned)count, now_ns), now_ns);
    }
}

uint64_t wakeup_deadline_ns(const struct wakeup *w)
{
    return w->latency_fd >= 0 ? qos_rule_deadline_ns(&w->qos_rule) : WAKEUP_NEVER;
}

/* #syscalls epoll_wait epoll_pwait */
int wakeup_look(struct wakeup *w, int epoll, struct epoll_event *events, int max, uint64_t until_ns,
                uint64_t *now_ns)
{
    uint64_t began_ns;
    uint64_t look_ns;
    uint64_t end_ns;
    int n = 0;

    w->asleep_ns = 0;
    if (w->spin_us == 0 || until_ns <= *now_ns)
        return 0;
    *now_ns = began_ns = w->asleep_ns = clock_now_ns();
    /* On the guest's own processor looking would keep it from running. */
    look_ns = w->cpu >= 0 ? 0 : spin_rule_ns(&w->spin_rule, began_ns);
    if (look_ns == 0)
        return 0;
    end_ns = min_u64(began_ns + look_ns, until_ns);
    while (n == 0 && *now_ns < end_ns) {
        n = epoll_wait(epoll, events, max, 0);
        *now_ns = clock_now_ns();
    }
    spin_rule_spent(&w->spin_rule, *now_ns - began_ns, n > 0, *now_ns);
    w->counters->spins++;
    w->counters->spins_found += n > 0;
    w->counters->spun_ns += *now_ns - began_ns;
    return n > 0 ? n : 0;
}

void wakeup_woke(struct wakeup *w, bool messages)
{
    if (w->asleep_ns != 0 && messages)
        spin_rule_waited(&w->spin_rule, clock_now_ns() - w->asleep_ns);
}

void wakeup_end(struct wakeup *w)
{
    if (w->latency_fd >= 0)
        hold(w, false, clock_now_ns());
    bind_to(w, -1);
}
