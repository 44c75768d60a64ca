/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOURCE_ARENA_H
#define SOURCE_ARENA_H

/* arena.h - an image's pages, decompressed, in the order of the guest's memory; as many as a bound allows */

#include "image/store.h"
#include "source/share.h"

/* What the last so many fetches brought is never dropped, whatever the bound: as many as can be under way or be done and
 * not looked at yet. */
#define ARENA_KEEPS 96u

struct arena;

/** struct arena_options - where the pages are, and how many */
struct arena_options {
    uint64_t
        cache_bytes; /* so many bytes are kept, unless the last ARENA_KEEPS fetches brought more */
    struct share *share; /* (take on success) pages that others have too; NULL: none */
    void *
        memory; /* (borrow until arena_free()) zeroes, as long as the image; NULL: memory of its own */
    uint64_t *there; /* with it: zeroes, as many words as share_bits_words() says */
};

/**
 * arena_new() - an empty one
 * @out:   (give)
 * @image: (borrow until arena_free())
 *
 * Return: 0 or a negative errno with a text.
 */
int arena_new(struct arena **out, const struct image *image, const struct arena_options *o);

/** arena_free() - @a: (take) may be NULL. Return: NULL */
struct arena *arena_free(struct arena *a);

/**
 * arena_find() - is page @page there? Then it stays until arena_trim(). Does not wait
 * @first, @end: set if it is: the pages around it, within [@lo, @hi), that follow each other in memory
 *
 * Return: where page *@first is, or NULL
 */
const void *arena_find(const struct arena *a, uint64_t page, uint64_t lo, uint64_t hi,
                       uint64_t *first, uint64_t *end);

/** arena_page() - where page @page is when nothing is shared, whether it is there or not; what is in no run is zero */
const void *arena_page(const struct arena *a, uint64_t page);

/**
 * arena_stand_alone() - pages of several frames must be beside each other: what is shared is not used, from the first fetch on
 *
 * Context: before that; or again.
 */
void arena_stand_alone(struct arena *a);

/**
 * arena_fetch() - have pages [@first, @end) there, as far as the image has them, and what their frames have besides
 *
 * Context: a worker thread, several at once; waits for storage.
 * Return: 0 or a negative errno with a text.
 */
int arena_fetch(struct arena *a, uint64_t first, uint64_t end);

/**
 * arena_bring() - the same of one frame, if there is room
 * @bytes_max: about as much may be there
 *
 * Return: 0; 1: there is no room; or a negative errno with a text.
 */
int arena_bring(struct arena *a, uint32_t frame, uint64_t bytes_max);

/** arena_trim() - drop what is more than the bound. Pager thread, when it uses nothing that is there; does not wait */
void arena_trim(struct arena *a);

DEFINE_CLEANUP(struct arena *, arena_free);

#endif
