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
 *
 * A pager can be killed at any moment, and another one can go on: what it must know is in its state file. With
 * thaw_pager_supervise() in place of thaw_pager_run() the calling process waits and a child process serves, followed by
 * another one when it dies. With the option @adopt a process takes over a VM that somebody else has served.
 */

/** enum thaw_track - whether the pager learns of the guest's writes */
enum thaw_track {
    THAW_TRACK_NONE, /* writes are not seen; cheapest */
    THAW_TRACK_WP,   /* every page is installed write-protected; its first write is a fault */
};

/** enum thaw_confine - whether the process gives away what a pager does not need; it cannot be had back */
enum thaw_confine {
    THAW_CONFINE_OFF, /* the process stays as it is */
    THAW_CONFINE_ON, /* after the handshake: no new privileges, no capabilities, no files, listed system calls only */
};

/** enum thaw_latency_qos - whether the host's idle processors are kept from sleeping while a guest faults a lot */
enum thaw_latency_qos {
    THAW_LATENCY_QOS_OFF,
    THAW_LATENCY_QOS_AUTO, /* if that is possible (/dev/cpu_dma_latency), and for a tenth of the time in the long run */
    THAW_LATENCY_QOS_ON, /* without a limit; thaw_pager_new() fails where it is not possible */
};

#define THAW_SPIN_AUTO   4294967295u
#define THAW_SPIN_MAX_US 1000u

/**
 * struct thaw_pager_options - all that can be chosen; a zeroed struct plus the mandatory fields is valid
 * @socket_path:       mandatory without @adopt; where the VMM connects. Created by thaw_pager_new(), removed after the
 *                     handshake
 * @adopt:             take over a VM whose pager is dead: its process id, or its state file's path. Then @page_bytes and
 *                     @track are what they were, and thaw_pager_accept() waits for nobody
 * @memory_path:       the snapshot's raw memory file. With @adopt nothing need be named: what was served. Or
 * @image, @store:     an image, by name or id, and the folder of its store. Raises the limit of open files: an image has
 *                     many. Or
 * @source, @source_self, @source_size_bytes: a source of your own (taken on success)
 * @image_cache_bytes: so many bytes of an image are kept decompressed; 0: 64 MiB
 * @image_filler:      share what is decompressed with other pagers of the image; the program `thaw`, which is started to do
 *                     that: the process must have one thread. NULL: do not
 * @image_share_bytes: about so many bytes are shared, if it is started; 0: 256 MiB
 * @no_working_set:    do not install an image's own working set ahead; it is not with @prefetch_path either, and with
 *                     @record_path only if @record_missed
 * @page_bytes:        0: as the handshake says; else 4096 or 2097152, and the handshake must agree
 * @fault_around_bytes: how much is installed around a fault, 0 for the page alone; a power of two up to 2 MiB
 * @track:             see enum thaw_track
 * @handshake_timeout_ms: from the connection to the whole handshake; 0: 30 s
 * @allow_uids, @n_allow_uids: who may connect, by effective uid; none given: root and this process's own
 * @state_dir:         where the state file of the running pager is; NULL: /run/thaw for root, else
 *                     $XDG_RUNTIME_DIR/thaw, else /tmp/thaw-UID
 * @log, @log_ctx:     receives messages; NULL: none
 * @confine:           see enum thaw_confine. For programs that do nothing else than serve: system calls are filtered in all
 *                     threads, SIGSYS is taken, and whatever is done by name fails but for @write_dir
 * @write_dir:         beneath this folder a confined process may still make, replace and remove files; NULL: nowhere
 * @prefetch_path:     a working set (thaw-workingset(5)): its pages are installed in its order while nobody waits for one;
 *                     NULL: none
 * @before_resume_bytes: so much of it is installed first, by several threads; UINT64_MAX: all. See thaw_pager_on_resume()
 * @fill:              install all the other pages too, in the order of the memory file
 * @ahead_bytes_per_s: of both together, on average; 0: as fast as it goes
 * @keep_registered:   hear of every page until the end. Otherwise long ranges that read as zero whoever answers are given
 *                     back to the kernel, when writes are not tracked and pages have 4 KiB
 * @leave_when_full:   when every page is there, let go of the VM's memory and return from thaw_pager_run(): nobody needs a
 *                     pager any more. Not with @track
 * @record_path:       write the guest's working set into this file, once; NULL: do not
 * @record_ms:         after so long; 0: when THAW_REQUEST_READY comes. At the VM's end in any case
 * @record_missed:     record what the guest asks for although a working set is installed ahead, and what is installed around that
 * @latency_qos:       see enum thaw_latency_qos; never while nothing happens
 * @cpus:              where the pager's thread runs. NULL, "any": anywhere; numbers such as "0-3,7": there; "follow": on the
 *                     processor of the VMM's only busy thread, and anywhere when there are several
 * @spin_us:           look for the next message so long before sleeping, at most THAW_SPIN_MAX_US, for at most half of
 *                     the time; THAW_SPIN_AUTO: as long as pays, for at most a tenth of the time; 0: not
 * @run_uid, @run_gid: become this user and group after the handshake, without supplementary groups; 0: do not.
 *                     With it, @state_dir NULL is /tmp/thaw-UID
 */
struct thaw_pager_options {
    const char *socket_path;
    const char *adopt;
    const char *memory_path;
    const char *image;
    const char *store;
    uint64_t image_cache_bytes;
    const char *image_filler;
    uint64_t image_share_bytes;
    int no_working_set;
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
    enum thaw_confine confine;
    const char *write_dir;
    const char *prefetch_path;
    uint64_t before_resume_bytes;
    int fill;
    uint64_t ahead_bytes_per_s;
    int keep_registered;
    int leave_when_full;
    const char *record_path;
    unsigned record_ms;
    int record_missed;
    enum thaw_latency_qos latency_qos;
    const char *cpus;
    unsigned spin_us;
    uid_t run_uid;
    gid_t run_gid;
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
 * thaw_pager_accept() - wait for the VMM and take its handshake; with @adopt, take over
 *
 * Return: 0; 1 when asked to stop meanwhile; or a negative errno. When the handshake carried a userfaultfd and was
 * wrong otherwise, the VMM has been stopped: its memory can never be served. A take-over that fails has changed nothing.
 */
int thaw_pager_accept(struct thaw_pager *p);

/**
 * thaw_pager_run() - serve faults until the VMM is gone
 *
 * Return: 0 when the VMM went away or a stop was requested (the VMM has then been killed); or a negative errno when
 * its memory could not be served (the VMM has been killed before anything else: it never sees a wrong byte).
 */
int thaw_pager_run(struct thaw_pager *p);

/**
 * thaw_serve_fn - what a serving process does under thaw_pager_supervise(): thaw_pager_run(), thaw_pager_free(), and what
 * the program needs besides. Return: the process's exit status
 */
typedef int thaw_serve_fn(void *ctx, struct thaw_pager *p);

#define THAW_GRACE_DEFAULT_MS 10000u

/**
 * thaw_pager_supervise() - have the VM served by a child process, and by another one whenever that dies
 * @grace_ms: how long the VM may be without a pager that serves before it is stopped; 0: not at all
 * @serve:    called in the child processes, which end with what it returns
 *
 * Context: in place of thaw_pager_run(), after thaw_pager_accept(). The process must have one thread, and must not ignore
 * SIGCHLD. thaw_pager_request() is handed on to the child: as SIGTERM, SIGUSR1 and SIGUSR2, for which handlers must be installed.
 *
 * Return: 0 when the VMM went away or a stop was requested; > 0 the exit status of a serving process that ended by itself
 * and left no VMM; or a negative errno when no serving process could be had and the VMM has been killed.
 */
int thaw_pager_supervise(struct thaw_pager *p, unsigned grace_ms, thaw_serve_fn *serve, void *ctx);

/** enum thaw_request - what a running pager can be asked */
enum thaw_request {
    THAW_REQUEST_STOP,  /* kill the VMM, then return from thaw_pager_run() */
    THAW_REQUEST_STATS, /* call the function given with thaw_pager_on_stats() on the pager thread */
    THAW_REQUEST_READY, /* the guest has come as far as its working set is to be recorded: write @record_path */
};

/** thaw_pager_request() - ask a pager for something. Async-signal-safe, any thread. */
void thaw_pager_request(struct thaw_pager *p, enum thaw_request what);

/** thaw_stats_fn - receives the statistics as one JSON object without a newline (borrow until return) */
typedef void thaw_stats_fn(void *ctx, const char *json);

/** thaw_pager_on_stats() - who gets the statistics on THAW_REQUEST_STATS and when thaw_pager_run() ends */
void thaw_pager_on_stats(struct thaw_pager *p, thaw_stats_fn *fn, void *ctx);

/**
 * thaw_pager_on_resume() - who hears that the VM may be told to go on, because @before_resume_bytes are installed
 *
 * Called once, on the pager thread, also without @before_resume_bytes. Must not block. Not called in a take-over.
 */
void thaw_pager_on_resume(struct thaw_pager *p, void (*fn)(void *ctx), void *ctx);

/** struct thaw_progress - how far the pages of @prefetch_path and of @fill are */
struct thaw_progress {
    uint64_t page_bytes;
    uint64_t working_set_pages; /* to be installed */
    uint64_t working_set_done;  /* left behind: installed, or not needed */
    uint64_t fill_pages;
    uint64_t fill_done;
    uint64_t n_installed; /* of both, by being ahead of the guest */
    int over;             /* nothing is to be done ahead any more */
};

/**
 * thaw_pager_on_progress() - who hears of it: ten times a second while there is progress, and when it is over
 *
 * @fn is called on the pager thread and must not block; its argument is (borrow) until it returns.
 */
void thaw_pager_on_progress(struct thaw_pager *p,
                            void (*fn)(void *ctx, const struct thaw_progress *progress), void *ctx);

/** thaw_pager_free() - close everything. @p: (take) may be NULL. Return: NULL */
struct thaw_pager *thaw_pager_free(struct thaw_pager *p);

/** thaw_version() - the library's version, such as "0.1.0" */
const char *thaw_version(void);

#ifdef __cplusplus
}
#endif
#endif
