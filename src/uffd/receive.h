/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UFFD_RECEIVE_H
#define UFFD_RECEIVE_H

/*
 * receive.h - the kernel's messages: read them, say what they mean
 *
 * Faults come out of the queue before discards, even older ones. Whoever reads a batch must therefore look at its
 * discards first, or it would install bytes that are not the guest's any more.
 */

#include <linux/userfaultfd.h>

#include "core/event.h"

/**
 * uffd_receive() - read the messages that are there
 * @uffd:  non-blocking; from Linux 6.10 on it is read without waiting even if the VMM takes O_NONBLOCK off meanwhile
 * @msgs:  room for @n_max; the kernel writes straight into it
 *
 * Return: the number of messages, 0 if there are none; or a negative errno with a text.
 */
int uffd_receive(int uffd, struct uffd_msg *msgs, unsigned n_max);

enum {
    _UFFD_E_SUCCESS,
    UFFD_E_UNKNOWN, /* a kind of message that nobody asked for, and that cannot be honoured */
};

/**
 * uffd_decode() - what a message means
 * @ev: kind and its arguments are set; time_ns is the caller's
 *
 * The message comes from the kernel, the addresses in it from the VMM: they may lie anywhere.
 *
 * Return: 0 or UFFD_E_UNKNOWN. A file descriptor in an unknown message (fork) is closed.
 */
int uffd_decode(const struct uffd_msg *msg, struct event *ev);

/**
 * uffd_clear() - mark a message as dealt with. Stores before it are done before it, stores after it after it, as far as
 * another process can tell that finds the memory when this one was killed
 */
void uffd_clear(struct uffd_msg *msg);

/** uffd_is_cleared() - was it? No message of the kernel looks like that */
bool uffd_is_cleared(const struct uffd_msg *msg);

/** uffd_is_fault() - is it a page fault, which whoever waits raises again when woken? */
bool uffd_is_fault(const struct uffd_msg *msg);

/** uffd_is_discard() - does this message tell that memory goes away? Those are handled before all others */
bool uffd_is_discard(const struct uffd_msg *msg);

#endif
