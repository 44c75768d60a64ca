/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOURCE_SHARE_H
#define SOURCE_SHARE_H

/*
 * share.h - decompressed pages that all pagers of an image on a host have in common
 *
 *     filler    one process for each image (source/filler.h): owns a file in memory that is as large as the guest's memory, and
 *               another one with a bit for each page of it. Nobody else can write to them
 *     pagers    have both mapped for reading, find there what any of them has asked for before, and ask for more
 *
 * A pager that has no others beside it decompresses for itself: to ask takes longer. What it finds is used all the same.
 *
 * They talk through a unix socket, in messages: the filler says hello, with both files; then a pager asks for a frame and has
 * the answer, one at a time on each connection. A bit is set after the bytes that it stands for.
 *
 * Nothing is ever taken out of the file: so no page vanishes under a pager that copies from it, and its addresses last. When
 * there is as much in it as there may be, the filler says so, and pagers decompress the rest for themselves; so they do when
 * it is dead, or does not answer within SHARE_WAIT_MS. What it has filled in stays for as long as a pager has it mapped.
 *
 * The socket's name is abstract: it is gone with the process, and only one can have it. Its name has the user in it, and each
 * side makes sure that the other one is of the same user: who can be a pager's filler can serve it any bytes.
 */

#include <sys/socket.h>
#include <sys/un.h>

#include "image/manifest.h"

#define SHARE_CONNECTIONS 9u
#define SHARE_WAIT_MS     2000u
#define SHARE_MAGIC       0x016c694649776854ull /* "ThwIFil\1" */

/** struct share_hello - the filler's first message; with it the memory's file and the bits' */
struct share_hello {
    uint64_t magic;
    uint64_t image_bytes;
    uint8_t id[IMAGE_ID_BYTES];
};

/** struct share_request - have a frame there */
struct share_request {
    uint64_t tag; /* comes back with the answer */
    uint32_t frame;
    uint32_t reserved; /* 0 */
};

/** enum share_answer - what became of it */
enum share_answer {
    SHARE_THERE,
    SHARE_FULL,
    SHARE_FAILED, /* the pager is to see for itself what is wrong */
};

struct share_reply {
    uint64_t tag;
    uint32_t answer; /* enum share_answer */
    uint32_t reserved;
};

/** share_address() - the socket of an image's filler. Return: the address's length */
socklen_t share_address(struct sockaddr_un *addr, const uint8_t id[IMAGE_ID_BYTES]);

/** share_bits_words() - how many words the bits are; in the file one more comes after them: how many connections there are */
uint64_t share_bits_words(uint64_t image_bytes);

struct share;

enum {
    _SHARE_E_SUCCESS,
    SHARE_E_NOBODY, /* there is no filler, or it is going away */
};

/**
 * share_join() - connect to the filler of an image
 * @out: (give)
 *
 * Context: opens sockets and maps files; before the process is confined. Waits for the filler, SHARE_WAIT_MS at most.
 * Return: 0, SHARE_E_NOBODY, or a negative errno with a text.
 */
int share_join(struct share **out, const struct manifest *m);

/** share_free() - @s: (take) may be NULL. Return: NULL */
struct share *share_free(struct share *s);

/** share_has() - is page @page there? Then it stays */
bool share_has(const struct share *s, uint64_t page);

/** share_page() - its address, for the kernel to read from */
const void *share_page(const struct share *s, uint64_t page);

/** share_is_worth_it() - are there other pagers? */
bool share_is_worth_it(const struct share *s);

/**
 * share_ask() - have a frame there
 * @connection: below SHARE_CONNECTIONS; one thread at a time
 *
 * Context: a thread that blocks SIGPIPE, or a process that ignores it. Waits for the filler, and that for storage.
 * Return: is it there?
 */
bool share_ask(struct share *s, unsigned connection, uint32_t frame);

DEFINE_CLEANUP(struct share *, share_free);

#endif
