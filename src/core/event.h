/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_EVENT_H
#define CORE_EVENT_H

/*
 * event.h - the words in which the engine and the world talk
 *
 * Events go in: what the kernel, the source and the clock say. Effects come out: what must be done to the VM's
 * memory or asked of the source. Each effect that can fail comes back as a DONE event with its outcome, so that
 * every decision is made in the engine and every syscall outside of it.
 */

#include "base/base.h"

/** enum outcome - what became of an ioctl on the uffd; decoded in uffd/install.c and nowhere else */
enum outcome {
    OUTCOME_DONE,  /* all of it */
    OUTCOME_AGAIN, /* the address space is changing (EAGAIN), or a run ended early: see pages_done */
    OUTCOME_EXISTS, /* the page at first+pages_done is there already (EEXIST); its waiters were not woken */
    OUTCOME_UNSURE, /* EEXIST for a huge page: it is there, or no huge page is free. Linux says the same to both */
    OUTCOME_UNMAPPED, /* that range is not registered or not one mapping (ENOENT) */
    OUTCOME_NOMEM,    /* no memory: cgroup limit or hugetlb pool (ENOMEM, ENOSPC) */
    OUTCOME_SOURCE,   /* the source's bytes could not be read (EFAULT): file truncated or failing */
    OUTCOME_GONE,     /* the VMM's address space is gone (ESRCH) */
    OUTCOME_REFUSED,  /* anything else: a combination that this kernel does not do */
};

/** enum located - the source's answer, see enum thaw_where */
enum located {
    LOCATED_ZERO,
    LOCATED_MEMORY,
    LOCATED_ELSEWHERE,
    LOCATED_FAILED, /* the source is broken */
};

/** enum stop_reason - why the VM must be stopped, or the session ends */
enum stop_reason {
    STOP_NONE,
    STOP_VMM_GONE, /* nobody is left to serve: a good end */
    STOP_ASKED,    /* somebody asked for it */
    STOP_LEFT,     /* every page is there, nothing is registered any more: the VM goes on alone */
    STOP_SOURCE,   /* bytes cannot be had */
    STOP_NOMEM,    /* no memory for the guest's page, for longer than the limit */
    STOP_REFUSED,  /* the kernel refuses what must be done */
    STOP_STRAY_FAULT, /* a fault outside of every region: nobody knows what belongs there */
    STOP_UNKNOWN_EVENT, /* what we cannot honour: a fork, remap or minor fault; a discard that was noticed too late */
};

/** enum effect_kind - what the engine wants done */
enum effect_kind {
    EFFECT_LOCATE, /* ask the source where [first,end) around page is; answer with EVENT_LOCATED */
    EFFECT_FETCH, /* have a worker bring [first,end) into memory; answer, some time, with EVENT_FETCHED */
    EFFECT_COPY,      /* install [first,end) from the image; answer with EVENT_DONE */
    EFFECT_ZERO,      /* install [first,end) as zeroes; answer with EVENT_DONE */
    EFFECT_UNPROTECT, /* lift write protection of page and wake; answer with EVENT_DONE */
    EFFECT_WAKE,      /* wake whoever waits for page; answer with EVENT_DONE */
    EFFECT_STOP,      /* kill the VM (unless STOP_VMM_GONE), end the session; no answer */
};

/** struct effect - one thing to do; runs are [first,end) in page numbers and lie within one region */
struct effect {
    enum effect_kind kind;
    enum stop_reason stop; /* EFFECT_STOP */
    pgno_t page;           /* the page that somebody waits for; first <= page < end */
    pgno_t first;
    pgno_t end;
    bool write;     /* the fault was for a write: the page counts as written when it is not armed */
    bool arm;       /* install write-protected */
    bool unprotect; /* it was a write-protect fault: if the page exists, lift its protection */
    bool fetched;   /* a worker has just brought the bytes of the page */
    bool ahead;     /* nobody waits for it: a slice of a plan; page == first */
    bool many;      /* ahead: one of several that are carried out at once; the walk has passed it */
};

/** enum event_kind - what happened */
enum event_kind {
    EVENT_FAULT,    /* a thread of the VMM waits for a missing page */
    EVENT_WP_FAULT, /* a thread of the VMM waits to write to an armed page */
    EVENT_REMOVE,   /* the VMM is about to discard a range; from here on it is zero */
    EVENT_LOCATED,  /* answer to EFFECT_LOCATE */
    EVENT_FETCHED,  /* answer to EFFECT_FETCH */
    EVENT_DONE,     /* answer to COPY, ZERO, UNPROTECT, WAKE */
    EVENT_TICK,     /* the time of engine_deadline_ns() has come */
    EVENT_AHEAD,    /* nothing else is to be done: time for the next slice of the plan */
};

/** struct event - one thing that happened */
struct event {
    enum event_kind kind;
    uint64_t time_ns; /* monotonic; never goes back */
    union {
        struct {
            hva_t addr;
            bool write;
        } fault; /* FAULT, WP_FAULT */
        struct {
            hva_t start;
            hva_t end; /* exclusive */
        } remove;
        struct {
            struct effect asked;
            enum located where;
            bool
                slow; /* LOCATED_ELSEWHERE: they can be copied from where they are, but that waits for storage */
            pgno_t
                first; /* the run around asked.page for which this holds, within [asked.first, asked.end) */
            pgno_t end;
        } located;
        struct {
            bool many; /* several slices are handed out before the first outcome is heard */
        } ahead;
        struct {
            pgno_t first; /* as asked with EFFECT_FETCH */
            pgno_t end;
            bool ok;
        } fetched;
        struct {
            struct effect asked;
            enum outcome outcome;
            uint64_t pages_done; /* from asked.first; progress even if the outcome is not DONE */
        } done;
    };
};

/** outcome_name() - "done", "again", ... */
const char *outcome_name(enum outcome o);

/** stop_reason_name() - as in the statistics: "vmm-gone", "source", ... */
const char *stop_reason_name(enum stop_reason r);

#endif
