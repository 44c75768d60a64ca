/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_ASIDE_H
#define PAGER_ASIDE_H

/*
 * aside.h - a thread that installs while the pager thread sleeps
 *
 * The pager thread lends it the userfaultfd when it has nothing to do, and takes it back before it does anything else. So
 * nobody makes ioctls while messages are read and dealt with (invariant I4), and what the two do never overlaps: to the page
 * states it is as if the pager thread had done all of it. Taking back waits for the one install that is under way, which is
 * no longer than when the pager thread was in that install itself.
 *
 * What it is to do lies in a ring, which the pager thread fills and empties, always while it has the userfaultfd: so each
 * install in it is either done, with its result, or not begun; and what is not begun can be taken out again, as it must be
 * when a discard is read (docs/decisions/0016).
 *
 * All functions are for the pager thread. After aside_new() it has the userfaultfd.
 */

#include "pager/burst.h"

#define ASIDE_OPS   128u /* room in the ring */
#define ASIDE_PAGES 64u  /* of one install, at most */

/** struct aside_op - an install in the ring */
struct aside_op {
    struct burst_op op; /* its result: bytes dealt with, and why not the rest */
    uint64_t found; /* bits: those of its pages that were there already; they count as dealt with */
};

struct aside;

/**
 * aside_new() - start the thread
 * @out:        (give)
 * @uffd:       (borrow until aside_free())
 * @page_bytes: of the VM's pages
 *
 * Return: 0 or a negative errno with a text.
 */
int aside_new(struct aside **out, int uffd, uint64_t page_bytes);

/** aside_free() - end the thread. @a: (take) may be NULL. Return: NULL */
struct aside *aside_free(struct aside *a);

/** aside_fd() - an eventfd (borrow) that is written to when there is little left in the ring. Whoever waits for it reads it */
int aside_fd(const struct aside *a);

/**
 * aside_lend() - from now on until aside_take_back() the thread installs what is in the ring
 * @gap_ns: how long it leaves the userfaultfd alone between two installs
 */
void aside_lend(struct aside *a, uint64_t gap_ns);

/** aside_is_lent() - may it install just now, as far as the pager thread has a say in it? */
bool aside_is_lent(const struct aside *a);

/** aside_take_back() - no install is under way when it returns, and none begins. Does nothing if nothing was lent */
void aside_take_back(struct aside *a);

/** aside_room() - how many more installs the ring has room for */
unsigned aside_room(const struct aside *a);

/** aside_left() - how many in it are not begun. Not lent */
unsigned aside_left(const struct aside *a);

/** aside_is_empty() - neither is anything left, nor done and not taken out. Not lent */
bool aside_is_empty(const struct aside *a);

/** aside_give() - add an install, whose bytes stay where they are; there is room. Not lent */
void aside_give(struct aside *a, const struct burst_op *op);

/** aside_take_done() - take the oldest install out of the ring if it is done. Return: was it? Not lent */
bool aside_take_done(struct aside *a, struct aside_op *op);

/** aside_drop() - take out what is not begun. Not lent */
void aside_drop(struct aside *a);

DEFINE_CLEANUP(struct aside *, aside_free);

#endif
