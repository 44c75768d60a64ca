/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_CONTROL_H
#define PAGER_CONTROL_H

/*
 * control.h - asking the pager thread for something from outside: other threads, signal handlers
 *
 * One bit a request, and an eventfd that the pager thread waits on. Asking twice before it looks is asking once.
 */

#include <thaw/thaw.h>

#include "base/base.h"

/** struct control - requests that the pager thread has not seen yet */
struct control {
    int fd;        /* owned eventfd, -1: none */
    unsigned bits; /* 1 << enum thaw_request; atomic */
};

/** control_init() - Return: 0 or a negative errno with a text */
int control_init(struct control *c);

/**
 * control_renew() - in a child process: an eventfd of its own in place of the one it shares with its parent
 *
 * What was asked of this process already stays asked. Return: 0 or a negative errno with a text.
 */
int control_renew(struct control *c);

void control_deinit(struct control *c);

/** control_ask() - async-signal-safe, any thread */
void control_ask(struct control *c, enum thaw_request what);

/** control_take() - what was asked since the last call, as bits; the eventfd is quiet afterwards */
unsigned control_take(struct control *c);

static inline bool control_has(unsigned bits, enum thaw_request what)
{
    return (bits >> what) & 1;
}

#endif
