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
 * Who changes a name holds the folder `names` exclusively, for a moment.
 */

#include "image/manifest.h"

#define STORE_NAME_MAX 128u /* letters, digits, '.', '_', '-', not beginning with '.' or '-' */

struct store;

/** store_open() - @create: make what is not there. Return: 0 or a negative errno with a text */
int store_open(struct store **out, const char *path, bool create);

/** store_close() - and let go of its lock. @s: (take) may be NULL. Return: NULL */
struct store *store_close(struct store *s);

/** store_check_name() - may an image be called so? Return: 0 or -EINVAL with a text */
int store_check_name(const char *name);

/** struct image - an image that is open: it stays whole for as long as it is, whatever is removed */
struct image {
    char *name; /* as it was asked for */
    struct manifest *manifest;
    int manifest_fd;   /* holds the shared lock */
    int *pack_fds;     /* as many as the manifest has packs; read only */
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

/**
 * store_read_manifest() - an image's manifest, by its id, and without its packs
 * @out: (give)
 * @fd:  (give) holds the shared lock; NULL: nothing is locked
 *
 * Return: 0 or a negative errno with a text: -ENOENT if there is none.
 */
int store_read_manifest(struct store *s, const uint8_t id[IMAGE_ID_BYTES], struct manifest **out,
                        int *fd);

/** store_find() - the id of an image, as image_open() finds it. Return: 0; -ENOENT and others with a text */
int store_find(struct store *s, const char *name, uint8_t id[IMAGE_ID_BYTES]);

/**
 * store_open_pack() - a pack, whose length and beginning are right
 * @fd:   (give) read only; -1, or open all the same, on an error
 * @name: (give) for messages; NULL if there was no memory for it
 *
 * Return: 0 or a negative errno with a text: -EIO if it is not what it should be
 */
int store_open_pack(struct store *s, const struct manifest_pack *pack, int *fd, char **name);

/** struct store_entry - an image of the store */
struct store_entry {
    char *name; /* NULL: no name leads to it */
    uint8_t id[IMAGE_ID_BYTES];
};

/** struct store_list - all of them */
struct store_list {
    struct store_entry *entries; /* by name, then those without one by id */
    size_t n;
};

/** store_list() - what is there. @out: (give) store_list_deinit() it. Return: 0 or a negative errno with a text */
int store_list(struct store *s, struct store_list *out);

void store_list_deinit(struct store_list *list);

/** store_find_name() - the id that a name leads to. Return: 0; -ENOENT and others with a text */
int store_find_name(struct store *s, const char *name, uint8_t id[IMAGE_ID_BYTES]);

/* ---- making (store_write.c) ---- */

/** store_hold() - keep gc away until store_close(); waits for one that runs. Return: 0 or a negative errno with a text */
int store_hold(struct store *s);

/** struct store_file - a file that is being made in tmp/ */
struct store_file {
    struct store *store; /* (borrow) */
    int fd;
    char name[24]; /* in tmp/; "": it is not there any more */
};

/** store_file_init() - @f: (give) store_file_deinit() it. Return: 0 or a negative errno with a text */
int store_file_init(struct store_file *f, struct store *s);

/** store_file_deinit() - close it; it goes away unless it was put somewhere */
void store_file_deinit(struct store_file *f);

/**
 * store_put_pack() - a pack that is written is synced and gets its place; one that is there already is kept
 * @bytes: its length
 *
 * Return: 0 or a negative errno with a text
 */
int store_put_pack(struct store_file *f, const uint8_t id[IMAGE_ID_BYTES], uint64_t bytes);

/**
 * store_put_manifest() - the same with a manifest, whose packs are there
 * @m:  its id is set
 * @fd: (give) holds its shared lock, to be kept until a name leads to it
 */
int store_put_manifest(struct store *s, struct manifest *m, int *fd);

/** store_put_name() - a name leads to an image. Return: 0; -EEXIST if it is there, and not @replace; others; with a text */
int store_put_name(struct store *s, const char *name, const uint8_t id[IMAGE_ID_BYTES],
                   bool replace);

/* ---- removing (store_gc.c) ---- */

/**
 * store_remove() - a name goes away, and its image if no other name leads to it; the packs are left to store_gc()
 *
 * Return: 0; -ENOENT; -EBUSY: another image needs it, or it is in use; others; with a text
 */
int store_remove(struct store *s, const char *name);

/**
 * store_forget_name() - a name goes away, and nothing else: its image is left to store_gc(), which keeps it as long as anybody
 * needs it. A name that is not there is no error
 *
 * Return: 0 or a negative errno with a text
 */
int store_forget_name(struct store *s, const char *name);

/** struct store_freed - what store_gc() removed: how many, and their bytes */
struct store_freed {
    uint64_t n_manifests, manifest_bytes;
    uint64_t n_packs, pack_bytes;
    uint64_t n_temps, temp_bytes;
    uint64_t n_in_use; /* images without a name that stay because somebody has them open */
};

/**
 * store_gc() - remove what nobody needs
 * @dry_run: only count it
 *
 * An image is needed if a name leads to it, if it is in use, or if an image that is needed has it as a parent; a pack if
 * an image that is there has it. If a manifest cannot be read nothing is removed: nobody knows which packs it needs.
 *
 * Return: 0; -EBUSY: somebody is making an image; others; with a text
 */
int store_gc(struct store *s, bool dry_run, struct store_freed *out);

DEFINE_CLEANUP(struct store *, store_close);
DEFINE_CLEANUP(struct image *, image_close);

#endif
