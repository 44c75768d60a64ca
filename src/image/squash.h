/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_SQUASH_H
#define IMAGE_SQUASH_H

/*
 * squash.h - a layer on an older parent: what lies between is taken in
 *
 * Layers made one on top of the other keep all that any of them had: an image cannot be removed while another one has it as a
 * parent, and of a pack that is hardly needed any more everything stays. So from time to time a layer is made on the ancestor from
 * which it all began. It has what has changed since then, once, and needs nothing of the images between, which can go.
 *
 *     base <- image <- image <- served image <- new layer        what a source says is relative to the served image
 *     base <- new layer                                          what this source says is relative to the base
 *
 * A page that is the served image's becomes the base's where both mean the same place of the same pack; zero where the served
 * image has none; and bytes to be stored, read out of the served image, everywhere else. What the packer finds equal to the
 * base's page after all is not stored.
 */

#include "image/page_source.h"
#include "image/store.h"

/** struct squash_cost - what the layers between two images hold */
struct squash_cost {
    unsigned n_layers;   /* images from the base, without it, to the other one, with it */
    uint64_t pack_bytes; /* of the packs that the base does not have */
    uint64_t
        needed_bytes; /* of those, what is still needed of them; a frame that is needed in part counts in part */
};

/** squash_cost() - of @img, which has @base among its parents or is it */
struct squash_cost squash_cost(const struct image *img, const struct image *base);

struct squash;

/**
 * squash_new() - a source of pages relative to @base, made of one that is relative to @served
 * @out:    (give)
 * @inner:  (borrow until squash_free())
 * @served: (borrow until squash_free()) of the same size as the others
 * @base:   (borrow until squash_free())
 * @n_readers: how many threads will read at the same time
 *
 * Return: 0 or a negative errno with a text
 */
int squash_new(struct squash **out, const struct page_source *inner, const struct image *served,
               const struct image *base, unsigned n_readers);

/** squash_free() - @s: (take) may be NULL. Return: NULL */
struct squash *squash_free(struct squash *s);

/** squash_source() - to be packed with the base as its parent. @s: (borrow) as long as the source is used */
struct page_source squash_source(struct squash *s);

DEFINE_CLEANUP(struct squash *, squash_free);

#endif
