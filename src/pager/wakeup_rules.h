/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_WAKEUP_RULES_H
#define PAGER_WAKEUP_RULES_H

/*
 * wakeup_rules.h - when it pays to make wake-ups cheap, and when to stop
 *
 * Three rules that pager/wakeup.c carries out. Pure: times and observations come from outside, decisions go out. What the
 * figures in here come from is in docs/decisions/0010-cheap-wake-ups.md.
 */

#include "base/base.h"

#define WAKEUP_NEVER UINT64_MAX

/* ---- an allowance --------------------------------------------------------------------------------------------- */

/**
 * struct allowance - time that may be spent: a share of all time, and what was saved up
 *
 * In any stretch of time t at most share x t + full_ns are spent.
 */
struct allowance {
    unsigned percent; /* 100 or more: without limit */
    uint64_t full_ns; /* more than this cannot be saved up */
    uint64_t left_ns;
    uint64_t at_ns; /* when left_ns was true */
};

/** allowance_init() - full */
void allowance_init(struct allowance *a, unsigned percent, uint64_t full_ns, uint64_t now_ns);

/** allowance_left() - what may be spent now */
uint64_t allowance_left(struct allowance *a, uint64_t now_ns);

/** allowance_spend() - @spent_ns have been spent until now; may be more than was left, down to nothing */
void allowance_spend(struct allowance *a, uint64_t spent_ns, uint64_t now_ns);

/* ---- holding the processors awake ----------------------------------------------------------------------------- */

#define QOS_WINDOW_NS  (20 * NS_PER_MS)
#define QOS_MESSAGES   50u /* in a window: a burst */
#define QOS_PERCENT    10u /* of the time, in the long run */
#define QOS_AT_ONCE_NS (5 * NS_PER_S)

/**
 * struct qos_rule - whether the idle processors are to be held awake
 *
 * Hold once QOS_MESSAGES messages have come within a window; let go at the end of the first window with fewer, or when the
 * allowance is used up.
 */
struct qos_rule {
    bool held;
    uint64_t window_ns; /* when the window began */
    uint64_t since_ns;  /* held since, or spent until */
    unsigned n;         /* messages in it */
    struct allowance allowance;
};

/** qos_rule_init() - nothing is held. @percent: of the time, 100: without limit */
void qos_rule_init(struct qos_rule *q, unsigned percent, uint64_t now_ns);

/** qos_rule_step() - @n messages more have come (0: none, time has passed). Return: whether to hold from now on */
bool qos_rule_step(struct qos_rule *q, unsigned n, uint64_t now_ns);

/** qos_rule_deadline_ns() - when to step again, whatever comes; WAKEUP_NEVER: nothing is held */
uint64_t qos_rule_deadline_ns(const struct qos_rule *q);

/* ---- looking without sleeping --------------------------------------------------------------------------------- */

#define SPIN_MAX_NS        (50 * NS_PER_US)
#define SPIN_GAPS          8u
#define SPIN_MISSES        4u
#define SPIN_PAUSE_MIN     64u
#define SPIN_PAUSE_MAX     4096u
#define SPIN_PERCENT       10u /* of a processor, in the long run */
#define SPIN_FIXED_PERCENT 50u
#define SPIN_AT_ONCE_NS    (NS_PER_S / 2)

/**
 * struct spin_rule - how long to look for the next message before sleeping
 *
 * Twice the median of the last gaps between "nothing more to do" and the next message, but at most SPIN_MAX_NS; nothing where
 * the median is longer than that, and nothing beyond the allowance.
 *
 * Where the guest's thread can run only once the pager sleeps, because both share a processor, looking is in its way: the
 * message never comes while it is looked for. So after SPIN_MISSES looks in vain the next waits are without one, each time
 * twice as many, from SPIN_PAUSE_MIN to SPIN_PAUSE_MAX.
 */
struct spin_rule {
    uint64_t fixed_ns;           /* look so long, always; 0: by the gaps */
    uint64_t gaps_ns[SPIN_GAPS]; /* a ring */
    unsigned next;
    unsigned misses;     /* looks in vain, in a row */
    unsigned pause;      /* so many waits more without a look */
    unsigned next_pause; /* what @pause will be */
    struct allowance allowance;
};

/**
 * spin_rule_init() - as after a long silence
 * @fixed_ns: 0: as the gaps say
 * @percent:  of one processor; 0: never
 */
void spin_rule_init(struct spin_rule *s, uint64_t fixed_ns, unsigned percent, uint64_t now_ns);

/** spin_rule_ns() - the pager is about to wait: how long is it to look before? */
uint64_t spin_rule_ns(struct spin_rule *s, uint64_t now_ns);

/** spin_rule_waited() - a message has come @gap_ns after there was nothing more to do */
void spin_rule_waited(struct spin_rule *s, uint64_t gap_ns);

/** spin_rule_spent() - it was looked for @spent_ns, until now, and @found */
void spin_rule_spent(struct spin_rule *s, uint64_t spent_ns, bool found, uint64_t now_ns);

/* ---- being where the guest is --------------------------------------------------------------------------------- */

#define FOLLOW_OFTEN_NS  (4 * NS_PER_MS)
#define FOLLOW_SELDOM_NS (32 * NS_PER_MS)
#define FOLLOW_MESSAGES  8u  /* a guest that faults less is not followed */
#define FOLLOW_THREADS   64u /* a VMM with more is not, either */

/** struct thread_time - how long a thread has run in all */
struct thread_time {
    int tid;
    uint64_t run_ns;
};

/** struct follow_rule - which thread of the VMM the pager is to be close to */
struct follow_rule {
    struct thread_time last[FOLLOW_THREADS];
    unsigned n_last;
    int tid;        /* the answer of the last look */
    uint64_t at_ns; /* of the last look; 0: none */
    uint64_t
        every_ns; /* how often to look: FOLLOW_OFTEN_NS, less often while the answer stays the same */
};

/** follow_rule_init() - nothing is known */
void follow_rule_init(struct follow_rule *f);

/** follow_rule_is_due() - has the last look been long enough ago? */
bool follow_rule_is_due(const struct follow_rule *f, uint64_t now_ns);

/**
 * follow_rule_step() - look at the threads' times
 * @n: at most FOLLOW_THREADS
 *
 * Return: the thread that was the only busy one since the last look; 0: there was none, or several, or it is too long ago.
 */
int follow_rule_step(struct follow_rule *f, const struct thread_time *now, unsigned n,
                     uint64_t now_ns);

#endif
