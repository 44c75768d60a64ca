/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - the loop
 *
 *     wait -> read messages -> discards first, then faults -> engine -> effect -> outcome -> engine -> ...
 *          -> finished reads of the workers                -> engine -> effect -> ...
 *          -> retries that are due                         -> engine -> effect -> ...
 *
 * One effect at a time, carried out and answered before anything else happens: carry_out() is the whole of it. The engine
 * decides, this file does. Reading the uffd waits for nothing: no lock, no storage, no worker; and a retry that is due never
 * waits for a message, because none announces that installs work again.
 *
 * The end. Whatever goes wrong, the VMM is dead before this loop returns, and so before anybody can close the uffd: a
 * thread that waits for a page would otherwise go on with zeroes (invariant I6).
 */
#include "pager/session_private.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "uffd/install.h"
#include "uffd/receive.h"

#define INBOX_MSGS (BLOCK_INBOX_BYTES / sizeof(struct uffd_msg))
static_assert(sizeof(struct uffd_msg) == BLOCK_INBOX_MSG && offsetof(struct uffd_msg, event) == 0,
              "what block.h says of messages");
static_assert(WORKERS_MAX_JOBS >= FETCH_TABLE_MAX, "the workers take whatever the engine asks for");

#define READS_A_TURN 64 /* reads between two looks at everything else */
#define TICKS_A_TURN 32 /* retries between two looks at the message queue */

/* What there is to do; bits, and the epoll data of the descriptor that says so */
enum ready {
    READY_MESSAGES = 1,
    READY_FETCHED = 2,
    READY_CONTROL = 4,
    READY_GONE = 8,
    READY_BROKEN = 16, /* the uffd cannot be polled any more */
    READY_SIDE = 32,   /* the second thread has little left to do */
};

void session_stop_because(struct session *s, enum stop_reason reason, const char *why)
{
    if (s->stop != STOP_NONE)
        return;
    s->stop = reason;
    (void)snprintf(s->why, sizeof(s->why), "%s", why);
}

/* ---- events --------------------------------------------------------------------------------------------------- */

static void step(struct session *s, const struct event *ev, uint64_t since_ns)
{
    struct effect fx[ENGINE_FX_MAX];

    if (engine_step(&s->engine, ev, fx) > 0)
        session_carry_out(s, fx[0], since_ns);
}

/* begin() - something that is no discard, and no discard that was read is still to be dealt with */
static void begin(struct session *s)
{
    side_take_back(s);
    s->ahead.may_lend = true;
}

static void take_message(struct session *s, const struct uffd_msg *msg, uint64_t read_ns)
{
    struct event ev = {.time_ns = s->now_ns};
    char why[80];

    if (uffd_decode(msg, &ev) == UFFD_E_UNKNOWN) {
        (void)snprintf(why, sizeof(why),
                       "an event that cannot be honoured (userfaultfd event 0x%x)", msg->event);
        session_stop_because(s, STOP_UNKNOWN_EVENT, why);
        return;
    }
    if (s->p.recorder)
        record_fault(s, &ev);
    if (ev.kind == EVENT_REMOVE) {
        ahead_discarding(s, ev.remove.start, ev.remove.end);
        letgo_removed(s, ev.remove.start, ev.remove.end);
    }
    step(s, &ev, read_ns);
}

/*
 * take_discards() - the discards among @n messages
 *
 * A discard is cleared once the page states know of it, and before any fault is looked at. So one that is found in the
 * inbox by another pager has been followed by no install: to take it again changes nothing but what is missing.
 */
static void take_discards(struct session *s, struct uffd_msg *msgs, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (!uffd_is_discard(&msgs[i]))
            continue;
        take_message(s, &msgs[i], s->now_ns);
        uffd_clear(&msgs[i]);
    }
}

/* take_messages() - one read's worth, discards before faults. Return: false if there was nothing to read */
bool session_take_messages(struct session *s)
{
    struct uffd_msg *msgs = s->p.block->inbox;
    struct counters *c = &s->p.block->header->counters;
    uint64_t read_ns;
    int n;

    side_take_back(s);
    n = uffd_receive(s->p.uffd, msgs, INBOX_MSGS);
    read_ns = clock_now_ns();

    if (n < 0)
        session_stop_because(s, STOP_REFUSED, err_text());
    if (n <= 0)
        return false;
    s->now_ns = read_ns;
    c->reads++;
    c->messages += (uint64_t)n;
    take_discards(s, msgs, (unsigned)n);
    for (int i = 0; i < n && s->stop == STOP_NONE; i++) {
        if (!uffd_is_cleared(&msgs[i])) {
            begin(s);
            take_message(s, &msgs[i], read_ns);
        }
        uffd_clear(&msgs[i]);
    }
    return true;
}

/*
 * take_all_messages() - read until there is nothing more, but not for ever: others wait, too
 *
 * A thread that was just woken often faults again before we would have gone to sleep. Trying to read first costs less than
 * waiting and being woken (docs/benchmarks.md).
 */
static void take_all_messages(struct session *s)
{
    for (unsigned i = 0; i < READS_A_TURN && s->stop == STOP_NONE; i++) {
        if (!session_take_messages(s) || side_is_working(s))
            return;
    }
}

/*
 * take_over() - finish what a pager that was killed had in hand
 *
 * Its inbox may hold messages that it read and did not deal with. A discard among them is taken now: the VMM's thread has
 * been let go, and nothing of the image may come to its pages any more. A fault is forgotten: everybody who sleeps in the
 * VM's memory is woken, those who still miss something fault again, and the kernel has a new message. That also wakes
 * those whose page was installed without a wake. What the block says is owed (engine_init()) is answered besides.
 */
static void take_over(struct session *s)
{
    struct uffd_msg *msgs = s->p.block->inbox;
    const struct geom *g = &s->p.block->geom;

    s->now_ns = clock_now_ns();
    take_discards(s, msgs, INBOX_MSGS);
    for (unsigned i = 0; i < INBOX_MSGS; i++) {
        if (!uffd_is_cleared(&msgs[i]) && !uffd_is_fault(&msgs[i]))
            session_stop_because(s, STOP_UNKNOWN_EVENT,
                                 "the last pager was killed with an event that cannot be honoured");
        uffd_clear(&msgs[i]);
    }
    for (unsigned i = 0; i < g->n_regions; i++) {
        struct install_result r = uffd_wake(s->p.uffd, g->regions[i].hva, g->regions[i].len_bytes);

        if (r.outcome == OUTCOME_GONE)
            session_stop_because(s, STOP_VMM_GONE, "the VMM is gone");
        else if (r.outcome != OUTCOME_DONE)
            session_stop_because(s, STOP_REFUSED, "the kernel refused to wake the VM's threads");
    }
}

/* #syscalls read */
static void take_fetched(struct session *s)
{
    struct fetch_job job;
    uint64_t count;
    ssize_t n = read(workers_fd(s->p.workers), &count, sizeof(count));

    (void)n;
    while (s->stop == STOP_NONE && workers_take_done(s->p.workers, &job)) {
        if (job.other)
            record_written(s, &job);
        if (job.ahead)
            ahead_fetched(s, &job);
        if (job.other || job.ahead)
            continue;
        struct event ev = {
            .kind = EVENT_FETCHED,
            .time_ns = s->now_ns,
            .fetched = {.first = job.first, .end = job.end, .ok = job.result == 0},
        };
        struct effect fx[ENGINE_FX_MAX];

        begin(s);
        if (engine_step(&s->engine, &ev, fx) == 0)
            continue;
        if (fx[0].kind == EFFECT_STOP)
            session_stop_because(s, STOP_SOURCE, job.error);
        else
            session_carry_out(s, fx[0], job.since_ns);
        ahead_along(s, &job);
    }
}

static void take_control(struct session *s)
{
    unsigned bits = control_take(s->p.control);

    if (control_has(bits, THAW_REQUEST_STATS))
        s->p.on_stats(s->p.on_stats_ctx);
    if (control_has(bits, THAW_REQUEST_READY))
        record_end(s);
    if (control_has(bits, THAW_REQUEST_STOP))
        session_stop_because(s, STOP_ASKED, "asked to stop");
}

/* take_ticks() - retries that are due, some at a time */
static void take_ticks(struct session *s)
{
    struct effect fx[ENGINE_FX_MAX];

    if (engine_deadline_ns(&s->engine) == ENGINE_NEVER)
        s->put_off_ns = 0;
    else if (s->put_off_ns == 0)
        s->put_off_ns = s->now_ns;
    for (unsigned i = 0; i < TICKS_A_TURN && s->stop == STOP_NONE; i++) {
        struct event ev = {.kind = EVENT_TICK, .time_ns = s->now_ns};

        if (engine_deadline_ns(&s->engine) > s->now_ns)
            return;
        begin(s);
        if (engine_step(&s->engine, &ev, fx) == 0)
            return;
        session_carry_out(s, fx[0], s->put_off_ns);
    }
}

/* ---- waiting -------------------------------------------------------------------------------------------------- */

/* deadline_ns() - when there is something to do, whatever the descriptors say */
static uint64_t deadline_ns(const struct session *s)
{
    uint64_t at_ns = min_u64(engine_deadline_ns(&s->engine), ahead_deadline_ns(s));

    at_ns = min_u64(at_ns, record_deadline_ns(s));
    at_ns = min_u64(at_ns, wakeup_deadline_ns(s->p.wakeup));
    if (!s->ahead.bursts && letgo_is_due(s))
        return s->now_ns;
    return leave_is_due(s) ? min_u64(at_ns, s->now_ns + LEAVE_NS) : at_ns;
}

/* wait_ready() - sleep until there is something to do. Return: bits of enum ready; 0: a retry is due */
/* #syscalls epoll_pwait2 epoll_pwait epoll_wait */
static unsigned wait_ready(struct session *s)
{
    struct epoll_event events[8];
    uint64_t until_ns;
    uint64_t wait_ns;
    struct timespec timeout;
    unsigned ready = 0;
    int n;

    wakeup_turn(s->p.wakeup, !s->ahead.over && !s->ahead.side, s->now_ns);
    until_ns = deadline_ns(s);
    side_lend(s);
    n = wakeup_look(s->p.wakeup, s->epoll, events, ARRAY_LEN(events), until_ns, &s->now_ns);
    wait_ns = until_ns > s->now_ns ? until_ns - s->now_ns : 0;
    timeout = timespec_from_ns(wait_ns);
    if (n == 0)
        n = epoll_pwait2(s->epoll, events, ARRAY_LEN(events),
                         until_ns == ENGINE_NEVER ? NULL : &timeout, NULL);
    if (n < 0 && errno == ENOSYS) /* before Linux 5.11: milliseconds, rounded up */
        n = epoll_wait(s->epoll, events, ARRAY_LEN(events),
                       until_ns == ENGINE_NEVER ? -1
                                                : (int)((wait_ns + NS_PER_MS - 1) / NS_PER_MS));
    if (n < 0 && errno != EINTR)
        ready = READY_BROKEN;
    side_take_back(s);
    for (int i = 0; i < n; i++) {
        ready |= events[i].data.u32;
        if (events[i].data.u32 == READY_MESSAGES && (events[i].events & EPOLLERR))
            ready |= READY_BROKEN;
    }
    wakeup_woke(s->p.wakeup, ready & READY_MESSAGES);
    return ready;
}

static void serve(struct session *s)
{
    wakeup_begin(s->p.wakeup, &s->p.block->header->counters, clock_now_ns());
    s->now_ns = clock_now_ns();
    while (s->stop == STOP_NONE) {
        unsigned ready = wait_ready(s);

        s->now_ns = clock_now_ns();

        if (ready & READY_BROKEN)
            session_stop_because(
                s, STOP_REFUSED,
                "the userfaultfd cannot be waited for any more (its O_NONBLOCK was taken off?)");
        if (ready & READY_MESSAGES)
            take_all_messages(s);
        if (ready & READY_FETCHED)
            take_fetched(s);
        if (ready & READY_SIDE)
            side_clear(s);
        if (ready & READY_CONTROL)
            take_control(s);
        if (ready & READY_GONE)
            session_stop_because(s, STOP_VMM_GONE, "the VMM is gone");
        if (record_deadline_ns(s) <= s->now_ns)
            record_end(s);
        take_ticks(s);
        side_take_back(s);
        if (!s->ahead.bursts)
            letgo_take(s);
        ahead_take(s);
        /* What is in the ring is still to be copied from where it was found. */
        if (side_is_empty(s))
            source_trim(s->p.source);
        if (leave_is_due(s))
            leave(s);
    }
    side_take_back(s);
    wakeup_end(s->p.wakeup);
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

static void log_waiting(void *ctx, unsigned seconds)
{
    struct session *s = ctx;

    log_line(s->p.log, THAW_LOG_WARN, "msg=\"waiting for the VMM to die\" vmm_pid=%d seconds=%u",
             s->p.peer->pid, seconds);
}

/* #syscalls prctl:0=PR_SET_TIMERSLACK mlock */
int session_run(struct session *s)
{
    int pid = s->p.peer->pid;
    bool good;
    int r = 0;

    (void)prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* retries after 10 us, not 60 */
    /* A kill while the kernel writes messages must not meet a page that is not there: they would be lost. */
    (void)mlock(s->p.block->inbox, BLOCK_INBOX_BYTES);
    if (s->p.take_over)
        take_over(s);
    if (s->p.on_ready && s->stop == STOP_NONE)
        s->p.on_ready(s->p.on_ready_ctx);
    if (!s->ahead.bursts && s->stop == STOP_NONE)
        before_end(s);
    serve(s);
    if (s->stop != STOP_LEFT && (s->stop != STOP_VMM_GONE || !peer_is_gone(s->p.peer)))
        r = peer_stop(s->p.peer, log_waiting, s);
    if (r < 0)
        return err_origin(r, "%s; and the VMM, process %d, could not be stopped", s->why, pid);
    good = s->stop == STOP_VMM_GONE || s->stop == STOP_ASKED || s->stop == STOP_LEFT;
    if (record_finish(s) < 0 && good)
        return err_origin(s->record_result,
                          "the VM was served, its working set is not recorded: %s",
                          s->record_error);
    if (good)
        return 0;
    return err_origin(-EIO, "%s; the VMM, process %d, was stopped", s->why, pid);
}

enum stop_reason session_end(const struct session *s)
{
    return s->stop;
}

/* #syscalls:start epoll_create1 epoll_ctl */
static int watch(struct session *s, int fd, enum ready what)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u32 = what};

    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
        return err_origin_errno(-errno, "cannot wait for events");
    return 0;
}

static int prepare(struct session *s)
{
    void *zeroes;
    void *unreadable;
    int r;

    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll < 0)
        return err_origin_errno(-errno, "cannot wait for events");
    r = watch(s, s->p.uffd, READY_MESSAGES);
    if (r == 0)
        r = watch(s, workers_fd(s->p.workers), READY_FETCHED);
    if (r == 0)
        r = watch(s, s->p.control->fd, READY_CONTROL);
    if (r == 0)
        r = watch(s, s->p.peer->pidfd, READY_GONE);
    if (r == 0 && s->ahead.side)
        r = watch(s, side_fd(s), READY_SIDE);
    if (r < 0)
        return r;
    /* Never written: all of it is the kernel's one page of zeroes. Touched here, so that copying it never faults. */
    zeroes =
        mmap(NULL, s->page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (zeroes == MAP_FAILED)
        return err_origin_errno(-errno, "cannot map a page of zeroes");
    s->zeroes = zeroes;
    unreadable = mmap(NULL, 4 * KIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (unreadable == MAP_FAILED)
        return err_origin_errno(-errno, "cannot map a page");
    s->unreadable = unreadable;
    letgo_init(s);
    return 0;
}

int session_new(struct session **out, const struct session_parts *parts,
                const struct engine_config *config)
{
    struct session *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return err_origin_errno(-ENOMEM, "cannot set up a session");
    s->p = *parts;
    s->page_bytes = geom_page_bytes(&parts->block->geom);
    engine_init(&s->engine, parts->block, config);
    prefetch_init(&s->engine.ahead, parts->working_set.runs, parts->working_set.n);
    s->ahead.reads = s->engine.ahead;
    s->ahead.filling = parts->working_set.n == 0 && parts->fill.n == 0;
    s->ahead.over = s->ahead.filling;
    r = side_new(s);
    if (r == 0)
        r = prepare(s);
    if (r == 0)
        r = before_new(s);
    if (r < 0) {
        (void)session_free(s);
        return r;
    }
    *out = s;
    return 0;
}

struct session *session_free(struct session *s)
{
    if (!s)
        return NULL;
    if (s->zeroes)
        (void)munmap(s->zeroes, s->page_bytes);
    if (s->unreadable)
        (void)munmap((void *)s->unreadable, 4 * KIB);
    (void)fd_close(s->epoll);
    before_free(s);
    side_free(s);
    free(s);
    return NULL;
}
