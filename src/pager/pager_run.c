/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pager_run.c - the library's pager half, from the VM that was accepted to its end: threads, session, statistics
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "pager/pager_private.h"
#include "pager/stats.h"
#include "pager/supervise.h"
#include "pager/tuning.h"

#define N_WORKERS   4
#define AHEAD_BYTES (32 * KIB) /* of a slice that is installed ahead */
#define LEAD_BYTES  (32 * MIB) /* how far reads are ahead of installs */
#define ALONG_BYTES (1 * MIB)  /* the window in which a frame's other pages are looked for */

void pager_tune_ahead(struct thaw_pager *p, uint64_t slice_bytes)
{
    p->ahead_slice_bytes = slice_bytes;
}

static void call_on_stats(void *ctx)
{
    struct thaw_pager *p = ctx;
    struct thaw_progress progress = {0};
    char *json;

    confine_report(&p->log);
    if (!p->on_stats)
        return;
    if (p->session)
        session_progress(p->session, &progress);
    if (stats_json(&json, &p->state.block, p->session ? session_end(p->session) : STOP_NONE,
                   &progress) < 0) {
        log_line(&p->log, THAW_LOG_ERROR, "msg=\"no statistics\" error=\"%s\"", err_text());
        return;
    }
    p->on_stats(p->on_stats_ctx, json);
    free(json);
}

/* #syscalls write */
static void call_on_ready(void *ctx)
{
    struct thaw_pager *p = ctx;
    struct block_header *h = p->state.block.header;
    uint64_t now_ns = clock_now_ns();
    uint64_t one = 1;

    if (h->generation > 1)
        log_line(&p->log, THAW_LOG_INFO,
                 "msg=\"taken over\" vmm_pid=%d pager_pid=%d generation=%u pause_us=%jd",
                 p->hs.peer.pid, h->pager_pid, h->generation,
                 h->left_ns == 0 ? (intmax_t)-1 : (intmax_t)((now_ns - h->left_ns) / NS_PER_US));
    if (p->ready_fd >= 0 && write(p->ready_fd, &one, sizeof(one)) < 0)
        log_line(&p->log, THAW_LOG_WARN, "msg=\"the supervisor cannot be told\"");
}

static void call_on_resume(void *ctx)
{
    struct thaw_pager *p = ctx;

    if (p->on_resume)
        p->on_resume(p->on_resume_ctx);
}

static void call_on_progress(void *ctx, const struct thaw_progress *progress)
{
    struct thaw_pager *p = ctx;

    if (p->on_progress)
        p->on_progress(p->on_progress_ctx, progress);
}

/* prepare_ahead() - what is to be installed ahead, and what is to be recorded */
static int prepare_ahead(struct thaw_pager *p)
{
    const struct geom *g = &p->state.block.geom;
    const struct thaw_pager_options *o = &p->opts;
    uint64_t image_bytes = source_size_bytes(p->served.source);
    int r = ahead_plans_make(&p->plans, g, image_bytes, o->fill != 0);

    if (r < 0 || !o->record_path)
        return r;
    if (p->state.block.header->generation > 0) {
        log_line(&p->log, THAW_LOG_WARN,
                 "msg=\"working set not recorded\" error=\"the pager that recorded it died\"");
        return 0;
    }
    return recorder_new(&p->recorder, o->record_path, p->record_folder, g, image_bytes,
                        o->record_ms * NS_PER_MS);
}

static struct prefetch_plan plan_of(const struct plan *plan)
{
    return (struct prefetch_plan){.runs = plan->runs, .n = plan->n, .n_pages = plan->n_pages};
}

static int prepare_session(struct thaw_pager *p)
{
    const struct geom *g = &p->state.block.geom;
    bool track = p->opts.track == THAW_TRACK_WP;
    uint64_t page_bytes = geom_page_bytes(g);
    struct engine_config config = {
        .around_pages = max_u64(1, p->opts.fault_around_bytes / page_bytes),
        .track = track,
        .ahead_pages =
            max_u64(1, (p->ahead_slice_bytes ? p->ahead_slice_bytes : AHEAD_BYTES) / page_bytes),
        .zero_runs = page_bytes == 4 * KIB && !track,
    };
    struct session_parts parts = {
        .uffd = p->hs.uffd,
        .block = &p->state.block,
        .source = p->served.source,
        .control = &p->control,
        .peer = &p->hs.peer,
        .wakeup = p->wakeup,
        .log = &p->log,
        .take_over = p->state.block.header->generation > 0,
        .on_ready = call_on_ready,
        .on_resume = call_on_resume,
        .on_progress = call_on_progress,
        .on_ready_ctx = p,
        .ahead_rate = p->opts.ahead_bytes_per_s,
        .keep_registered = p->opts.keep_registered != 0,
        .leave_when_full = p->opts.leave_when_full != 0,
        .before_bytes = p->opts.before_resume_bytes,
        .lead_bytes = LEAD_BYTES,
        .on_stats = call_on_stats,
        .on_stats_ctx = p,
    };
    if (p->served.is_image) {
        uint64_t cache_bytes = p->opts.image_cache_bytes;

        parts.in_frames = true;
        if (cache_bytes != 0)
            parts.lead_bytes = min_u64(LEAD_BYTES, cache_bytes / 2);
        if ((!p->opts.record_path || p->opts.record_missed) && config.around_pages > 1)
            parts.along_bytes = ALONG_BYTES;
    }
    /* With a plan, one for each read that is under way for it, and one that a fault never waits for. */
    bool reads_ahead = p->plans.ws || p->opts.fill;
    int r =
        workers_new(&p->workers, p->served.source, reads_ahead ? WORKERS_MAX_AHEAD + 1 : N_WORKERS);

    if (r == 0)
        r = prepare_ahead(p);
    if (r < 0)
        return r;
    parts.workers = p->workers;
    parts.working_set = plan_of(&p->plans.first);
    parts.fill = plan_of(&p->plans.rest);
    parts.recorder = p->recorder;
    parts.record_along = p->opts.record_missed != 0;
    r = session_new(&p->session, &parts, &config);
    if (r == 0)
        r = confine_syscalls(&p->confine);
    if (r < 0)
        p->session = session_free(p->session);
    return r;
}

/* begin_session() - from here on this process is the one that serves */
static int begin_session(struct thaw_pager *p)
{
    struct block_header *h = p->state.block.header;
    int r = prepare_session(p);

    if (r < 0)
        return p->supervised ? r : pager_refuse(p, r);
    h->pager_pid = getpid();
    if (h->generation > 0)
        h->counters.takeovers++;
    h->generation++;
    log_line(&p->log, THAW_LOG_INFO,
             "msg=\"serving\" vmm_pid=%d vmm_uid=%u pages=%ju page_bytes=%ju regions=%u "
             "pager_pid=%d",
             p->hs.peer.pid, h->vmm_uid, (uintmax_t)h->n_pages, (uintmax_t)1 << h->page_shift,
             h->n_regions, h->pager_pid);
    return 0;
}

THAW_EXPORT int thaw_pager_run(struct thaw_pager *p)
{
    int r;

    if (!p->accepted)
        return err_origin(-EINVAL, "no VM has been accepted");
    r = begin_session(p);
    if (r < 0)
        return r;
    r = session_run(p->session);
    log_line(&p->log, THAW_LOG_INFO, "msg=\"ended\" vmm_pid=%d end=%s", p->hs.peer.pid,
             stop_reason_name(session_end(p->session)));
    call_on_stats(p);
    return r;
}

/* struct child - what a supervised process is to do */
struct child {
    struct thaw_pager *p;
    thaw_serve_fn *serve;
    void *ctx;
};

static int serve_as_child(void *ctx)
{
    struct child *c = ctx;

    c->p->supervised = true;
    return c->serve(c->ctx, c->p);
}

/* #syscalls:start eventfd2 */
THAW_EXPORT int thaw_pager_supervise(struct thaw_pager *p, unsigned grace_ms, thaw_serve_fn *serve,
                                     void *ctx)
{
    struct child child = {.p = p, .serve = serve, .ctx = ctx};
    struct supervised s = {
        .block = &p->state.block,
        .control = &p->control,
        .peer = &p->hs.peer,
        .wakeup = p->wakeup,
        .log = &p->log,
        .grace_ns = grace_ms * NS_PER_MS,
        .serve = serve_as_child,
        .ctx = &child,
    };

    if (!p->accepted)
        return err_origin(-EINVAL, "no VM has been accepted");
    p->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->ready_fd < 0)
        return pager_refuse(p, err_origin_errno(-errno, "cannot make an eventfd"));
    s.ready_fd = p->ready_fd;
    return supervise(&s);
}
