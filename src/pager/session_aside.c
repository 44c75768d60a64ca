/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_aside.c - the plan, installed by a second thread while this one sleeps
 *
 * With a second processor the plan costs the pager thread next to nothing: it asks the engine for slices, as many as the ring
 * of pager/aside.h has room for, and lends the userfaultfd whenever it goes to sleep. When it wakes up it takes it back, reports
 * what has been done meanwhile, and only then looks at why it was woken. To the engine these are several effects whose outcomes
 * come later, in the order in which it asked for them, and no event in between (see session_burst.c).
 *
 * What is in the ring was right when it was put there. A fault may have brought such a page since: then the kernel says EEXIST
 * for it, and the rest of the slice is installed all the same. If it does not, the page is gone in a way that nobody told of, and
 * the VM is stopped. A discard must not meet any of it: when one is read that does,
 * what is not begun is taken out, and the walk through the plan goes back to where it stood (invariant I2). What was refused
 * because of another discard is put in again; with every other refusal the walk goes back, too, and the slice is left to the pager
 * thread, which knows about refusals (session_ahead.c).
 *
 * A source may drop bytes from memory (source_trim()), but nothing that the ring still has to be copied from. So where a source does
 * that the ring is let run empty after every DRAIN_OPS slices.
 *
 * The pager thread installs by itself with a limited rate, and where the source's bytes do not stay at their place.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "pager/aside.h"
#include "pager/session_private.h"

#define DRAIN_OPS ASIDE_OPS

/* struct given - what an install in the ring carries out, and where the walk stood before it */
struct given {
    struct effect fx;
    hva_t dst;
    uint64_t len;
    struct prefetch before;
};

struct side {
    struct aside *aside; /* owned */
    bool by_hand;        /* the next slice is the pager thread's */
    unsigned n_given;    /* since the ring was last empty */
    unsigned first;      /* of what is in the ring; both wrap around */
    unsigned end;
    struct given ring[ASIDE_OPS];
};

static struct given *given_at(struct side *side, unsigned i)
{
    return &side->ring[i % ASIDE_OPS];
}

int side_new(struct session *s)
{
    struct side *side;
    int r;

    if ((s->p.working_set.n == 0 && s->p.fill.n == 0) || s->p.ahead_rate > 0 || burst_threads() < 2)
        return 0;
    side = calloc(1, sizeof(*side));
    if (!side)
        return err_origin_errno(-ENOMEM, "cannot set up a thread for installs");
    r = aside_new(&side->aside, s->p.uffd, s->page_bytes);
    if (r < 0) {
        free(side);
        return r;
    }
    s->ahead.side = side;
    return 0;
}

void side_free(struct session *s)
{
    if (!s->ahead.side)
        return;
    s->ahead.side->aside = aside_free(s->ahead.side->aside);
    free(s->ahead.side);
    s->ahead.side = NULL;
}

int side_fd(const struct session *s)
{
    return s->ahead.side ? aside_fd(s->ahead.side->aside) : -1;
}

bool side_is_empty(const struct session *s)
{
    return !s->ahead.side || aside_is_empty(s->ahead.side->aside);
}

/* side_is_wanted() - may it install now? Not while somebody waits for a retry */
static bool side_is_wanted(const struct session *s)
{
    const struct ahead *a = &s->ahead;

    return a->side && !a->bursts && !a->over && s->now_ns >= a->next_ns &&
           engine_deadline_ns(&s->engine) == ENGINE_NEVER;
}

bool side_is_working(const struct session *s)
{
    return side_is_wanted(s) && aside_left(s->ahead.side->aside) > 0;
}

static void lend(struct session *s)
{
    aside_lend(s->ahead.side->aside, s->now_ns < s->ahead.gentle_until_ns ? GAP_NS : 0);
}

void side_lend(struct session *s)
{
    if (side_is_working(s))
        lend(s);
}

void side_lend_beside(struct session *s, const struct effect *fx)
{
    struct side *side = s->ahead.side;

    if (!side || fx->ahead || !s->ahead.may_lend || !side_is_working(s))
        return;
    for (unsigned i = side->first; i != side->end; i++) {
        const struct effect *given = &given_at(side, i)->fx;

        if (given->first < fx->end && fx->first < given->end) {
            assert(!aside_is_lent(side->aside));
            return;
        }
    }
    lend(s);
}

/* take_out() - what is not begun leaves the ring, and the walk stands before all of it again, and before @also if there is one */
static void take_out(struct session *s, const struct given *also)
{
    struct side *side = s->ahead.side;
    const struct given *at = also;

    for (unsigned i = side->first; i != side->end; i++) {
        const struct given *given = given_at(side, i);

        if (!at || given->before.n_passed < at->before.n_passed)
            at = given;
    }
    aside_drop(side->aside);
    side->end = side->first;
    if (at)
        s->engine.ahead = at->before;
}

/* give_again() - what is left of an install that was refused for now */
static void give_again(struct session *s, const struct given *given, const struct aside_op *op)
{
    struct side *side = s->ahead.side;
    struct given rest = *given;
    struct burst_op rest_op = op->op;
    uint64_t done = op->op.result.bytes_done;

    rest.fx.first += done / s->page_bytes;
    rest.fx.page = rest.fx.first;
    rest.dst += done;
    rest.len -= done;
    rest_op.dst += done;
    rest_op.len -= done;
    if (rest_op.src)
        rest_op.src = (const char *)rest_op.src + done;
    aside_give(side->aside, &rest_op);
    *given_at(side, side->end++) = rest;
    ahead_refused(s);
}

/* report() - pages [first, end) of an install, which were all dealt with in one way */
static void report(struct session *s, const struct effect *fx, pgno_t first, pgno_t end,
                   enum outcome outcome)
{
    bool done = outcome == OUTCOME_DONE;
    struct install_result r = {
        .outcome = outcome,
        .bytes_done = done ? (end - first) * s->page_bytes : 0,
    };
    struct effect part = *fx;
    struct effect next[ENGINE_FX_MAX];
    struct event ev;

    part.page = part.first = first;
    part.end = end;
    session_done(s, &part, &r, &ev);
    if (engine_step(&s->engine, &ev, next) > 0)
        session_carry_out(s, next[0], s->now_ns);
}

static bool was_found(const struct aside_op *op, pgno_t i)
{
    return (op->found >> i) & 1;
}

/*
 * was_lost() - pages [first, end) were put in: had one of them been there before?
 *
 * Then a fault has brought it, and it was discarded in a way that no message tells of. It should read as zero now, and has
 * the snapshot's bytes again.
 */
static bool was_lost(struct session *s, pgno_t first, pgno_t end)
{
    uint64_t was[N_PAGE_STATES];
    char why[128];

    pagetab_count(&s->p.block->pages, first, end, was);
    if (was[PAGE_ABSENT] == end - first)
        return false;
    (void)snprintf(why, sizeof(why),
                   "one of the pages %ju to %ju was discarded without a message, and has its old "
                   "bytes again",
                   (uintmax_t)first, (uintmax_t)end - 1);
    session_stop_because(s, STOP_UNKNOWN_EVENT, why);
    return true;
}

/* report_all() - what became of an install, part by part. Return: was all of it dealt with? */
static bool report_all(struct session *s, const struct effect *fx, const struct aside_op *op)
{
    pgno_t n = op->op.result.bytes_done / s->page_bytes;
    pgno_t end;

    for (pgno_t i = 0; i < n && s->stop == STOP_NONE; i = end) {
        bool found = was_found(op, i);

        for (end = i + 1; !found && end < n && !was_found(op, end);)
            end++;
        if (!found && was_lost(s, fx->first + i, fx->first + end))
            return true;
        report(s, fx, fx->first + i, fx->first + end, found ? OUTCOME_EXISTS : OUTCOME_DONE);
    }
    if (fx->first + n == fx->end)
        return true;
    if (s->stop == STOP_NONE)
        report(s, fx, fx->first + n, fx->end, op->op.result.outcome);
    return false;
}

void side_take_back(struct session *s)
{
    struct side *side = s->ahead.side;
    struct given broken;
    struct aside_op op;
    bool is_broken = false;

    s->ahead.may_lend = false;
    if (!side)
        return;
    aside_take_back(side->aside);
    while (s->stop == STOP_NONE && aside_take_done(side->aside, &op)) {
        struct given given = *given_at(side, side->first++);

        if (report_all(s, &given.fx, &op))
            continue;
        if (op.op.result.outcome == OUTCOME_AGAIN) {
            give_again(s, &given, &op);
        } else if (!is_broken) {
            broken = given;
            is_broken = true;
        }
    }
    if (!is_broken)
        return;
    take_out(s, &broken);
    side->by_hand = true;
}

void side_give_up(struct session *s)
{
    side_take_back(s);
    if (s->ahead.side)
        take_out(s, NULL);
}

void side_discarding(struct session *s, hva_t start, hva_t end)
{
    struct side *side = s->ahead.side;

    if (!side)
        return;
    for (unsigned i = side->first; i != side->end; i++) {
        const struct given *given = given_at(side, i);

        if (given->dst < end && start < given->dst + given->len) {
            take_out(s, NULL);
            return;
        }
    }
}

/* may_give() - or is the ring to run empty first? */
static bool may_give(const struct session *s)
{
    const struct side *side = s->ahead.side;

    return aside_room(side->aside) > 0 && (side->n_given < DRAIN_OPS || !source_trims(s->p.source));
}

/* give_slice() - the next slice of the plan into the ring. Return: false if that is not the way for it, or there is none */
static bool give_slice(struct session *s)
{
    struct side *side = s->ahead.side;
    struct given *given = given_at(side, side->end);
    struct event ev = {.kind = EVENT_AHEAD, .time_ns = s->now_ns, .ahead.many = true};
    struct effect fx[ENGINE_FX_MAX];
    struct burst_op op;

    given->before = s->engine.ahead;
    if (engine_step(&s->engine, &ev, fx) == 0)
        return false;
    session_locate(s, &fx[0], &ev);
    if (engine_step(&s->engine, &ev, fx) == 0)
        return false;
    if (fx[0].kind != EFFECT_COPY && fx[0].kind != EFFECT_ZERO) {
        session_carry_out(s, fx[0], s->now_ns);
        return false;
    }
    if (fx[0].kind == EFFECT_COPY && !s->located.lasting) {
        s->engine.ahead = given->before;
        side->by_hand = true;
        return false;
    }
    op = session_op(s, &fx[0]);
    given->fx = fx[0];
    given->dst = op.dst;
    given->len = op.len;
    aside_give(side->aside, &op);
    side->end++;
    side->n_given++;
    return true;
}

bool side_fill(struct session *s)
{
    struct side *side = s->ahead.side;

    if (!side_is_wanted(s) || s->ahead.waits || side->by_hand)
        return false;
    if (s->ahead.began_ns == 0)
        s->ahead.began_ns = s->now_ns;
    if (aside_left(side->aside) > ASIDE_OPS / 2)
        return true;
    side_take_back(s);
    if (aside_is_empty(side->aside)) {
        source_trim(s->p.source);
        side->n_given = 0;
    }
    while (may_give(s) && s->stop == STOP_NONE && !s->ahead.waits && give_slice(s))
        continue;
    return aside_left(side->aside) > 0;
}

void side_did_by_hand(struct session *s)
{
    if (s->ahead.side)
        s->ahead.side->by_hand = false;
}

/* #syscalls read */
void side_clear(const struct session *s)
{
    uint64_t count;
    ssize_t n = read(side_fd(s), &count, sizeof(count));

    (void)n;
}
