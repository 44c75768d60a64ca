/* SPDX-License-Identifier: Apache-2.0 */

/*
 * pager.pml - a pager, a kernel, two vCPUs and a balloon, in every order
 *
 * What is checked. spin visits every interleaving of the processes below and looks for
 *
 *     I1   a vCPU that sleeps for ever: asleep where nothing more can happen (an invalid end state), or on a cycle in
 *          which everybody who can run does run (its sleep carries an accept label; weak fairness)
 *     I2   image bytes put into a page after its REMOVE was read, or a read that sees bytes which it must not see
 *     I3   a discard whose REMOVE is never read: the thread in madvise sleeps for ever, as in I1
 *     I8   at the end, a page that the next snapshot would not have as the guest has it (judge_page); with TRACK this
 *          is also "no write is lost"
 *
 * and for a step of a page's life that src/core/page_states.def does not have (page_step).
 *
 * What is modelled. The kernel is kernel.pml. The page states are the program's own table, expanded by
 * tools/page_states.py. The pager is what the engine and its session do and nothing else: read messages until there
 * are none or it has enough; REMOVEs first; answer each fault by its page's state; remember in `waiting` what the
 * kernel refused for now; and when the queue is empty, try those again without waiting for a message (the retry timer,
 * always ready to fire). It is one thread, so that what it knows changes only between system calls.
 *
 * What is left out, and why the rest is enough.
 *   - Pages know of each other only through the order of messages, the counter mmap_changing, and runs of neighbours:
 *     two pages show all three.
 *   - Every rule about a fault relates one that waits, one that was served before, and a discard: two vCPUs and a
 *     balloon; two balloons for discards that nest.
 *   - With OPS=0 and REMOVES=0 vCPUs and balloons go on for ever: what must never happen is checked without bounds.
 *     "Some time" is checked with bounds, for an endless row of discards may keep the kernel refusing for ever.
 *     Each may stop before its bound, so that each prefix is an end, too.
 *   - Bytes are the image's, zero or the guest's: the pager never looks at bytes and cannot make the guest's.
 *   - Time: a timer may fire at once or late, so no choice of its period can be wrong here.
 *   - Errors that stop the VM; partial discards of huge pages (REMOVE_PART: nothing is zapped and nothing asked);
 *     reads through a stale TLB entry, which end when madvise returns.
 *
 * Variants (-D):
 *     PAGES=1|2 BALLOONS=1|2 OPS=n REMOVES=n     sizes; accesses of each vCPU, discards of each balloon
 *     FETCH       the image's bytes are elsewhere; they come some time after they were asked for
 *     AROUND      an install takes the neighbour along if the same belongs there
 *     AHEAD       when nothing waits, a page that nobody asked for is chosen, and installed some time later, by the pager
 *                 or by a helper, in which the pager reads nothing
 *     ASIDE       the same, but what is chosen stays chosen while messages are read and answered: the helper installs only when
 *                 the pager has lent it the userfaultfd, which it takes back before it reads
 *     TRACK       writes are tracked: every install is armed
 *     ZERO_RANGE  the image says that the last page is zero
 *     INTRUDER    once, a page becomes present and nobody is woken: a device writes through another mapping of the
 *                 memory, or a wake is lost
 *     UNHEARD     once, the first page goes away without a REMOVE: mapped anew, or a hole punched into its file
 *     MUTATE_x    one mistake of the pager; run.py lists them and what each must lead to
 *
 * `spin -t` tells an error's story, one line for each thing that happened.
 */

#ifndef PAGES
#define PAGES 1
#endif
#ifndef BALLOONS
#define BALLOONS 1
#endif
#ifndef OPS
#define OPS 2
#endif
#ifndef REMOVES
#define REMOVES 2
#endif

#include "page_states.pml"
#include "kernel.pml"
#include "guest.pml"

#ifdef TRACK
#define ARM 1
#else
#define ARM 0
#endif

/* Where the image's bytes of a page are. */
#define ELSEWHERE 0
#define UNDER_WAY 1
#define ARRIVED   2
#define IN_MEMORY 3
#ifdef FETCH
byte fetch[PAGES];
#endif

/* ---- what the pager knows ------------------------------------------------------------------ */

byte page_state[PAGES] = PAGE_INITIAL;

/* Pages with faults that were read and not answered. */
#define WAITS_MISSING 1
#define WAITS_WP      2
byte waiting[PAGES];

/* What was read and not looked at: each vCPU's fault (MSG_x) and its page, the set of removed pages. */
byte batch_fault[VCPUS];
byte batch_page[VCPUS];
byte batch_removed;

/* Values that do not live from one step to the next. */
hidden byte who;
hidden byte message;
hidden byte event;
hidden byte bytes;

/* ABSENT and REMOVED are the states that a known write cannot happen in. */
#define IS_INSTALLED(p) PAGE_HAS_EDGE_WRITTEN(page_state[p])

#ifdef MUTATE_IMAGE_AFTER_REMOVE
#define ANSWER(p) (page_state[p] == PAGE_REMOVED -> ANSWER_IMAGE : PAGE_ANSWER(page_state[p]))
#else
#define ANSWER(p) PAGE_ANSWER(page_state[p])
#endif
#define ANSWER_BYTES(p) (ANSWER(p) == ANSWER_IMAGE -> IMAGE_AT(p) : ZEROES)

/* What an install does to a page's life. */
#define EVENT_OF_IMAGE(write)  ((write) && !ARM -> EV_INSTALL_WRITE : EV_INSTALL)
#define EVENT_OF_ZEROES(write) ((write) && !ARM -> EV_ZEROFILL_WRITE : EV_ZEROFILL)
#define EVENT_OF(bytes, write) ((bytes) == IMAGE_BYTES -> EVENT_OF_IMAGE(write) : EVENT_OF_ZEROES(write))

/* Zeroes that must be armed are one COPY with MODE_WP, never ZEROPAGE and then WRITEPROTECT. */
#ifdef MUTATE_ZEROPAGE_THEN_PROTECT
#define ARM_FOR(bytes) (ARM && (bytes) == IMAGE_BYTES)
#else
#define ARM_FOR(bytes) ARM
#endif

#ifdef MUTATE_IGNORE_BELIEVED_INSTALLED
#define IS_IGNORED(p) IS_INSTALLED(p)
#else
#define IS_IGNORED(p) false
#endif

/* The neighbour is taken along if it is in the same state and the same kind of bytes belongs there. */
#ifdef MUTATE_NEIGHBOUR_UNSEEN
#define TAKES_ALONG(p) (!IS_INSTALLED(0) && !IS_INSTALLED(1))
#else
#define TAKES_ALONG(p) \
    (!IS_INSTALLED(p) && page_state[0] == page_state[1] && ANSWER_BYTES(0) == ANSWER_BYTES(1))
#endif

/* A page that waits for bytes that are being fetched is not retried: they will come. */
#ifdef FETCH
#define MUST_FETCH(p) (ANSWER_BYTES(p) == IMAGE_BYTES && fetch[p] != IN_MEMORY)
#define MUST_RETRY(p) (waiting[p] != 0 && !(MUST_FETCH(p) && fetch[p] != ELSEWHERE))
#else
#define MUST_FETCH(p) false
#define MUST_RETRY(p) (waiting[p] != 0)
#endif

/* Bytes that come are installed only where the image is still what the page reads as. */
#ifdef MUTATE_FETCHED_BLINDLY
#define IS_WANTED(p) true
#else
#define IS_WANTED(p) (ANSWER(p) == ANSWER_IMAGE)
#endif

#if PAGES == 1
#define EITHER(test) (test(0))
#else
#define EITHER(test) (test(0) || test(1))
#endif

#define HAS_BATCH (batch_fault[0] != 0 || batch_fault[1] != 0 || batch_removed != 0)

/* Retries: on a timer, and only when everything has been read. */
#ifdef MUTATE_RETRY_NEEDS_MESSAGE
bit was_read;
#define TIMER_FIRES (was_read == 1)
#else
#define TIMER_FIRES true
#endif
#ifdef MUTATE_RETRY_BEFORE_READ
#define MAY_READ  (!EITHER(MUST_RETRY))
#define MAY_RETRY TIMER_FIRES
#else
#define MAY_READ  true
#define MAY_RETRY (TIMER_FIRES && !UFFD_READABLE)
#endif

#include "ahead.pml"

/* ---- what the pager does ------------------------------------------------------------------- */

/* Refused for now: the page goes on waiting. */
inline put_off(p)
{
#ifdef MUTATE_FORGET_DEFERRED
    waiting[p] = 0
#else
    skip
#endif
}

inline install(p, what, arm, write)
{
    event = EVENT_OF(what, write);
    kernel_install(p, what, arm, outcome);
    if
    :: outcome == DONE ->
        page_step(event, p);
        waiting[p] = 0
    :: outcome == EXISTS -> page_step(EV_FOUND, p)
    :: outcome == AGAIN -> put_off(p)
    fi
}

inline unprotect(p)
{
    kernel_protect(p, false, outcome);
    if
    :: outcome == DONE ->
        page_step(EV_WRITTEN, p);
        waiting[p] = 0
    :: outcome == AGAIN -> put_off(p)
    fi
}

inline wake(p)
{
#ifndef MUTATE_EEXIST_NO_WAKE
    kernel_wake(p);
#endif
    waiting[p] = 0
}

/* Page p was there already: the install woke nobody. */
inline found(p, wp)
{
    if
#ifndef MUTATE_EEXIST_NO_UNPROTECT
    :: wp -> unprotect(p)
#else
    :: wp -> waiting[p] = 0
#endif
    :: else -> wake(p)
    fi
}

#ifdef AROUND
/* The neighbour before the page comes first in the run: if it is refused, so is the rest. */
inline install_before(p)
{
    d_step {
        along = (TAKES_ALONG(p) -> ANSWER_BYTES(p) : NOTHING);
        if
        :: along != NOTHING && p == 1 ->
            event = EVENT_OF(along, false);
            kernel_install(0, along, ARM, outcome);
            if
            :: outcome == DONE ->
                page_step(event, 0);
                waiting[0] = 0
            :: outcome == EXISTS ->
                if
                :: page_state[0] == PAGE_ABSENT -> page_step(EV_FOUND, 0)
                :: else /* its zap is still to come */
                fi;
                outcome = DONE
            :: outcome == AGAIN
            fi
        :: else
        fi
    }
}

/* The neighbour after the page is a courtesy: if it is refused or there already, nothing comes of it. */
inline install_after(p)
{
    d_step {
        if
        :: along != NOTHING && p == 0 && outcome == DONE ->
            event = EVENT_OF(along, false);
            kernel_install(1, along, ARM, outcome);
            if
            :: outcome == DONE ->
                page_step(event, 1);
                waiting[1] = 0
            :: else
            fi;
            outcome = DONE
#ifdef MUTATE_PARTIAL_IS_WHOLE
        :: along != NOTHING && p == 1 && outcome == AGAIN && IS_INSTALLED(0) ->
            event = EVENT_OF(along, false);
            page_step(event, 1);
            waiting[1] = 0
#endif
        :: else
        fi;
        along = NOTHING
    }
}
#endif

/* Answers one fault, asks for its bytes, or puts it off: the page's state decides. */
inline answer(p, wp, write)
{
#if defined(ASIDE) && PAGES == 2
    if
    :: d_step { ahead_is == CHOSEN && ahead_page != p -> lent = true }
    :: skip
    fi;
#endif
#ifdef AROUND
    install_before(p);
#endif
    d_step {
        if
        :: outcome == AGAIN /* the run ended before the page */
        :: outcome != AGAIN && wp && IS_INSTALLED(p) -> unprotect(p)
        :: outcome != AGAIN && !wp && IS_IGNORED(p) -> waiting[p] = 0
#ifdef FETCH
        :: MUST_FETCH(p) ->
            fetch[p] = (fetch[p] == ELSEWHERE -> UNDER_WAY : fetch[p])
#endif
        :: else ->
            bytes = ANSWER_BYTES(p);
            install(p, bytes, ARM_FOR(bytes), write)
        fi
    };
#ifdef AROUND
    install_after(p);
#endif
#ifdef MUTATE_ZEROPAGE_THEN_PROTECT
    d_step {
        if
        :: outcome == DONE && page_state[p] == PAGE_ZERO -> kernel_protect(p, true, outcome)
        :: else
        fi
    };
#endif
    d_step {
        if
        :: outcome == EXISTS -> found(p, wp)
        :: else
        fi;
        outcome = DONE
    }
}

inline read_message()
{
#ifdef MUTATE_RETRY_NEEDS_MESSAGE
    was_read = 1;
#endif
    kernel_read(who, message);
    if
    :: message == MSG_REMOVE -> batch_removed = batch_removed | (1 << discard_page[who])
    :: else ->
        batch_fault[who] = message;
        batch_page[who] = vcpu_page[who]
    fi
}

inline apply_removes()
{
#ifdef ASIDE
    take_out();
#endif
    if
    :: (batch_removed & 1) != 0 -> page_step(EV_REMOVE, 0)
    :: else
    fi;
#if PAGES == 2
    if
    :: (batch_removed & 2) != 0 -> page_step(EV_REMOVE, 1)
    :: else
    fi;
#endif
    batch_removed = 0
}

inline take_fault(v)
{
#ifdef ASIDE
    take_back();
#endif
    p = batch_page[v];
    kind = batch_fault[v];
    batch_page[v] = 0;
    batch_fault[v] = 0;
    waiting[p] = waiting[p] | (kind == MSG_WP -> WAITS_WP : WAITS_MISSING)
}

/* One look at a batch: its REMOVEs, then its faults. */
inline handle_batch()
{
    d_step {
        IS_FREE && HAS_BATCH ->
#ifdef MUTATE_FAULTS_BEFORE_REMOVES
        skip
#else
        apply_removes()
#endif
    };
    do
    :: d_step { v < VCPUS && batch_fault[v] != 0 -> take_fault(v) };
        answer(p, (kind == MSG_WP), (kind != MSG_READ))
    :: d_step { v < VCPUS && batch_fault[v] == 0 -> v++ }
    :: atomic {
            v == VCPUS ->
#ifdef MUTATE_FAULTS_BEFORE_REMOVES
            apply_removes();
#endif
            v = 0;
            p = 0;
            kind = 0;
            break
        }
    od
}

/* v counts pages and kinds: missing, then write-protect, of page 0, then of page 1. */
#define IS_DUE(v) ((waiting[(v) / 2] & (1 + (v) % 2)) != 0 && MUST_RETRY((v) / 2))

/* One pass over all that waits. What kind of access it was is forgotten: it may have been a write. */
inline retry_pass()
{
    d_step {
        IS_FREE && !HAS_BATCH && MAY_RETRY && EITHER(MUST_RETRY) ->
#ifdef MUTATE_RETRY_NEEDS_MESSAGE
        was_read = 0
#else
        skip
#endif
    };
    do
    :: d_step {
            v < 2 * PAGES && IS_DUE(v) -> p = v / 2;
#ifdef ASIDE
            take_back()
#endif
        };
        answer(p, (v % 2 == 1), true);
        v++
    :: d_step { v < 2 * PAGES && !IS_DUE(v) -> v++ }
    :: atomic {
            v == 2 * PAGES -> v = 0;
            p = 0;
            break
        }
    od
}

/* Bytes have come. If they are not wanted any more, whoever waits is retried, like all that wait. */
inline take_bytes(p)
{
    fetch[p] = IN_MEMORY;
    if
    :: waiting[p] != 0 && IS_WANTED(p) -> install(p, IMAGE_BYTES, ARM, true)
    :: else ->
#ifdef MUTATE_DROP_FETCH_WAITER
        waiting[p] = 0
#else
        skip
#endif
    fi;
    outcome = DONE
}

/*
 * I8. What the next snapshot has for a page: with tracked writes what its state says, else what is there, and what the
 * state says where nothing is. A page that should hold the guest's bytes and is not there was discarded: zeroes.
 */
inline judge_page(p)
{
#ifdef TRACK
    bytes = (PAGE_READS(page_state[p]) == READS_IMAGE -> IMAGE_AT(p)
             : (PAGE_READS(page_state[p]) == READS_ZERO || content[p] == NOTHING -> ZEROES : content[p]));
#else
    bytes = (content[p] != NOTHING -> content[p]
             : (PAGE_READS(page_state[p]) == READS_IMAGE -> IMAGE_AT(p) : ZEROES));
#endif
    printf("judge: the snapshot of page %d has %d, allowed are %d\n", p, bytes, allowed[p]);
#ifndef UNHEARD
    assert((bytes & allowed[p]) != 0) /* I8: the next snapshot is true */
#endif
}

#ifdef FETCH
/* Brings what was asked for, in any order, at any time. */
active proctype worker()
{
end_idle:
    do
    :: d_step { fetch[0] == UNDER_WAY -> fetch[0] = ARRIVED }
#if PAGES == 2
    :: d_step { fetch[1] == UNDER_WAY -> fetch[1] = ARRIVED }
#endif
    od
}
#endif

#define ALL_DONE (running == 0 && IS_FREE && !UFFD_READABLE && !HAS_BATCH && waiting[0] == 0 && waiting[PAGES - 1] == 0)

active proctype pager()
{
    byte v, p, kind, outcome;
#ifdef AROUND
    byte along; /* the bytes of a run of two, or NOTHING */
#endif

end_idle:
    do
    :: d_step { IS_FREE && UFFD_READABLE && MAY_READ -> read_message() }
    :: handle_batch()
    :: retry_pass()
#ifdef AHEAD
    :: d_step { MAY_CHOOSE(0) -> choose(0) }
#if PAGES == 2
    :: d_step { MAY_CHOOSE(1) -> choose(1) }
#endif
#ifdef ASIDE
    :: d_step { MAY_LEND -> lent = true }
    :: d_step { lent || ahead_is == INSTALLED -> take_back() }
#else
    :: d_step { ahead_is == INSTALLED -> report_ahead() }
#endif
#endif
#ifdef FETCH
    :: d_step { IS_FREE && !HAS_BATCH && fetch[0] == ARRIVED -> take_bytes(0) }
#if PAGES == 2
    :: d_step { IS_FREE && !HAS_BATCH && fetch[1] == ARRIVED -> take_bytes(1) }
#endif
#endif
    :: atomic {
            ALL_DONE -> judge_page(0);
#if PAGES == 2
            judge_page(1);
#endif
            break
        }
    od
}
