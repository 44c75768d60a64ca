/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_FC_PLAYER_H
#define UNIT_FC_PLAYER_H

/*
 * fc_player.h - a server on a unix socket that plays answers, byte for byte as they were written down, and keeps what it was
 * asked
 *
 * It knows no HTTP but where a request ends; "Content-Length: *" gets the length of what follows the head. One thread, one connection at a time; ended by player_stop().
 */

#include <pthread.h>

#include "testing.h"

#define PLAYER_REQUESTS 16
#define PLAYER_BYTES    4096 /* that are kept of a request */

enum play {
    PLAY_KEEP,  /* answer, wait for the next request */
    PLAY_BYTES, /* the same, byte by byte */
    PLAY_CLOSE, /* answer, close */
    PLAY_HANG,  /* nothing, until the other side closes */
    PLAY_FULL,  /* answer a connection instead of a request, close */
};

/** struct scene - one request's answer */
struct scene {
    const char *answer;
    enum play play;
};

/** struct player - the server */
struct player {
    char dir[64];
    char path[512]; /* of the socket */
    int listener;
    pthread_t thread;
    bool runs;
    const struct scene *scenes; /* (borrow) */
    unsigned n_scenes;
    _Atomic unsigned n_closed; /* connections, by the player */
    /* constant once player_stop() has returned */
    unsigned n_requests;
    unsigned n_connections;
    char requests[PLAYER_REQUESTS][PLAYER_BYTES];
};

/** player_init() - a folder, and a path in it: with @deep so deep that no socket's address has room for it */
void player_init(struct player *p, bool deep);

/** player_start() - listen, play @scenes one after the other and then close whatever comes */
void player_start(struct player *p, const struct scene *scenes, unsigned n_scenes);

/** player_stop() - end the thread; the socket stays behind, stale */
void player_stop(struct player *p);

/** player_deinit() - the same, and remove what it has made */
void player_deinit(struct player *p);

#endif
