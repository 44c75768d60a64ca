/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pager.c - the library's pager half: the order in which a VM is taken over and let go
 *
 *     new     source opened, socket listening
 *     accept  handshake checked, state file made, writes tracked if wanted; or: state file, VMM, uffd and source found again;
 *             then rights are given away
 *     run     pager_run.c
 *     free    session, state file, uffd, source: the uffd last but the source, and never before the VMM is dead
 *
 * From the moment that the VMM's userfaultfd is here, every failure stops the VMM first. Two are excepted, because somebody
 * else can still serve it: a take-over that did not come to its session, and a child of a supervisor that did not.
 */
#include "pager/pager_private.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "pager/options.h"
#include "pager/state_dir.h"
#include "pager/stats.h"
#include "pager/takeover.h"
#include "uffd/install.h"

/* ---- new ------------------------------------------------------------------------------------------------------ */

/* served_name() - what is served, for messages and the state file; "" if only the state file says it */
static const char *served_name(const struct thaw_pager *p)
{
    if (p->served.name)
        return p->served.name;
    return p->opts.source ? p->opts.source->name : "";
}

/* plan_confinement() - what is to be given away after the handshake, and whether that can work */
static int plan_confinement(struct thaw_pager *p)
{
    struct thaw_pager_options *o = &p->opts;
    char dir[PATH_MAX] = "";

    if (!o->state_dir) { /* by name, because the user may change */
        if (o->run_uid != 0)
            (void)snprintf(dir, sizeof(dir), "/tmp/thaw-%u", o->run_uid);
        else if (state_dir_default(dir, sizeof(dir)) < 0)
            return err_origin(-ENAMETOOLONG, "the default state directory's name is too long");
        o->state_dir = strdup(dir);
        if (!o->state_dir)
            return err_origin_errno(-ENOMEM, "cannot set up a pager");
    }
    if (o->record_path) {
        const char *slash = strrchr(o->record_path, '/');

        p->record_dir =
            slash ? strndup(o->record_path, (size_t)(slash - o->record_path) + 1) : strdup(".");
        if (!p->record_dir)
            return err_origin_errno(-ENOMEM, "cannot set up a pager");
        if (file_may_replace(o->record_path) < 0)
            return -EINVAL;
        p->record_folder = folder_open(o->record_path);
        if (p->record_folder < 0)
            return err_origin_errno(p->record_folder, "cannot open the folder of %s",
                                    o->record_path);
    }
    p->confine = (struct confine_plan){
        .on = o->confine == THAW_CONFINE_ON,
        .uid = o->run_uid,
        .gid = o->run_gid,
        .state_dir = o->adopt ? NULL : o->state_dir, /* whose file is taken over is not known yet */
        .write_dirs = {o->write_dir, p->record_dir},
        .tasks_fd = -1,
        .control = &p->control,
        .log = &p->log,
    };
    return confine_check(&p->confine);
}

/* tell_not_shared() - what was wanted is not possible, and nothing depends on it */
static void tell_not_shared(const struct thaw_pager *p)
{
    if (p->served.not_shared)
        log_line(&p->log, THAW_LOG_WARN, "msg=\"pages are not shared\" error=\"%s\"",
                 p->served.not_shared);
}

static int open_pager(struct thaw_pager *p, const struct thaw_pager_options *o)
{
    int r = options_copy(&p->opts, o);

    p->log = (struct log_sink){.fn = o->log, .ctx = o->log_ctx};
    if (r == 0)
        r = control_init(&p->control);
    if (r == 0)
        r = served_open(&p->served, &p->opts);
    tell_not_shared(p);
    if (r == 0)
        r = ahead_plans_read(&p->plans, o->prefetch_path);
    if (r == 0 && !p->plans.ws)
        p->plans.ws = TAKE(p->served.hot);
    if (r == 0 && p->served.source)
        r = ahead_plans_check(&p->plans, source_size_bytes(p->served.source));
    if (r == 0)
        r = wakeup_new(&p->wakeup, &p->opts, &p->log);
    if (r == 0)
        r = plan_confinement(p);
    if (r < 0)
        return r;
    if (o->socket_path) {
        p->listener = handshake_listen(o->socket_path);
        if (p->listener < 0)
            return p->listener;
    }
    /* Last, because a source of the caller's is taken on success only. */
    if (o->source)
        r = source_new(&p->served.source, o->source, o->source_self, o->source_size_bytes);
    if (r == 0 && o->socket_path)
        log_line(&p->log, THAW_LOG_INFO, "msg=\"listening\" socket=%s memory=%s bytes=%ju",
                 o->socket_path, served_name(p), (uintmax_t)source_size_bytes(p->served.source));
    return r;
}

DEFINE_CLEANUP(struct thaw_pager *, thaw_pager_free);

THAW_EXPORT int thaw_pager_new(struct thaw_pager **out, const struct thaw_pager_options *opts)
{
    _cleanup_(thaw_pager_freep) struct thaw_pager *p = NULL;
    int r = options_check(opts);

    if (r < 0)
        return r;
    p = calloc(1, sizeof(*p));
    if (!p)
        return err_origin_errno(-ENOMEM, "cannot set up a pager");
    p->control.fd = -1;
    p->listener = -1;
    p->ready_fd = -1;
    p->record_folder = -1;
    p->hs = (struct handshake)HANDSHAKE_NONE;
    p->state = (struct state_file)STATE_FILE_NONE;
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

int pager_refuse(struct thaw_pager *p, int error)
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
/* #syscalls:start unlink unlinkat */
static void stop_listening(struct thaw_pager *p)
{
    if (p->listener < 0)
        return;
    (void)unlink(p->opts.socket_path);
    p->listener = fd_close(p->listener);
}

/* #syscalls:start newfstatat fstat */
/* make_state() - the state file of a VM that nobody has served yet */
static int make_state(struct thaw_pager *p)
{
    struct stat uffd = {0};
    struct state_facts facts = {
        .vmm_pid = p->hs.peer.pid,
        .vmm_uid = p->hs.peer.uid,
        .vmm_start_ticks = p->hs.peer.start_ticks,
        .track = p->opts.track,
        .memory_path = served_name(p),
        .memory_device = p->served.memory.device,
        .memory_inode = p->served.memory.inode,
    };

    if (fstat(p->hs.uffd, &uffd) == 0) {
        facts.uffd_device = uffd.st_dev;
        facts.uffd_inode = uffd.st_ino;
    }
    return state_file_new(&p->state, p->opts.state_dir, &p->hs.geom, &facts);
}

/* meet() - the VMM is known: look at it, then become whom the options say */
static int meet(struct thaw_pager *p)
{
    wakeup_meet(p->wakeup, &p->hs.peer, p->confine.on);
    p->confine.tasks_fd = wakeup_tasks(p->wakeup);
    return confine_identity(&p->confine, &p->hs.peer);
}

/* give_away() - what serving does not need, but for system calls */
static int give_away(struct thaw_pager *p)
{
    const char *slash = strrchr(p->state.path, '/');
    char dir[PATH_MAX];
    int r;

    (void)snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - p->state.path) + 1 : 1,
                   slash ? p->state.path : ".");
    p->confine.state_dir = dir;
    r = confine_privileges(&p->confine, &p->hs.peer);
    p->confine.state_dir = NULL;
    return r;
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

static int take_handshake(struct thaw_pager *p)
{
    struct handshake_options ho = {
        .page_bytes = p->opts.page_bytes,
        .memory_bytes = source_size_bytes(p->served.source),
        .timeout_ms = p->opts.handshake_timeout_ms,
        .allow_uids = p->opts.allow_uids,
        .n_allow_uids = p->opts.n_allow_uids,
    };
    int r;

    if (p->listener < 0)
        return err_origin(-EINVAL, "this pager has had its VM");
    ahead_plans_expect(&p->plans, p->served.source);
    r = handshake_accept(&p->hs, p->listener, &p->control, &ho);
    stop_listening(p);
    if (r == 0)
        r = meet(p);
    if (r == 0)
        r = make_state(p);
    if (r == 0 && p->opts.track == THAW_TRACK_WP)
        r = track_writes(p);
    if (r == 0)
        r = give_away(p);
    if (r == 0)
        return 0;
    if (p->hs.given && r == HANDSHAKE_E_STOPPED)
        return peer_stop(&p->hs.peer, log_waiting, p) < 0 ? -EIO : 1;
    if (p->hs.given)
        return pager_refuse(p, r);
    return r == HANDSHAKE_E_STOPPED ? 1 : r;
}

/* ---- taking over ---------------------------------------------------------------------------------------------- */

static int open_adopted(struct thaw_pager *p)
{
    const struct block_header *h = p->state.block.header;
    int r = 0;

    if (h->track != THAW_TRACK_NONE && h->track != THAW_TRACK_WP)
        return err_origin(-EINVAL, "state file %s is damaged: no such way of write tracking: %u",
                          p->state.path, h->track);
    if (!p->served.source)
        r = served_open_again(&p->served, h, &p->opts);
    tell_not_shared(p);
    if (r == 0 && !p->plans.ws)
        p->plans.ws = TAKE(p->served.hot);
    return r < 0 ? r : served_check(&p->served, &p->state.block);
}

static int adopt(struct thaw_pager *p)
{
    int r = takeover_find(&p->hs, &p->state, p->opts.state_dir, p->opts.adopt);

    if (r < 0)
        return r;
    r = open_adopted(p);
    stats_prepare();
    if (r == 0)
        r = meet(p);
    if (r == 0)
        r = give_away(p);
    if (r < 0) {
        state_file_leave(&p->state); /* for the next one who tries */
        return r;
    }
    p->opts.track = (enum thaw_track)p->state.block.header->track;
    return 0;
}

THAW_EXPORT int thaw_pager_accept(struct thaw_pager *p)
{
    int r;

    assert(!p->accepted);
    r = p->opts.adopt ? adopt(p) : take_handshake(p);
    p->accepted = r == 0;
    return r;
}

/* ---- the rest ------------------------------------------------------------------------------------------------- */

THAW_EXPORT void thaw_pager_request(struct thaw_pager *p, enum thaw_request what)
{
    control_ask(&p->control, what);
}

THAW_EXPORT void thaw_pager_on_stats(struct thaw_pager *p, thaw_stats_fn *fn, void *ctx)
{
    p->on_stats = fn;
    p->on_stats_ctx = ctx;
}

THAW_EXPORT void thaw_pager_on_resume(struct thaw_pager *p, void (*fn)(void *ctx), void *ctx)
{
    p->on_resume = fn;
    p->on_resume_ctx = ctx;
}

THAW_EXPORT void thaw_pager_on_progress(struct thaw_pager *p,
                                        void (*fn)(void *ctx, const struct thaw_progress *progress),
                                        void *ctx)
{
    p->on_progress = fn;
    p->on_progress_ctx = ctx;
}

THAW_EXPORT struct thaw_pager *thaw_pager_free(struct thaw_pager *p)
{
    if (!p)
        return NULL;
    stop_listening(p);
    p->workers = workers_free(p->workers);
    if (p->supervised && !p->session)
        state_file_leave(&p->state); /* this child has not served; its supervisor starts another */
    else
        state_file_deinit(&p->state);
    p->session = session_free(p->session);
    p->recorder = recorder_free(p->recorder);
    p->wakeup = wakeup_free(p->wakeup);
    ahead_plans_deinit(&p->plans);
    free(p->record_dir);
    p->record_folder = fd_close(p->record_folder);
    p->ready_fd = fd_close(p->ready_fd);
    handshake_deinit(&p->hs);
    served_deinit(&p->served);
    control_deinit(&p->control);
    options_deinit(&p->opts);
    free(p);
    return NULL;
}

THAW_EXPORT const char *thaw_version(void)
{
    return THAW_VERSION;
}
