/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOURCE_ARENA_H
#define SOURCE_ARENA_H

/* arena.h - an image's pages, decompressed, in the order of the guest's memory; as many as a bound allows */

#include "image/store.h"

/* What the last so many fetches brought is never dropped, whatever the bound: as many as can be under way or be done and
 * not looked at yet. */
#define ARENA_KEEPS 96u

struct arena;

/**
 * arena_new() - an empty one
 * @out:         (give)
 * @image:       (borrow until arena_free())
 * @cache_bytes: so many bytes are kept, unless the last ARENA_KEEPS fetches brought more
 *
 * Return: 0 or a negative errno with a text.
 */
int arena_new(struct arena **out, const struct image *image, uint64_t cache_bytes);

/** arena_free() - @a: (take) may be NULL. Return: NULL */
struct arena *arena_free(struct arena *a);

/** arena_has() - is page @page there? Then it stays until arena_trim(). Does not wait */
bool arena_has(const struct arena *a, uint64_t page);

/** arena_page() - where page @page is, if it is there; pages that follow each other do so there too */
const void *arena_page(const struct arena *a, uint64_t page);

/**
 * arena_fetch() - have pages [@first, @end) there, as far as the image has them, and what their frames have besides
 *
 * Context: a worker thread, several at once; waits for storage.
 * Return: 0 or a negative errno with a text.
 */
int arena_fetch(struct arena *a, uint64_t first, uint64_t end);

/** arena_trim() - drop what is more than the bound. Pager thread, when it uses nothing that is there; does not wait */
void arena_trim(struct arena *a);

DEFINE_CLEANUP(struct arena *, arena_free);

#endif
