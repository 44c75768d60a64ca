/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_HANDSHAKE_H
#define PAGER_HANDSHAKE_H

/*
 * handshake.h - a VMM connects and hands over its memory
 *
 * The protocol is Firecracker's. The pager listens on a unix stream socket; the VMM connects, sends one JSON array of its
 * regions (pager/regions_json.h) and with it, as SCM_RIGHTS, one file descriptor: the userfaultfd on which it has
 * registered them. Nothing else is sent, in either direction. There is no length and no terminator: the message ends where
 * the array ends.
 *
 * Nothing that arrives is trusted. The text may come in pieces, the descriptor with any of them.
 */

#include "core/geom.h"
#include "pager/control.h"
#include "pager/peer.h"

/** struct handshake_options - what is acceptable */
struct handshake_options {
    uint64_t page_bytes;   /* 0: what the VMM says; else it must say the same or nothing */
    uint64_t memory_bytes; /* size of the memory file */
    unsigned timeout_ms;   /* from the connection to the end of the message */
    const uid_t *allow_uids;
    unsigned n_allow_uids; /* 0: root and our own */
};

/** struct handshake - a VMM's memory, checked */
struct handshake {
    struct peer peer;
    int uffd; /* owned, -1: none */
    bool
        given; /* the VMM gave its memory away, or may have: if it cannot be served it must be stopped */
    int socket; /* owned, -1: none; stays open: a VMM may look at it to see whether we live */
    struct geom_region *regions; /* owned; geom looks into it */
    struct geom geom;
};

#define HANDSHAKE_NONE                              \
    {                                               \
        .peer = PEER_NONE, .uffd = -1, .socket = -1 \
    }

enum {
    _HANDSHAKE_E_SUCCESS,
    HANDSHAKE_E_STOPPED, /* somebody asked the pager to stop */
};

/** handshake_listen() - create the socket. Return: its fd (give), or a negative errno with a text */
int handshake_listen(const char *path);

/**
 * handshake_accept() - wait for the VMM, take its handshake
 * @out:      (give) handshake_deinit() it. On failure out->given tells whether the VMM had given us its memory already: then
 *            it is waiting for pages that nobody will bring, and must be stopped
 * @listener: (borrow)
 * @control:  (borrow) ends the wait when a stop is asked for
 *
 * Return: 0, HANDSHAKE_E_STOPPED, or a negative errno with a text.
 */
int handshake_accept(struct handshake *out, int listener, struct control *control,
                     const struct handshake_options *opts);

/** handshake_deinit() - close and free everything in it */
void handshake_deinit(struct handshake *h);

#endif
