/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_IMAGE_INSPECT_H
#define CLI_IMAGE_INSPECT_H

/* inspect.h - what is known of an image, and how it is said */

#include "cli/map/picture_caption.h"
#include "image/image_stat.h"
#include "image/store.h"

/** struct relative - an image that this one comes from, or itself */
struct relative {
    uint8_t id[IMAGE_ID_BYTES];
    char *name; /* owned; NULL: no name leads to it */
};

/** struct inspection - an image, and whose the packs are that it needs */
struct inspection {
    const char *asked; /* (borrow) what it was asked for as */
    struct manifest *manifest;
    struct image_stat stat;
    struct relative *relatives; /* owned: itself, then its parents, the nearest first */
    uint32_t *makers; /* owned: of each pack which of the relatives made it, NO_MAKER: not known */
};

#define NO_MAKER UINT32_MAX

/** inspect_init() - find out. @x: (give) inspect_deinit() it. Return: 0 or a negative errno with a text */
int inspect_init(struct inspection *x, struct store *store, const char *asked);

void inspect_deinit(struct inspection *x);

/** inspect_print() - for people */
void inspect_print(const struct inspection *x);

/** inspect_print_json() - one object. Return: 0 or -1: it could not be written */
int inspect_print_json(const struct inspection *x);

/** inspect_caption() - the words above a picture */
void inspect_caption(struct caption *c, const struct inspection *x, const struct picture *p);

#endif
