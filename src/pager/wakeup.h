/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_WAKEUP_H
#define PAGER_WAKEUP_H

/*
 * wakeup.h - what is done so that waking the pager, and waking the guest, is cheap
 *
 * Most of the time that a fault takes is the waking of processors that sleep. Three things help, each by itself and all
 * together: keep idle processors from sleeping, run on the processor that the guest's thread has just left, look for the
 * next message before going to sleep. When to do so is in pager/wakeup_rules.h; here it is done. None of it happens while
 * no messages come: a pager with nothing to do is not woken by this, and lets go of what it held.
 *
 * What may be opened by name is opened before rights are given away: wakeup_new() and wakeup_meet().
 */

#include <sys/epoll.h>

#include <thaw/thaw.h>

#include "base/log.h"
#include "core/block.h"
#include "pager/peer.h"

struct wakeup;

/**
 * wakeup_check() - are these options sound?
 *
 * Return: 0 or -EINVAL with a text.
 */
int wakeup_check(const struct thaw_pager_options *o);

/**
 * wakeup_new() - open what is there before a VM is
 * @out: (give)
 * @o:   (borrow for the call) checked
 * @log: (borrow for its life)
 *
 * Return: 0 or a negative errno with a text.
 */
int wakeup_new(struct wakeup **out, const struct thaw_pager_options *o, const struct log_sink *log);

/**
 * wakeup_meet() - open what tells where the VMM's threads run
 * @confined: this process gives its rights away after this
 *
 * What cannot be had is gone without, and logged.
 */
void wakeup_meet(struct wakeup *w, const struct peer *vmm, bool confined);

/** wakeup_tasks() - a folder beneath which files are read until the end (borrow); -1: none */
int wakeup_tasks(const struct wakeup *w);

/** wakeup_let_processors_sleep() - a process that shares @w by fork() was killed, maybe while it held them awake */
void wakeup_let_processors_sleep(struct wakeup *w);

/**
 * wakeup_begin() - the calling thread is the pager's thread from now on
 * @counters: (borrow until wakeup_end())
 */
void wakeup_begin(struct wakeup *w, struct counters *counters, uint64_t now_ns);

/**
 * wakeup_turn() - there is nothing more to do at the moment: hold processors awake or not, move or not
 * @ahead: pages are being installed that nobody waits for: the guest's processor is better left to it
 */
void wakeup_turn(struct wakeup *w, bool ahead, uint64_t now_ns);

/** wakeup_deadline_ns() - when to call wakeup_turn() whatever comes; WAKEUP_NEVER: nothing is held */
uint64_t wakeup_deadline_ns(const struct wakeup *w);

/**
 * wakeup_look() - look without sleeping, as long as the rule says, but not beyond @until_ns
 * @now_ns: goes on
 *
 * Return: as epoll_wait(2); 0: nothing has come, so sleep.
 */
int wakeup_look(struct wakeup *w, int epoll, struct epoll_event *events, int max, uint64_t until_ns,
                uint64_t *now_ns);

/** wakeup_woke() - the wait that wakeup_look() began is over; @messages: because of a message */
void wakeup_woke(struct wakeup *w, bool messages);

/** wakeup_end() - let go of everything */
void wakeup_end(struct wakeup *w);

/** wakeup_free() - @w: (take) may be NULL. Return: NULL */
struct wakeup *wakeup_free(struct wakeup *w);

#endif
