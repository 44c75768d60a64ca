/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_SESSION_PRIVATE_H
#define PAGER_SESSION_PRIVATE_H

/*
 * session_private.h - what the files of a session share
 *
 *     session.c        the loop: waiting, messages, retries; the beginning and the end
 *     session_act.c    carrying out what the engine wants
 *     session_ahead.c  what is done when nobody waits: the plan, and reading for it
 *     session_aside.c  the same by a second thread
 *     session_burst.c  the plan's first part, before the VM is told to go on
 *     session_letgo.c  ranges that the kernel can do without us, and the end of it all
 *     session_record.c what the recorder is told, and when its file is written
 */

#include "pager/burst.h"
#include "pager/session.h"

#define ALONG_MAX 32u

/** struct along - what came with bytes that a fault had waited for */
struct along {
    pgno_t pages[ALONG_MAX]; /* one of each read that is to be looked at; a ring */
    unsigned head;
    unsigned n;
    struct prefetch_run run; /* what is installed now */
    struct prefetch walk;    /* through it */
    bool at_work;            /* the engine walks here, and not through the plan */
};

/** struct ahead - what is installed when nobody waits */
struct ahead {
    struct along along;
    bool waits;               /* the next slice's bytes are being read */
    unsigned n_jobs;          /* reads under way */
    bool reading;             /* the readers have begun */
    pgno_t read_again;        /* the slice that they began again for */
    struct prefetch reads;    /* a walk through the same plan, before the one that installs */
    uint64_t next_ns;         /* not before, because of the rate */
    uint64_t gentle_until_ns; /* gaps between slices until then */
    uint64_t began_ns;        /* 0: not yet */
    uint64_t told_ns;         /* when somebody was told of the progress */
    struct bursts *bursts;    /* owned; NULL: the VM may go on */
    struct side *side;        /* owned; NULL: no second thread */
    uint64_t before_bytes;    /* to be installed until it may */
    bool may_lend;            /* every discard that was read has been dealt with */
    bool filling;             /* the working set is done; the rest is */
    bool over;
};

#define LETGO_REMOVED 16u

/** struct letgo - see session_letgo.c */
struct letgo {
    bool on;
    bool stays;                                 /* what should have been let go of was not */
    bool leaving;                               /* nothing is registered any more */
    pgno_t next;                                /* where the walk through the image stands */
    struct prefetch_run run;                    /* the zeroes before it */
    struct prefetch_run removed[LETGO_REMOVED]; /* long ranges that were removed */
    unsigned n_removed;
};

struct session {
    struct session_parts p;
    struct engine engine;
    struct thaw_extent located; /* the source's last answer: where EFFECT_COPY copies from */
    void *zeroes;               /* owned: a page of zeroes to copy from */
    uint64_t page_bytes;
    uint64_t now_ns;     /* the engine's clock: read after each read(2), install and wait */
    uint64_t put_off_ns; /* when the oldest fault that waits for a retry was read; 0: none waits */
    unsigned n_refused;  /* installs in a row that were refused to the end; see install() */
    int epoll;           /* owned */
    enum stop_reason stop;
    char why[400];          /* what went wrong, for people */
    const void *unreadable; /* owned: a page that nobody may read */
    struct letgo letgo;
    struct ahead ahead;  /* see session_ahead.c */
    bool record_pending; /* a worker writes the record */
    int record_result;   /* of writing it */
    char record_error[256];
};

/** session_stop_because() - note why the session ends; the first reason counts */
void session_stop_because(struct session *s, enum stop_reason reason, const char *why);

/**
 * session_carry_out() - do what the engine wants, tell it how that went, until it wants nothing more
 * @since_ns: when the fault behind it was read
 */
void session_carry_out(struct session *s, struct effect fx, uint64_t since_ns);

/** session_locate() - ask the source; *@reply becomes its answer */
void session_locate(struct session *s, const struct effect *fx, struct event *reply);

/** session_op() - the install that a COPY or ZERO is; the source has just been asked */
struct burst_op session_op(const struct session *s, const struct effect *fx);

/** session_done() - *@reply becomes what became of an effect; the clock goes on */
void session_done(struct session *s, const struct effect *fx, const struct install_result *r,
                  struct event *reply);

/** session_take_messages() - one read's worth, discards before faults. Return: false if there was nothing to read */
bool session_take_messages(struct session *s);

/** session_job() - the read of [@first, @end), which lie in one region */
struct fetch_job session_job(const struct session *s, pgno_t first, pgno_t end);

/** ahead_is_due() - is there something to install that nobody waits for, now? */
bool ahead_is_due(const struct session *s);

/** ahead_deadline_ns() - when there will be, by the clock; ENGINE_NEVER: not by the clock */
uint64_t ahead_deadline_ns(const struct session *s);

/* Between two installs of what nobody waits for, for a while after a discard. */
#define GAP_NS (20 * NS_PER_US)

/** ahead_discarding() - the VMM discards [@start, @end): leave gaps between installs for a while */
void ahead_discarding(struct session *s, hva_t start, hva_t end);

/** ahead_refused() - the kernel has refused an install that nobody waits for: leave a gap */
void ahead_refused(struct session *s);

/** ahead_take() - some slices of the plan, as long as no message comes */
void ahead_take(struct session *s);

/** ahead_fetch() - the plan's next bytes are not in memory: have them read, and what follows them */
void ahead_fetch(struct session *s, const struct effect *fx);

/** ahead_fetched() - a read for the plan is over */
void ahead_fetched(struct session *s, const struct fetch_job *job);

/** side_new() - a thread for the plan, if there is a plan and a second processor. Return: 0 or a negative errno with a text */
int side_new(struct session *s);

void side_free(struct session *s);

/** side_fd() - a descriptor (borrow) that is readable when there is little left for it; -1: there is no such thread */
int side_fd(const struct session *s);

/** side_clear() - that was seen */
void side_clear(const struct session *s);

/** side_fill() - hand out slices of the plan. Return: is there something to do for the thread? */
bool side_fill(struct session *s);

/** side_lend() - the pager thread goes to sleep: the other one may install */
void side_lend(struct session *s);

/** side_lend_beside() - while an install for a fault is made, if that has no page in common with what the other one has in hand */
void side_lend_beside(struct session *s, const struct effect *fx);

/** side_take_back() - it does not any more; what it has done is reported to the engine */
void side_take_back(struct session *s);

/** side_is_working() - has it anything to do while the pager thread sleeps? */
bool side_is_working(const struct session *s);

/** side_is_empty() - has it nothing in hand? */
bool side_is_empty(const struct session *s);

/** side_give_up() - the plan is over before its end: what is in the ring is not installed any more, and stands in no trim's way */
void side_give_up(struct session *s);

/** side_discarding() - a discard of [@start, @end) was read: nothing of it that was handed out before is installed */
void side_discarding(struct session *s, hva_t start, hva_t end);

/** side_did_by_hand() - a slice was taken by the pager thread */
void side_did_by_hand(struct session *s);

/** ahead_along() - a read that a fault waited for is over: there may be more than it wanted */
void ahead_along(struct session *s, const struct fetch_job *job);

/** before_new() - threads for bursts, if something is to be installed before the VM goes on. Return: 0 or a negative errno with a text */
int before_new(struct session *s);

/** before_take() - one burst. Return: was there anything to do? */
bool before_take(struct session *s);

/** before_end() - the VM may go on */
void before_end(struct session *s);

void before_free(struct session *s);

/** letgo_init() - at the beginning of a session */
void letgo_init(struct session *s);

/** letgo_removed() - a discard was read */
void letgo_removed(struct session *s, hva_t start, hva_t end);

/** letgo_is_due() - is there something to look at, and nothing else to do? */
bool letgo_is_due(const struct session *s);

/** letgo_take() - some of it, as long as no message comes */
void letgo_take(struct session *s);

/** leave_is_due() - is every page there, and is that what the pager waits for to leave? */
bool leave_is_due(const struct session *s);

/** leave() - a step of it: again after LEAVE_NS until the session ends, or leave_is_due() says no */
void leave(struct session *s);
#define LEAVE_NS (100 * NS_PER_US)

/** record_fault() - a fault was read */
void record_fault(struct session *s, const struct event *ev);

/** record_answers() - the first @pages_done pages of an install are there; the engine has not heard of it yet */
void record_answers(struct session *s, const struct effect *fx, uint64_t pages_done);

/** record_deadline_ns() - when the record ends by the clock */
uint64_t record_deadline_ns(const struct session *s);

/** record_end() - the window has come to its end: have the file written */
void record_end(struct session *s);

/** record_written() - a worker has tried to */
void record_written(struct session *s, const struct fetch_job *job);

/** record_finish() - the VM is gone: what is recorded is written. Return: 0 or a negative errno; session.record_error says why */
int record_finish(struct session *s);

#endif
