/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pager.c - the library's pager half: the order in which a VM is taken over and let go
 *
 *     new     source opened, socket listening
 *     accept  handshake checked, state file made, writes tracked if wanted, session prepared
 *     run     session_run()
 *     free    session, state file, uffd, source: the uffd last but the source, and never before the VMM is dead
 *
 * From the moment that the VMM's userfaultfd is here, every failure stops the VMM first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <thaw/thaw.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "pager/handshake.h"
#include "pager/session.h"
#include "pager/state_file.h"
#include "pager/stats.h"
#include "source/file.h"
#include "uffd/install.h"

#define N_WORKERS            4
#define HANDSHAKE_TIMEOUT_MS 30000

struct thaw_pager {
    struct thaw_pager_options opts; /* strings and lists in it are owned copies */
    struct log_sink log;
    struct control control;
    struct source *source;
    int listener;
    struct handshake hs;
    struct state_file state;
    struct workers *workers;
    struct session *session;
    thaw_stats_fn *on_stats;
    void *on_stats_ctx;
};

/* ---- new ------------------------------------------------------------------------------------------------------ */

static int check_options(const struct thaw_pager_options *o)
{
    if (!o->socket_path)
        return err_origin(-EINVAL, "no socket path was given");
    if (!o->memory_path == !o->source)
        return err_origin(-EINVAL, "expected a memory file or a page source, one of them");
    if (o->page_bytes != 0 && o->page_bytes != 4 * KIB && o->page_bytes != 2 * MIB)
        return err_origin(-EINVAL, "page size %ju, expected 4096 or 2097152",
                          (uintmax_t)o->page_bytes);
    if (o->fault_around_bytes != 0 &&
        (!is_power_of_two(o->fault_around_bytes) || o->fault_around_bytes < 4 * KIB ||
         o->fault_around_bytes > 2 * MIB))
        return err_origin(
            -EINVAL, "fault-around of %ju bytes, expected 0 or a power of two from 4096 to 2097152",
            (uintmax_t)o->fault_around_bytes);
    if (o->track != THAW_TRACK_NONE && o->track != THAW_TRACK_WP)
        return err_origin(-EINVAL, "no such way of write tracking: %d", (int)o->track);
    return 0;
}

/* copy_string() - *string becomes a copy that we own, or NULL. Return: false if there was no memory */
static bool copy_string(const char **string)
{
    bool wanted = *string != NULL;

    if (wanted)
        *string = strdup(*string);
    return !wanted || *string;
}

static bool copy_uids(struct thaw_pager_options *o)
{
    size_t bytes = o->n_allow_uids * sizeof(*o->allow_uids);
    uid_t *uids = bytes > 0 ? malloc(bytes) : NULL;

    if (uids)
        memcpy(uids, o->allow_uids, bytes);
    o->allow_uids = uids;
    return uids || bytes == 0;
}

static int copy_options(struct thaw_pager *p, const struct thaw_pager_options *o)
{
    bool copied = true;

    p->opts = *o;
    p->log = (struct log_sink){.fn = o->log, .ctx = o->log_ctx};
    if (p->opts.handshake_timeout_ms == 0)
        p->opts.handshake_timeout_ms = HANDSHAKE_TIMEOUT_MS;
    /* All of them in any case: what is not a copy must not be freed later. */
    copied &= copy_string(&p->opts.socket_path);
    copied &= copy_string(&p->opts.memory_path);
    copied &= copy_string(&p->opts.state_dir);
    copied &= copy_uids(&p->opts);
    return copied ? 0 : err_origin_errno(-ENOMEM, "cannot set up a pager");
}

static int open_pager(struct thaw_pager *p, const struct thaw_pager_options *o)
{
    int r = copy_options(p, o);

    if (r == 0)
        r = control_init(&p->control);
    if (r == 0 && o->memory_path)
        r = source_open_file(&p->source, o->memory_path);
    if (r < 0)
        return r;
    p->listener = handshake_listen(o->socket_path);
    if (p->listener < 0)
        return p->listener;
    /* Last, because a source of the caller's is taken on success only. */
    if (!o->memory_path)
        r = source_new(&p->source, o->source, o->source_self, o->source_size_bytes);
    if (r == 0)
        log_line(&p->log, THAW_LOG_INFO, "msg=\"listening\" socket=%s memory=%s bytes=%ju",
                 o->socket_path, o->memory_path ? o->memory_path : o->source->name,
                 (uintmax_t)source_size_bytes(p->source));
    return r;
}

DEFINE_CLEANUP(struct thaw_pager *, thaw_pager_free);

THAW_EXPORT int thaw_pager_new(struct thaw_pager **out, const struct thaw_pager_options *opts)
{
    _cleanup_(thaw_pager_freep) struct thaw_pager *p = NULL;
    int r = check_options(opts);

    if (r < 0)
        return r;
    p = calloc(1, sizeof(*p));
    if (!p)
        return err_origin_errno(-ENOMEM, "cannot set up a pager");
    p->control.fd = -1;
    p->listener = -1;
    p->hs = (struct handshake)HANDSHAKE_NONE;
    r = open_pager(p, opts);
    if (r < 0)
        return r;
    *out = TAKE(p);
    return 0;
}

/* ---- accept --------------------------------------------------------------------------------------------------- */

static void log_waiting(void *ctx, unsigned seconds)
{
    struct thaw_pager *p = ctx;

    log_line(&p->log, THAW_LOG_WARN, "msg=\"waiting for the VMM to die\" vmm_pid=%d seconds=%u",
             p->hs.peer.pid, seconds);
}

/* refuse() - the VMM gave us its memory and we cannot serve it: better dead than hung. Return: @error */
static int refuse(struct thaw_pager *p, int error)
{
    char why[400];

    (void)strncpy(why, err_text(), sizeof(why) - 1);
    why[sizeof(why) - 1] = '\0';
    if (peer_stop(&p->hs.peer, log_waiting, p) < 0)
        return err_origin(error, "%s; and the VMM, process %d, could not be stopped", why,
                          p->hs.peer.pid);
    return err_origin(error, "%s; the VMM, process %d, was stopped", why, p->hs.peer.pid);
}

/* stop_listening() - one VM per pager: nobody else is to connect */
static void stop_listening(struct thaw_pager *p)
{
    if (p->listener < 0)
        return;
    (void)unlink(p->opts.socket_path);
    p->listener = fd_close(p->listener);
}

static void describe_session(const struct thaw_pager *p)
{
    struct block_header *h = p->state.block.header;
    const char *name = p->opts.memory_path ? p->opts.memory_path : p->opts.source->name;

    h->vmm_pid = p->hs.peer.pid;
    h->vmm_uid = p->hs.peer.uid;
    h->track = p->opts.track;
    h->start_time_ns = clock_wall_ns();
    (void)strncpy(h->memory_path, name, sizeof(h->memory_path) - 1);
}

static int track_writes(const struct thaw_pager *p)
{
    const struct geom *g = &p->hs.geom;

    for (unsigned i = 0; i < g->n_regions; i++) {
        int r = uffd_track(p->hs.uffd, g->regions[i].hva, g->regions[i].len_bytes);

        if (r < 0)
            return r;
    }
    return 0;
}

static void call_on_stats(void *ctx)
{
    struct thaw_pager *p = ctx;
    char *json;

    if (!p->on_stats)
        return;
    if (stats_json(&json, &p->state.block, p->session ? session_end(p->session) : STOP_NONE) < 0) {
        log_line(&p->log, THAW_LOG_ERROR, "msg=\"no statistics\" error=\"%s\"", err_text());
        return;
    }
    p->on_stats(p->on_stats_ctx, json);
    free(json);
}

static int prepare_session(struct thaw_pager *p)
{
    bool track = p->opts.track == THAW_TRACK_WP;
    uint64_t page_bytes = geom_page_bytes(&p->hs.geom);
    struct engine_config config = {
        .around_pages = max_u64(1, p->opts.fault_around_bytes / page_bytes),
        .track = track,
        .zero_runs = page_bytes == 4 * KIB && !track,
    };
    struct session_parts parts = {
        .uffd = p->hs.uffd,
        .block = &p->state.block,
        .source = p->source,
        .control = &p->control,
        .peer = &p->hs.peer,
        .log = &p->log,
        .on_stats = call_on_stats,
        .on_stats_ctx = p,
    };
    int r = state_file_new(&p->state, p->opts.state_dir, &p->hs.geom);

    if (r == 0 && track)
        r = track_writes(p);
    if (r == 0)
        r = workers_new(&p->workers, p->source, N_WORKERS);
    if (r < 0)
        return r;
    describe_session(p);
    parts.workers = p->workers;
    return session_new(&p->session, &parts, &config);
}

THAW_EXPORT int thaw_pager_accept(struct thaw_pager *p)
{
    struct handshake_options ho = {
        .page_bytes = p->opts.page_bytes,
        .memory_bytes = source_size_bytes(p->source),
        .timeout_ms = p->opts.handshake_timeout_ms,
        .allow_uids = p->opts.allow_uids,
        .n_allow_uids = p->opts.n_allow_uids,
    };
    int r;

    assert(!p->session);
    if (p->listener < 0)
        return err_origin(-EINVAL, "this pager has had its VM");
    r = handshake_accept(&p->hs, p->listener, &p->control, &ho);
    stop_listening(p);
    if (r == 0)
        r = prepare_session(p);
    if (r == 0) {
        log_line(&p->log, THAW_LOG_INFO,
                 "msg=\"serving\" vmm_pid=%d vmm_uid=%u pages=%ju page_bytes=%ju regions=%u",
                 p->hs.peer.pid, p->hs.peer.uid, (uintmax_t)p->hs.geom.n_pages,
                 (uintmax_t)geom_page_bytes(&p->hs.geom), p->hs.geom.n_regions);
        return 0;
    }
    if (p->hs.uffd >= 0 && r == HANDSHAKE_E_STOPPED)
        return peer_stop(&p->hs.peer, log_waiting, p) < 0 ? -EIO : 1;
    if (p->hs.uffd >= 0)
        return refuse(p, r);
    return r == HANDSHAKE_E_STOPPED ? 1 : r;
}

/* ---- run and the rest ----------------------------------------------------------------------------------------- */

THAW_EXPORT int thaw_pager_run(struct thaw_pager *p)
{
    int r;

    if (!p->session)
        return err_origin(-EINVAL, "no VM has been accepted");
    r = session_run(p->session);
    log_line(&p->log, THAW_LOG_INFO, "msg=\"ended\" vmm_pid=%d end=%s", p->hs.peer.pid,
             stop_reason_name(session_end(p->session)));
    call_on_stats(p);
    return r;
}

THAW_EXPORT void thaw_pager_request(struct thaw_pager *p, enum thaw_request what)
{
    control_ask(&p->control, what);
}

THAW_EXPORT void thaw_pager_on_stats(struct thaw_pager *p, thaw_stats_fn *fn, void *ctx)
{
    p->on_stats = fn;
    p->on_stats_ctx = ctx;
}

THAW_EXPORT struct thaw_pager *thaw_pager_free(struct thaw_pager *p)
{
    if (!p)
        return NULL;
    stop_listening(p);
    p->workers = workers_free(p->workers);
    p->session = session_free(p->session);
    state_file_deinit(&p->state);
    handshake_deinit(&p->hs);
    p->source = source_free(p->source);
    control_deinit(&p->control);
    free((void *)p->opts.socket_path);
    free((void *)p->opts.memory_path);
    free((void *)p->opts.state_dir);
    free((void *)p->opts.allow_uids);
    free(p);
    return NULL;
}

THAW_EXPORT const char *thaw_version(void)
{
    return THAW_VERSION;
}
