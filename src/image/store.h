/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_STORE_H
#define IMAGE_STORE_H

/*
 * store.h - a folder of images
 *
 *     names/NAME          the id of an image, hexadecimal digits and a line end
 *     manifests/ID        named after the sha256 of what it holds (but its last 32 bytes, which say it)
 *     packs/ID            named after its sha256
 *     tmp/                what is being made; anything here that nobody holds locked is rubbish
 *     lock                see below
 *
 * Files are made in tmp/, synced, renamed to where they belong, and then the folder is synced: first packs, then the
 * manifest that names them, then the name. So a name always leads to a whole image, whenever the power goes; and what is
 * acknowledged has been synced. Nothing is ever changed in place.
 *
 * flock(2): who makes an image holds `lock` shared from before it looks for the first pack to keep until its name is there; gc
 * holds it exclusively. Who serves an image or makes a child of it holds its manifest shared; who removes it, exclusively.
 */

#include "image/manifest.h"

#define STORE_NAME_MAX 128u /* letters, digits, '.', '_', '-', not beginning with '.' or '-' */

struct store;

/** store_open() - @create: make what is not there. Return: 0 or a negative errno with a text */
int store_open(struct store **out, const char *path, bool create);

/** store_close() - @s: (take) may be NULL. Return: NULL */
struct store *store_close(struct store *s);

/** struct image - an image that is open: it stays whole for as long as it is, whatever is removed */
struct image {
    char *name; /* as it was asked for */
    struct manifest *manifest;
    int manifest_fd; /* holds the shared lock */
    int *pack_fds;   /* as many as the manifest has packs; read only */
    char **pack_names; /* the same, for messages */
};

/**
 * image_open() - by its name, or by its id or the first digits of it if they are enough
 * @out: (give)
 *
 * Return: 0 or a negative errno with a text: -ENOENT if there is none
 */
int image_open(struct image **out, struct store *store, const char *name);

/** image_close() - @img: (take) may be NULL. Return: NULL */
struct image *image_close(struct image *img);

DEFINE_CLEANUP(struct store *, store_close);
DEFINE_CLEANUP(struct image *, image_close);

#endif
