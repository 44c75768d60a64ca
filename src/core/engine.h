/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_ENGINE_H
#define CORE_ENGINE_H

/*
 * engine.h - what events mean: one event in, effects out
 *
 * The engine decides and does nothing else: it makes no system call, reads no clock, takes no lock, allocates nothing.
 * Its caller (pager/session.c) reads messages, carries out effects one by one, and reports each outcome before it hands
 * in the next event. So between an effect and its DONE event nothing can happen to a page.
 *
 *     FAULT p       >  p is ABSENT        LOCATE: where are its bytes, and its neighbours'?
 *                                         LOCATED memory  >  COPY   the run that is in memory
 *                                         LOCATED zero    >  ZERO   the run that is zero
 *                                         LOCATED away    >  FETCH  ... FETCHED  >  LOCATE
 *                      p is anything else ZERO: works if it was discarded, says EXISTS if the fault is stale
 *     WP_FAULT p    >  p is installed     UNPROTECT;  else as FAULT
 *     REMOVE range  >  nothing: states only
 *     DONE          >  nothing, or the rest of a run, WAKE after EXISTS, a retry later after AGAIN, or STOP
 *     TICK          >  the next page whose answer was put off
 *
 * Who waits. Two bits a page, in the block: `waiting` (a missing fault was read) and `waiting_wp` (a write-protect fault
 * was read); both are cleared by the install or wake that answers it. Each page with a bit is always in one of four
 * places: in the event being handled; in the table of fetches; outside of it because it is full, and then the next fetch
 * that ends has all of them asked about again; or before the retry cursor with a retry time set. That is invariant I1, and
 * it is why a new pager that finds the block can tell exactly which faults are owed an answer.
 *
 * Putting off. While the VMM discards memory the kernel refuses every install (AGAIN) and announces neither the cause's
 * end nor a retry. The first AGAIN blocks all installs until the retry time (10 us, doubling to 1 ms): one probe per
 * period instead of one per fault. Who was refused is tried first then, and those behind come next: everybody has a turn,
 * however many fault again in between. Each discard that is read may be the last one, and brings the probes back to 100 us.
 */

#include "core/block.h"
#include "core/event.h"
#include "core/fetch_table.h"
#include "core/prefetch.h"

#define ENGINE_FX_MAX         1
#define ENGINE_NEVER          UINT64_MAX

#define ENGINE_BACKOFF_MIN_NS (10 * NS_PER_US)
#define ENGINE_BACKOFF_MAX_NS (1 * NS_PER_MS)
#define ENGINE_BUSY_NS        (100 * NS_PER_US) /* ... as long as the VMM goes on discarding */
#define ENGINE_NOMEM_RETRY_NS (5 * NS_PER_MS)
#define ENGINE_NOMEM_LIMIT_NS (10 * NS_PER_S)
#define ENGINE_NOMEM_GAP_NS   (1 * NS_PER_S) /* failures further apart are not one shortage */

/** struct engine_config - constant for a session */
struct engine_config {
    pgno_t around_pages; /* fault-around window, a power of two, at least 1 */
    bool track;          /* writes are tracked: every install is armed */
    pgno_t ahead_pages;  /* at most so many in a slice of the plan; 0: as 1 */
    bool zero_runs;      /* zero pages cost no memory (4 KiB and not armed): fill runs of them */
};

/** struct engine - all of it can be rebuilt from the block: see engine_init() */
struct engine {
    struct block *block; /* (borrow) page states, waiting sets, counters */
    struct engine_config config;

    uint64_t retry_at_ns;    /* next TICK wanted; ENGINE_NEVER if nothing is put off */
    uint64_t backoff_ns;     /* the next AGAIN waits so long */
    uint64_t nomem_since_ns; /* since when there has been no memory; 0: there is some */
    uint64_t nomem_last_ns;  /* when an install failed for that last */
    uint64_t
        doubt_until_ns; /* huge pages may be short: who waits for one is kept waiting until then */
    bool in_pass;       /* a pass of retries is under way: TICK until it gives no effect */
    bool began_late;    /* the pass did not begin with the first page: it goes around */
    bool cursor_wp;     /* the pass has come to the write-protect faults */
    pgno_t cursor;      /* where the pass stands; between passes: where the next one begins */
    bool blocked;       /* AGAIN was the last word: nothing is tried before retry_at_ns */

    struct fetch_table fetches;
    struct prefetch
        ahead; /* what is installed when there is nothing else to do; see engine_ahead.h */
};

/**
 * engine_init() - an engine over a block, new or left by another pager
 * @block: (borrow for the life of @e)
 *
 * Pages that wait according to the block are retried at the first TICK (at time 0).
 */
void engine_init(struct engine *e, struct block *block, const struct engine_config *config);

/**
 * engine_step() - take one event, say what must be done
 * @ev: what happened; ev->time_ns never goes back
 * @fx: effects, to be carried out in this order; room for ENGINE_FX_MAX
 *
 * Context: the pager thread only. Does not block, allocate or log.
 * Return: number of effects, 0..ENGINE_FX_MAX. After EVENT_TICK, 0 means that nothing is due any more.
 */
unsigned engine_step(struct engine *e, const struct event *ev, struct effect fx[ENGINE_FX_MAX]);

/** engine_deadline_ns() - when EVENT_TICK is wanted; ENGINE_NEVER: not at all */
uint64_t engine_deadline_ns(const struct engine *e);

#endif
