/* SPDX-License-Identifier: Apache-2.0 */
#ifndef THAW_THAW_H
#define THAW_THAW_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <thaw/error.h>
#include <thaw/source.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The pager's half: serve one VM's memory from a snapshot.
 *
 *     thaw_pager_new()      opens the snapshot and listens on the socket
 *     thaw_pager_accept()   waits for the VMM's handshake
 *     thaw_pager_run()      serves until the VMM is gone or thaw_pager_request(THAW_REQUEST_STOP)
 *     thaw_pager_free()
 *
 * One thread calls these in that order. thaw_pager_request() may be called from any thread and from signal handlers.
 */

/** enum thaw_track - whether the pager learns of the guest's writes */
enum thaw_track {
    THAW_TRACK_NONE, /* writes are not seen; cheapest */
    THAW_TRACK_WP,   /* every page is installed write-protected; its first write is a fault */
};

/**
 * struct thaw_pager_options - all that can be chosen; a zeroed struct plus the mandatory fields is valid
 * @socket_path:       mandatory; where the VMM connects. Created by thaw_pager_new(), removed after the handshake
 * @memory_path:       the snapshot's raw memory file; or
 * @source, @source_self, @source_size_bytes: a source of your own (taken on success) when @memory_path is NULL
 * @page_bytes:        0: as the handshake says; else 4096 or 2097152, and the handshake must agree
 * @fault_around_bytes: how much is installed around a fault, 0 for the page alone; a power of two up to 2 MiB
 * @track:             see enum thaw_track
 * @handshake_timeout_ms: from the connection to the whole handshake; 0: 30 s
 * @allow_uids, @n_allow_uids: who may connect, by effective uid; none given: root and this process's own
 * @state_dir:         where the state file of the running pager is; NULL: /run/thaw for root, else
 *                     $XDG_RUNTIME_DIR/thaw, else /tmp/thaw-UID
 * @log, @log_ctx:     receives messages; NULL: none
 */
struct thaw_pager_options {
    const char *socket_path;
    const char *memory_path;
    const struct thaw_source_ops *source;
    void *source_self;
    uint64_t source_size_bytes;
    uint64_t page_bytes;
    uint64_t fault_around_bytes;
    enum thaw_track track;
    unsigned handshake_timeout_ms;
    const uid_t *allow_uids;
    unsigned n_allow_uids;
    const char *state_dir;
    thaw_log_fn *log;
    void *log_ctx;
};

#define THAW_FAULT_AROUND_DEFAULT 65536u /* bytes */

struct thaw_pager;

/**
 * thaw_pager_new() - open the snapshot, listen for the VMM
 * @out:  (give)
 * @opts: (borrow for the call; strings are copied)
 *
 * Return: 0 or a negative errno, see thaw_last_error().
 */
int thaw_pager_new(struct thaw_pager **out, const struct thaw_pager_options *opts);

/**
 * thaw_pager_accept() - wait for the VMM and take its handshake
 *
 * Return: 0; 1 when asked to stop meanwhile; or a negative errno. When the handshake carried a userfaultfd and was
 * wrong otherwise, the VMM has been stopped: its memory can never be served.
 */
int thaw_pager_accept(struct thaw_pager *p);

/**
 * thaw_pager_run() - serve faults until the VMM is gone
 *
 * Return: 0 when the VMM went away or a stop was requested (the VMM has then been killed); or a negative errno when
 * its memory could not be served (the VMM has been killed before anything else: it never sees a wrong byte).
 */
int thaw_pager_run(struct thaw_pager *p);

/** enum thaw_request - what a running pager can be asked */
enum thaw_request {
    THAW_REQUEST_STOP,  /* kill the VMM, then return from thaw_pager_run() */
    THAW_REQUEST_STATS, /* call the function given with thaw_pager_on_stats() on the pager thread */
};

/** thaw_pager_request() - ask a pager for something. Async-signal-safe, any thread. */
void thaw_pager_request(struct thaw_pager *p, enum thaw_request what);

/** thaw_stats_fn - receives the statistics as one JSON object without a newline (borrow until return) */
typedef void thaw_stats_fn(void *ctx, const char *json);

/** thaw_pager_on_stats() - who gets the statistics on THAW_REQUEST_STATS and when thaw_pager_run() ends */
void thaw_pager_on_stats(struct thaw_pager *p, thaw_stats_fn *fn, void *ctx);

/** thaw_pager_free() - close everything. @p: (take) may be NULL. Return: NULL */
struct thaw_pager *thaw_pager_free(struct thaw_pager *p);

/** thaw_version() - the library's version, such as "0.1.0" */
const char *thaw_version(void);

#ifdef __cplusplus
}
#endif
#endif
