/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_ahead.c - what is done when nobody waits: install what is planned, and read for it
 *
 * Here the pager thread does both, a slice at a time, and looks at the kernel's messages between two slices: a fault waits for
 * one slice at most (SLICE_BYTES, some microseconds), and no second thread makes ioctls (invariant I4). With a second processor
 * most slices are installed by another thread while this one sleeps: session_aside.c. Whatever else there is to do goes first:
 * messages, bytes that have come, retries.
 *
 *     the plan    working set, in the order of the first touches     --prefetch
 *                 then everything else, in the order of the file     --fill
 *
 * Bytes that are not in memory. The first slice whose bytes are elsewhere starts the readers: a second walk through the same
 * plan hands ranges to the workers, up to READS_MAX at a time and READ_BYTES each, with gaps of up to GAP_BYTES read along,
 * because one long read is faster than two short ones. The installing walk goes on when the bytes at its place have come. The
 * workers take what a fault waits for first, and one of them never reads for the plan.
 *
 * Discards. A thread that discards waits until no copy is under way, and is woken too late for the moment between two copies:
 * 32 KiB after 32 KiB without a gap keep it asleep for milliseconds. So for GENTLE_NS after each discard that is read there is
 * a gap of GAP_NS between two slices.
 *
 * Images. A read brings whole frames, and one of the plan brings pages that other places of it want: so what is there already
 * is passed over before a read is handed out, and no gap is read along. A frame that a fault has waited for has more pages
 * than it wanted: those around it are installed before the plan goes on.
 *
 * The rate. With a limit, each slice moves the time of the next one.
 */
#include "base/clock.h"
#include "base/err.h"
#include "pager/session_private.h"

#define SLICES_A_TURN 64u /* between two looks at everything else */
#define READS_MAX     WORKERS_MAX_AHEAD
#define READ_BYTES    (1 * MIB)
#define GAP_BYTES     (64 * KIB)
#define LOOKS_A_TURN \
    256u /* pages or runs of them that may turn out to be there, between two looks at everything else */
#define GENTLE_NS (10 * NS_PER_MS)
#define TELL_NS   (100 * NS_PER_MS)

static struct counters *counters(struct session *s)
{
    return &s->p.block->header->counters;
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

/* where_is() - ask the source about the first page of *run, and cut *run to what it says that of */
static enum located where_is(struct session *s, struct prefetch_run *run)
{
    struct effect fx = {
        .kind = EFFECT_LOCATE,
        .page = run->first,
        .first = run->first,
        .end = run->end,
        .ahead = true,
    };
    struct event reply;

    session_locate(s, &fx, &reply);
    run->end = reply.located.end;
    return reply.located.where;
}

/* next_frame() - the same where frames are read: a slice that begins with a page that is not there. @looks: left; counts down */
static bool next_frame(struct session *s, struct prefetch_run *read, unsigned *looks)
{
    struct prefetch *walk = &s->ahead.reads;
    pgno_t most = max_u64(1, READ_BYTES / s->page_bytes);

    for (; *looks > 0; --*looks) {
        struct prefetch_run same;

        if (!prefetch_peek(walk, &s->p.block->pages, most, read))
            return false;
        same = *read;
        if (where_is(s, &same) == LOCATED_ELSEWHERE) {
            prefetch_pass(walk, read->end);
            return true;
        }
        prefetch_pass(walk, same.end);
    }
    return false;
}

/* next_read() - a range of the plan that is worth one read. Return: false when the walk is over */
static bool next_read(struct session *s, struct prefetch_run *read)
{
    struct prefetch *walk = &s->ahead.reads;
    const struct pagetab *pages = &s->p.block->pages;
    pgno_t most = max_u64(1, READ_BYTES / s->page_bytes);
    pgno_t gap = GAP_BYTES / s->page_bytes;
    struct prefetch_run slice;
    pgno_t region_end;

    if (!prefetch_peek(walk, pages, most, read))
        return false;
    region_end = geom_region_end(&s->p.block->geom, geom_find_page(&s->p.block->geom, read->first));
    prefetch_pass(walk, read->end);
    while (prefetch_peek(walk, pages, most, &slice) && slice.first >= read->end &&
           slice.first - read->end <= gap && slice.end - read->first <= most &&
           slice.end <= region_end) {
        read->end = slice.end;
        prefetch_pass(walk, slice.end);
    }
    return true;
}

/* may_read() - not more than may be under way, and not further ahead of what is installed than the cache will keep */
static bool may_read(const struct session *s)
{
    const struct ahead *a = &s->ahead;
    uint64_t ahead_by = a->reads.n_passed > s->engine.ahead.n_passed
                            ? a->reads.n_passed - s->engine.ahead.n_passed
                            : 0;

    return a->n_jobs < READS_MAX && ahead_by * s->page_bytes < s->p.lead_bytes;
}

/* next_frames_job() - several slices, of READ_BYTES in all: working sets are scattered, and to wake a worker takes time */
static bool next_frames_job(struct session *s, struct fetch_job *job)
{
    unsigned looks = LOOKS_A_TURN;
    struct prefetch_run read;
    uint64_t bytes;

    if (!next_frame(s, &read, &looks))
        return false;
    *job = session_job(s, read.first, read.end);
    bytes = job->hi - job->lo;
    while (job->n_more < FETCH_MORE && bytes < READ_BYTES && next_frame(s, &read, &looks)) {
        struct fetch_job next = session_job(s, read.first, read.end);

        job->more[job->n_more++] = (struct fetch_range){.lo = next.lo, .hi = next.hi};
        bytes += next.hi - next.lo;
    }
    return true;
}

/* next_job() - Return: false when the walk is over, or enough was looked at for now */
static bool next_job(struct session *s, struct fetch_job *job)
{
    struct prefetch_run read;

    if (s->p.in_frames)
        return next_frames_job(s, job);
    if (!next_read(s, &read))
        return false;
    *job = session_job(s, read.first, read.end);
    return true;
}

static void feed(struct session *s)
{
    struct fetch_job job;

    while (may_read(s) && next_job(s, &job)) {
        job.ahead = true;
        workers_submit(s->p.workers, &job);
        s->ahead.n_jobs++;
    }
}

/* ---- what came along ------------------------------------------------------------------------------------------- */

void ahead_along(struct session *s, const struct fetch_job *job)
{
    struct along *a = &s->ahead.along;

    if (s->p.along_bytes <= s->page_bytes || job->result < 0)
        return;
    a->pages[(a->head + a->n) % ALONG_MAX] = job->first;
    if (a->n < ALONG_MAX)
        a->n++;
    else
        a->head = (a->head + 1) % ALONG_MAX; /* the oldest is left to its faults */
}

static bool along_waits(const struct session *s)
{
    const struct along *a = &s->ahead.along;

    return !s->ahead.bursts && (a->n > 0 || !prefetch_is_over(&a->walk));
}

static bool along_is_due(const struct session *s)
{
    return along_waits(s) && s->now_ns >= s->ahead.gentle_until_ns;
}

/* next_along() - what is in memory around the next page. Return: false: there is no more */
static bool next_along(struct session *s)
{
    struct along *a = &s->ahead.along;
    const struct geom *g = &s->p.block->geom;

    while (a->n > 0) {
        pgno_t page = a->pages[a->head];
        struct effect fx = {.kind = EFFECT_LOCATE, .page = page, .ahead = true};
        struct event reply;

        a->head = (a->head + 1) % ALONG_MAX;
        a->n--;
        geom_window(g, page, s->p.along_bytes / s->page_bytes, &fx.first, &fx.end);
        session_locate(s, &fx, &reply);
        if (reply.located.where != LOCATED_MEMORY)
            continue;
        a->run = (struct prefetch_run){reply.located.first, reply.located.end};
        prefetch_init(&a->walk, &a->run, 1);
        return true;
    }
    return false;
}

/* take_along() - a slice of it: the engine walks there for one step */
static bool take_along(struct session *s)
{
    struct along *a = &s->ahead.along;
    struct event ev = {.kind = EVENT_AHEAD, .time_ns = s->now_ns};
    struct effect fx[ENGINE_FX_MAX];
    struct prefetch plan = s->engine.ahead;
    bool any = false;

    if (prefetch_is_over(&a->walk) && !next_along(s))
        return false;
    s->engine.ahead = a->walk;
    a->at_work = true;
    if (engine_step(&s->engine, &ev, fx) > 0) {
        session_carry_out(s, fx[0], s->now_ns);
        any = true;
    }
    a->at_work = false;
    a->walk = s->engine.ahead;
    s->engine.ahead = plan;
    return any;
}

/* ---- the plan ------------------------------------------------------------------------------------------------- */

/* next_plan() - the walk is over: is there another one? */
static void next_plan(struct session *s)
{
    struct ahead *a = &s->ahead;

    if (!a->filling && s->p.fill.n > 0) {
        a->filling = true;
        prefetch_init(&s->engine.ahead, s->p.fill.runs, s->p.fill.n);
        a->reads = s->engine.ahead;
        a->waits = false;
        return;
    }
    a->over = true;
    if (a->began_ns != 0)
        log_line(s->p.log, THAW_LOG_INFO, "msg=\"installed ahead\" pages=%ju left=%ju us=%ju",
                 (uintmax_t)counters(s)->pages_ahead, (uintmax_t)counters(s)->ahead_left,
                 (uintmax_t)((s->now_ns - a->began_ns) / NS_PER_US));
}

bool ahead_is_due(const struct session *s)
{
    return ahead_deadline_ns(s) <= s->now_ns;
}

uint64_t ahead_deadline_ns(const struct session *s)
{
    const struct ahead *a = &s->ahead;
    uint64_t plan_ns = a->over || a->waits || side_is_working(s) ? ENGINE_NEVER : a->next_ns;

    if (engine_deadline_ns(&s->engine) != ENGINE_NEVER)
        return ENGINE_NEVER;
    return along_waits(s) ? min_u64(plan_ns, a->gentle_until_ns) : plan_ns;
}

/* limit_rate() - @n_pages were installed: when is the next slice? */
static void limit_rate(struct session *s, uint64_t n_pages)
{
    struct ahead *a = &s->ahead;
    uint64_t bytes = n_pages * s->page_bytes;

    if (s->p.ahead_rate == 0)
        return;
    a->next_ns = max_u64(a->next_ns, s->now_ns) +
                 (uint64_t)((double)bytes * (double)NS_PER_S / (double)s->p.ahead_rate);
}

void ahead_discarding(struct session *s, hva_t start, hva_t end)
{
    s->ahead.gentle_until_ns = s->now_ns + GENTLE_NS;
    side_discarding(s, start, end);
}

void ahead_refused(struct session *s)
{
    s->ahead.next_ns = max_u64(s->ahead.next_ns, clock_now_ns() + GAP_NS);
}

/* take_slice() - Return: was there anything to do? */
static bool take_slice(struct session *s)
{
    struct event ev = {.kind = EVENT_AHEAD, .time_ns = s->now_ns};
    struct effect fx[ENGINE_FX_MAX];
    uint64_t before = counters(s)->pages_ahead;

    if (along_is_due(s))
        return take_along(s);
    if (s->ahead.over || s->ahead.waits || s->now_ns < s->ahead.next_ns)
        return false;
    if (engine_step(&s->engine, &ev, fx) == 0) {
        if (prefetch_is_over(&s->engine.ahead) && side_is_empty(s))
            next_plan(s);
        return false;
    }
    if (s->ahead.began_ns == 0)
        s->ahead.began_ns = s->now_ns;
    session_carry_out(s, fx[0], s->now_ns);
    limit_rate(s, counters(s)->pages_ahead - before);
    if (s->now_ns < s->ahead.gentle_until_ns)
        s->ahead.next_ns = max_u64(s->ahead.next_ns, s->now_ns + GAP_NS);
    return true;
}

void session_progress(const struct session *s, struct thaw_progress *out)
{
    const struct ahead *a = &s->ahead;

    *out = (struct thaw_progress){
        .page_bytes = s->page_bytes,
        .working_set_pages = s->p.working_set.n_pages,
        .fill_pages = s->p.fill.n_pages,
        .n_installed = s->p.block->header->counters.pages_ahead,
        .over = a->over,
    };
    if (a->filling) {
        out->working_set_done = s->p.working_set.n_pages;
        out->fill_done = s->engine.ahead.n_passed;
    } else {
        out->working_set_done = s->engine.ahead.n_passed;
    }
}

/* tell_progress() - now and then, and at the end */
static void tell_progress(struct session *s)
{
    struct thaw_progress progress;

    if (!s->p.on_progress || s->ahead.began_ns == 0 ||
        (!s->ahead.over && s->now_ns - s->ahead.told_ns < TELL_NS))
        return;
    s->ahead.told_ns = s->now_ns;
    session_progress(s, &progress);
    s->p.on_progress(s->p.on_ready_ctx, &progress);
}

/* take_before() - a burst, or the end of that phase */
static void take_before(struct session *s)
{
    struct ahead *a = &s->ahead;

    if (a->began_ns == 0)
        a->began_ns = s->now_ns;
    (void)before_take(s);
    if (a->before_bytes > 0 && !a->over && !prefetch_is_over(&s->engine.ahead))
        return;
    /* Again from the beginning, for what the bursts have left behind. */
    prefetch_init(&s->engine.ahead, s->p.working_set.runs, s->p.working_set.n);
    if (a->n_jobs == 0)
        a->reads = s->engine.ahead;
    before_end(s);
}

void ahead_take(struct session *s)
{
    if (s->ahead.bursts && ahead_is_due(s)) {
        take_before(s);
        tell_progress(s);
        return;
    }
    if (s->ahead.reading)
        feed(s);
    for (unsigned i = 0; i < SLICES_A_TURN && s->stop == STOP_NONE; i++) {
        if (!along_is_due(s) && side_fill(s))
            break;
        if (!ahead_is_due(s))
            break;
        side_did_by_hand(s);
        if (take_slice(s) && session_take_messages(s))
            break; /* there may be more, and retries: they go first */
        if (s->ahead.over)
            tell_progress(s);
    }
    if (!s->ahead.over)
        tell_progress(s);
}

/* ---- what has been read ---------------------------------------------------------------------------------------- */

void ahead_fetch(struct session *s, const struct effect *fx)
{
    struct ahead *a = &s->ahead;

    if (a->along.at_work) { /* it did not stay in memory, and nobody has asked for it */
        prefetch_pass(&s->engine.ahead, fx->end);
        return;
    }
    /* The readers have not begun, or what they read has left the page cache again: then once more, and not for ever. */
    if (a->n_jobs == 0 && (!a->reading || a->read_again != fx->first)) {
        a->read_again = fx->first;
        a->reads = s->engine.ahead;
        a->reading = true;
        feed(s);
    }
    a->waits = a->n_jobs > 0;
    if (a->waits)
        return;
    /* It does not stay where it can be installed from: leave the page to its fault. */
    counters(s)->ahead_left += fx->end - fx->first;
    prefetch_pass(&s->engine.ahead, fx->end);
}

void ahead_fetched(struct session *s, const struct fetch_job *job)
{
    struct ahead *a = &s->ahead;

    assert(a->n_jobs > 0);
    a->n_jobs--;
    a->waits = false;
    if (job->result < 0 && !a->over) {
        log_line(s->p.log, THAW_LOG_WARN, "msg=\"cannot read ahead\" error=\"%s\"", job->error);
        a->over = true; /* a fault will say whether the bytes can be had */
        side_give_up(s);
        before_end(s);
    }
    if (!a->over)
        feed(s);
}
