/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_SIM_WORLD_H
#define FUZZ_SIM_WORLD_H

/* sim_world.h - what the parts of the simulation share: see sim.h for the theory */

#include "../unit/engine_rig.h"
#include "sim.h"

#define SIM_PAGES   160u /* at most; more than two words of a bit set */
#define SIM_THREADS 72u  /* at most; more than there are places for fetches */
#define SIM_FETCHES (FETCH_TABLE_MAX + 8u)
#define SIM_RUNS    24u /* of a plan, at most */
#define SIM_BURST   6u  /* slices at once, at most */

/** enum sim_bytes - what a present page holds */
enum sim_bytes {
    BYTES_IMAGE,
    BYTES_ZERO,
    BYTES_OWN, /* the guest wrote there, or a part of it was zeroed */
};

/** struct sim_page - the truth about one page */
struct sim_page {
    bool present;
    bool armed;
    enum sim_bytes bytes; /* while present */
    bool unregistered;    /* the VMM took it out of the userfaultfd */
    bool heard;           /* a REMOVE of all of it was read: the image must never come back */
    bool told;            /* ... and given to the engine */
    bool zapped;          /* discarded at least once, whether the pager heard of it or not */
    bool parted;          /* a part of it was discarded */
    bool unrecorded; /* a pager died between the ioctl and its record, or it left the userfaultfd */
    bool unreadable; /* the file ends before it */
    bool fetched;    /* a worker has brought its bytes once */
    enum located image; /* ZERO, MEMORY or ELSEWHERE */
};

/** enum sim_doing - what a thread of the VMM does */
enum sim_doing {
    RUNS,
    WANTS,    /* was woken, or has not yet begun: will touch its page when it is scheduled */
    SLEEPS,   /* in a fault, see queued */
    DISCARDS, /* in madvise, see phase */
};

/** enum sim_phase - how far a discard has come */
enum sim_phase {
    REMOVE_QUEUED, /* installs are refused */
    REMOVE_READ,   /* installs are refused still */
    ZAP_TO_COME,   /* installs succeed; what they install in the range is lost */
};

/** struct sim_thread - a thread of the VMM */
struct sim_thread {
    enum sim_doing doing;
    pgno_t page; /* WANTS, SLEEPS */
    bool write;
    bool protected;  /* SLEEPS: in a write-protect fault */
    bool queued;     /* SLEEPS: its message has not been read */
    bool handled;    /* SLEEPS: its message has been given to the engine */
    uint64_t serial; /* order of queued messages */
    enum sim_phase phase;
    hva_t start; /* DISCARDS: [start, end) */
    hva_t end;
};

/** struct sim_fetch - a run that a worker reads */
struct sim_fetch {
    pgno_t first;
    pgno_t end;
};

/** struct sim - everything */
struct sim {
    const uint8_t *bytes; /* (borrow) the choices that are left */
    size_t n_bytes;

    struct rig rig;
    bool track;
    bool may_unregister; /* the VMM takes ranges out of the userfaultfd */
    bool may_restart;    /* pagers die and others take over */
    bool may_fail; /* the source fails, memory is short for long, the VMM dies: ends in a stop */
    bool
        may_look; /* the VMM\'s page table tells "a huge page is there" from "no huge page is free" */
    bool
        keeps_nothing; /* the storage\'s bytes never stay in memory, but can be copied from where they are */
    pgno_t n_pages;

    struct prefetch_run plan[SIM_RUNS];
    unsigned n_runs;
    bool left_behind; /* something of the plan may be ABSENT at its end */

    struct sim_page pages[SIM_PAGES];
    struct sim_thread threads[SIM_THREADS];
    unsigned n_threads;
    struct sim_fetch fetches[SIM_FETCHES];
    unsigned n_fetches;
    unsigned mmap_changing;
    uint64_t next_serial;
    uint64_t now_ns;
    uint64_t blocked_until_ns; /* the engine was refused: it may not try before */
    uint64_t nomem_since_ns;   /* nomem: since when no page could be had */
    uint64_t memory_since_ns;  /* !nomem: since when */
    bool nomem;
    bool source_broken;
    bool vmm_gone;
    bool stopped;
    bool finishing; /* the choices are used up: all choices are the harmless ones */

    const char *wrong; /* the verdict; the first one stays */
    struct sim_stats *stats;
};

/** sim_pick() - a choice: 0..@n-1; 0, the harmless one, when the bytes are used up */
unsigned sim_pick(struct sim *s, unsigned n);

/** sim_chance() - true once in @n; false when the bytes are used up */
bool sim_chance(struct sim *s, unsigned n);

/** sim_wrong() - the run has failed: "..." with up to one page number (%llu) */
void sim_wrong(struct sim *s, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* sim_guest.c: the VMM's threads */

/** guest_step() - some thread does something */
void guest_step(struct sim *s);

/** guest_finish() - every thread that can, goes on. Return: whether one did */
bool guest_finish(struct sim *s);

/** guest_wake() - whoever sleeps in a fault on page @p goes on */
void guest_wake(struct sim *s, pgno_t p);

/** guest_covers_whole() - does [@start, @end) cover all of page @p? */
bool guest_covers_whole(const struct sim *s, hva_t start, hva_t end, pgno_t p);

/** guest_zap_is_coming() - has a REMOVE of page @p, or a part of it, been read whose zap is still to come? */
bool guest_zap_is_coming(const struct sim *s, pgno_t p);

/* sim_kernel.c: the userfaultfd */

/** kernel_read() - up to @max messages, faults before REMOVEs, oldest first. Return: how many */
unsigned kernel_read(struct sim *s, struct event *messages, unsigned max);

/** kernel_apply() - carry out COPY, ZERO, UNPROTECT, WAKE. Return: what engine_step() is to be told */
struct event kernel_apply(struct sim *s, const struct effect *fx);

/** kernel_readable() - are there messages? */
bool kernel_readable(const struct sim *s);

/* sim_pager.c: the pager's loop */

/** pager_read() - read messages and deal with them */
void pager_read(struct sim *s);

/** pager_tick() - give the engine the time if it asked for that */
void pager_tick(struct sim *s);

/** pager_fetch_ends() - a worker is ready */
void pager_fetch_ends(struct sim *s);

/** pager_ahead() - a slice of the plan, or several at once */
void pager_ahead(struct sim *s);

/** pager_ahead_restart() - the plan from its beginning */
void pager_ahead_restart(struct sim *s);

/* sim_truth.c: the oracle */

/** truth_check_effect() - may the engine want this? */
void truth_check_effect(struct sim *s, const struct effect *fx);

/** truth_check_page_put() - may this go into page @p? */
void truth_check_page_put(struct sim *s, pgno_t p, bool image);

/** truth_check() - between two events: what the engine believes against what is */
void truth_check(struct sim *s);

/** truth_check_end() - all is done: nobody sleeps, nothing is left to do */
void truth_check_end(struct sim *s);

#endif
