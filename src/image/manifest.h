/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_MANIFEST_H
#define IMAGE_MANIFEST_H

/*
 * manifest.h - where each page of an image is
 *
 * An image is the memory of a frozen guest. Its bytes are in packs: files of independent frames, each some pages that were
 * compressed together. Its manifest says of every page that it is zero, or in which frame of which pack, at which place. A
 * child's manifest names the packs of its parents itself, so nobody ever walks a chain, however long it has become.
 *
 * The file, little endian as the host; thaw-image(5) tells it to strangers:
 *
 *     struct manifest_header       128 bytes
 *     parents                      32 bytes each: ids, the nearest first
 *     struct manifest_pack         40 bytes each; the first one is the image's own, if it has one
 *     struct manifest_frame        32 bytes each, in the order of (pack, off)
 *     struct manifest_run          24 bytes each, in the order of the guest's memory
 *     struct manifest_hot          16 bytes each, in the order of the first touches
 *     sha256                       of all before it; the image's id
 *
 * A pack is its header (struct pack_header) and then its frames, back to back; what they hold only manifests know.
 *
 * Pages are 4096 bytes, whatever the guest uses. A page in no run is zero: so zeroes cost nothing, anywhere. All counts and
 * references are checked when a manifest is read (manifest_parse()); what a struct manifest says can be trusted to lie
 * within its own tables, not to be true: that is for the checksums of the frames and the sha256 of the packs.
 */

#include "base/base.h"

#define IMAGE_PAGE           4096ull
#define IMAGE_ID_BYTES       32u
#define IMAGE_ID_TEXT        (2 * IMAGE_ID_BYTES + 1) /* hexadecimal digits, and the end of the string */
#define IMAGE_BYTES_MAX      (1ull << 46)
#define MANIFEST_MAGIC       0x016e614d49776854ull /* "ThwIMan\1" */
#define MANIFEST_VERSION     1u
#define MANIFEST_PARENTS_MAX 65536u
#define MANIFEST_PACKS_MAX   65536u
#define PACK_MAGIC           0x0163615049776854ull /* "ThwIPac\1" */
#define PACK_VERSION         1u
#define FRAME_PAGES_MAX      512u /* 2 MiB: how much a frame can become */

/** enum frame_codec - how a frame is stored */
enum frame_codec {
    FRAME_STORED = 0, /* as it is */
    FRAME_LZ4 = 1,    /* one LZ4 block */
    FRAME_ZSTD = 2,   /* one zstd frame */
};

struct manifest_header {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes; /* 128 */
    uint64_t image_bytes;  /* of guest memory: a multiple of 4096, not 0, at most IMAGE_BYTES_MAX */
    uint64_t created_s;    /* seconds since 1970, below 2^63; 0: not told */
    uint32_t n_parents;
    uint32_t n_packs;
    uint32_t n_frames;
    uint32_t
        has_own_pack; /* 1: the first pack was made with this image; 0: it has no bytes of its own */
    uint64_t n_runs;
    uint64_t n_hot;
    uint8_t reserved[64]; /* 0 */
};
static_assert(sizeof(struct manifest_header) == 128, "on-disk record");

/** struct manifest_pack - a pack that has bytes of this image. No two are the same. */
struct manifest_pack {
    uint8_t sha256[IMAGE_ID_BYTES]; /* of the whole file, which is named after it */
    uint64_t bytes;                 /* length of the file */
};
static_assert(sizeof(struct manifest_pack) == 40, "on-disk record");

/** struct manifest_frame - some pages that were compressed together. Frames of a pack do not overlap. */
struct manifest_frame {
    uint32_t pack;
    uint32_t
        stored_bytes; /* in the pack; 1 to n_pages * 4096; just that when the codec is FRAME_STORED */
    uint64_t off;     /* in the pack, from its beginning */
    uint16_t n_pages;    /* 1 to FRAME_PAGES_MAX */
    uint8_t codec;       /* enum frame_codec */
    uint8_t reserved[5]; /* 0 */
    uint64_t checksum;   /* XXH3, 64 bits, of the pages, not of what is stored */
};
static_assert(sizeof(struct manifest_frame) == 32, "on-disk record");

/** struct manifest_run - pages that follow each other in the guest's memory and in a frame. Runs do not overlap. */
struct manifest_run {
    uint64_t first; /* page of the guest's memory */
    uint32_t n;     /* pages, not 0 */
    uint32_t frame;
    uint32_t index;    /* page within the frame; index + n is at most the frame's n_pages */
    uint32_t reserved; /* 0 */
};
static_assert(sizeof(struct manifest_run) == 24, "on-disk record");

/** struct manifest_hot - pages of the working set, zero or not, that follow each other in memory and in time. No two overlap. */
struct manifest_hot {
    uint64_t first;
    uint64_t n; /* not 0 */
};
static_assert(sizeof(struct manifest_hot) == 16, "on-disk record");

/** struct pack_header - the beginning of a pack */
struct pack_header {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes; /* 64 */
    uint8_t reserved[48];  /* 0 */
};
static_assert(sizeof(struct pack_header) == 64, "on-disk record");

/** struct manifest - one in memory. Whoever makes one fills it in and owns what the pointers point to (manifest_free() frees). */
struct manifest {
    uint64_t image_bytes;
    uint64_t created_s;
    bool has_own_pack;
    uint32_t n_parents;
    uint32_t n_packs;
    uint32_t n_frames;
    uint64_t n_runs;
    uint64_t n_hot;
    uint8_t (*parents)[IMAGE_ID_BYTES];
    struct manifest_pack *packs;
    struct manifest_frame *frames;
    struct manifest_run *runs;
    struct manifest_hot *hot;
    uint8_t id[IMAGE_ID_BYTES]; /* set by manifest_parse() and manifest_format() */
};

/** manifest_new() - an empty one: all pages zero. Return: 0 or -ENOMEM with a text */
int manifest_new(struct manifest **out, uint64_t image_bytes);

/** manifest_free() - @m: (take) may be NULL. Return: NULL */
struct manifest *manifest_free(struct manifest *m);

/**
 * manifest_parse() - from the bytes of a file, at any address; everything in them is checked
 * @out:   (give); none of its tables is NULL, also when there is nothing in it
 * @name:  what the text of an error calls it
 *
 * Return: 0 or a negative errno with a text that says what is wrong at which offset.
 */
int manifest_parse(struct manifest **out, const char *name, const void *bytes, size_t len);

/**
 * manifest_format() - the bytes of a file; sets @m->id
 * @bytes:  (give) to be freed
 *
 * Return: 0 or -ENOMEM with a text
 */
int manifest_format(struct manifest *m, void **bytes, size_t *len);

/**
 * manifest_find() - the run that holds a page, or the first one after it
 * Return: its number, @m->n_runs if there is none. Takes as long as the logarithm of the number of runs.
 */
uint64_t manifest_find(const struct manifest *m, uint64_t page);

/** image_id_is_text() - is @text what image_id_text() makes? */
bool image_id_is_text(const char *text);

/** image_id_text() - hexadecimal digits, into @buf. Return: @buf */
const char *image_id_text(const uint8_t id[IMAGE_ID_BYTES], char buf[IMAGE_ID_TEXT]);

DEFINE_CLEANUP(struct manifest *, manifest_free);

#endif
