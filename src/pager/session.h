/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_SESSION_H
#define PAGER_SESSION_H

/*
 * session.h - one VM's memory, from its handshake to its end: the loop that joins uffd, engine and source
 */

#include "base/log.h"
#include "core/engine.h"
#include "pager/control.h"
#include "pager/peer.h"
#include "pager/wakeup.h"
#include "pager/recorder.h"
#include "pager/workers.h"
#include "source/source.h"

/** struct prefetch_plan - runs of pages (borrow) */
struct prefetch_plan {
    const struct prefetch_run *runs;
    size_t n;
    uint64_t n_pages; /* in all of them */
};

/** struct session_parts - what a session works with; all (borrow) for the session's life */
struct session_parts {
    int uffd;
    struct block *block;
    struct source *source;
    struct workers *workers;
    struct prefetch_plan
        working_set;           /* installed when there is nothing else to do, in this order */
    struct prefetch_plan fill; /* and what comes after it; each may be empty */
    uint64_t ahead_rate;       /* bytes a second for both; 0: no limit */
    uint64_t before_bytes;     /* of the working set, before the VM may go on */
    uint64_t lead_bytes;       /* reads for both are so far ahead of installs at most */
    bool
        in_frames; /* a read brings pages that nobody asked for, and those in between cost as much as others */
    uint64_t
        along_bytes; /* what a read that a fault waited for brought around it is installed too, in such a window; 0: not */
    struct recorder *recorder; /* NULL: nothing is recorded */
    bool record_along;         /* what was installed around a fault is recorded, too */
    struct control *control;
    const struct peer *peer;
    struct wakeup *wakeup;
    const struct log_sink *log;
    bool keep_registered;        /* nothing is let go of before the end */
    bool leave_when_full;        /* the session ends when every page is there */
    bool take_over;              /* another pager has served this block's VM before */
    void (*on_ready)(void *ctx); /* called when nothing is owed from before any more; may be NULL */
    void (*on_resume)(void *ctx); /* called when the VM may be told to go on; may be NULL */
    void (*on_progress)(void *ctx, const struct thaw_progress *progress); /* may be NULL */
    void *on_ready_ctx;                                                   /* of these three */
    void (*on_stats)(void *ctx); /* called when statistics are asked for */
    void *on_stats_ctx;
};

struct session;

/**
 * session_new() - prepare to serve
 * @out: (give)
 *
 * Return: 0 or a negative errno with a text.
 */
int session_new(struct session **out, const struct session_parts *parts,
                const struct engine_config *config);

/**
 * session_run() - serve until the VMM is gone or must be stopped; it is gone when this returns
 *
 * Context: the calling thread becomes the pager thread: the only one that makes uffd ioctls and writes page states.
 * Return: 0 at a good end (the VMM went away, or a stop was asked for); a negative errno with a text when its memory could
 * not be served, or when its working set could not be recorded.
 */
int session_run(struct session *s);

/** session_progress() - how far it is with what is installed ahead */
void session_progress(const struct session *s, struct thaw_progress *out);

/** session_end() - why it ended; STOP_NONE while it runs */
enum stop_reason session_end(const struct session *s);

/** session_free() - @s: (take) may be NULL. Return: NULL */
struct session *session_free(struct session *s);

#endif
