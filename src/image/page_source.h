/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_PAGE_SOURCE_H
#define IMAGE_PAGE_SOURCE_H

/*
 * page_source.h - where the pages of a new image come from
 *
 * Whoever packs asks a source three things, in this order: what it knows of each page without reading it; the bytes of those
 * that must be read; and in the end whether all of it is still true. Sources are a memory file (memory_file.h), a file of what
 * changed (diff_file.h) and the memory of a VM that runs.
 */

#include "image/manifest.h"

/** enum page_kind - what becomes of a page */
enum page_kind {
    KIND_HOLE = 0, /* zero, and not even read */
    KIND_DATA,     /* its bytes must be read */
    KIND_ZERO,     /* zero */
    KIND_PARENT,   /* its bytes are the parent's */
    KIND_OWN,      /* to be stored */
    KIND_HOT,      /* to be stored, in the working set's order */
};

/** struct page_source - one that is open */
struct page_source {
    const char *name;   /* (borrow) for messages */
    uint64_t bytes;     /* a multiple of 4096, not 0, at most IMAGE_BYTES_MAX */
    uint64_t created_s; /* how old the memory is, in seconds since 1970; 0: not known */
    /*
     * What is known of each page: KIND_HOLE, KIND_DATA, or, if there is a parent, KIND_PARENT.
     * @kinds: a byte for each page, all KIND_HOLE. Context: one thread
     */
    int (*look)(void *ctx, uint8_t *kinds);
    /* All @len bytes at @off, whole pages that are KIND_DATA. Context: any thread, several at a time */
    int (*read)(void *ctx, void *buf, size_t len, uint64_t off);
    /* Is it still as it was? Context: one thread */
    int (*check)(void *ctx);
    /*
     * NULL, or: the parent's bytes of a page, for who has to know whether one that became KIND_DATA since is still that. Context: one
     * thread, not beside read()
     */
    int (*read_parent)(void *ctx, void *page, uint64_t number);
    /* All of these return 0 or a negative errno with a text. */
    void *ctx;
};

#endif
