/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOURCE_SOURCE_H
#define SOURCE_SOURCE_H

/*
 * source.h - the gate before every page source
 *
 * Nobody calls an op of struct thaw_source_ops but the functions here: they hold the caller to its duties (asserted, it
 * is our own code) and the source to its own (checked, it may be somebody else's: a wrong answer is an error).
 */

#include <thaw/source.h>

#include "base/base.h"

struct source;

/**
 * source_new() - wrap an ops table
 * @out:        (give)
 * @ops:        (borrow until source_free()) constant
 * @self:       (take on success)
 * @size_bytes: how much the source serves
 *
 * Return: 0 or -ENOMEM, -EINVAL with a text.
 */
int source_new(struct source **out, const struct thaw_source_ops *ops, void *self,
               uint64_t size_bytes);

/** source_free() - @s: (take) may be NULL. Return: NULL */
struct source *source_free(struct source *s);

/** source_size_bytes() - constant for the source's life */
uint64_t source_size_bytes(const struct source *s);

/**
 * source_locate() - where the page at @off is, and how far around it the same holds
 * @out: set on success; contains the page at @off, lies within [@lo, @hi), ends on page boundaries
 *
 * @lo <= @off < @hi <= size, all multiples of @page_bytes.
 *
 * Context: the pager thread; does not block on storage.
 * Return: 0 or a negative errno with a text: the bytes cannot be had.
 */
int source_locate(struct source *s, struct thaw_extent *out, imgoff_t off, imgoff_t lo, imgoff_t hi,
                  uint64_t page_bytes);

/**
 * source_fetch() - bring [@lo, @hi) into memory
 *
 * Context: a worker thread, several at once; may block.
 * Return: 0 or a negative errno with a text (of the worker's thread).
 */
int source_fetch(struct source *s, imgoff_t lo, imgoff_t hi);

/** source_expect() - [@lo, @hi), as far as there is so much, will be asked for soon; before there is a VM */
void source_expect(struct source *s, imgoff_t lo, imgoff_t hi);

/** source_trims() - does the source drop anything then? */
bool source_trims(const struct source *s);

/** source_trim() - no extent is in use: the source can drop what it does not need. Pager thread; does not block */
void source_trim(struct source *s);

DEFINE_CLEANUP(struct source *, source_free);

#endif
