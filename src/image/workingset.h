/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_WORKINGSET_H
#define IMAGE_WORKINGSET_H

/*
 * workingset.h - which parts of a snapshot a guest touched first, in which order
 *
 * A working set is recorded while a restored guest runs for a while, and replayed before or while another one does. It
 * speaks of offsets in the memory file, not of page numbers: it holds for guests with other pages and other regions.
 *
 * The file, little endian as the host; thaw-workingset(5) tells it to strangers:
 *
 *     struct workingset_header     64 bytes
 *     entries                      8 bytes each, in the order of the first touches
 *
 *     an entry:  bits 0..47   which unit of the memory file: offset >> unit_shift
 *                bits 48..55  time class, 0..63: 0 within the first millisecond, k before 2^k ms
 *                bit  56      the first access was a write
 *                others       0
 *
 * No unit occurs twice, none is beyond the memory file, and nothing comes after the last entry. All of that is checked
 * when a file is read (workingset_file.c), so a struct workingset can be trusted; and what is written can be read.
 */

#include "base/base.h"

#define WORKINGSET_MAGIC        0x6b6c427357685401ull /* "\1ThWsBlk" */
#define WORKINGSET_VERSION      1u
#define WORKINGSET_ENTRIES_MAX  (1ull << 28) /* 1 TiB in units of 4 KiB; the file has 2 GiB */
#define WORKINGSET_TIME_CLASSES 64u

/** struct workingset_header - the beginning of the file */
struct workingset_header {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes; /* 64 */
    uint32_t unit_shift;   /* 12 or 21 */
    uint32_t flags;        /* bit 0: the window came to its end, see struct workingset */
    uint64_t
        image_bytes; /* size of the memory file, a multiple of the unit, not 0, less than 2^63 */
    uint64_t n_entries;
    uint64_t window_ns;
    uint64_t checksum; /* XXH3, 64 bits, of the header with 0 here, then the entries */
    uint64_t reserved; /* 0 */
};
static_assert(sizeof(struct workingset_header) == 64, "on-disk record");

/** struct workingset_entry - one unit of the memory file */
struct workingset_entry {
    uint64_t unit;      /* below image_bytes >> unit_shift */
    uint8_t time_class; /* below WORKINGSET_TIME_CLASSES */
    bool write;
};

/** struct workingset - one in memory */
struct workingset {
    unsigned unit_shift; /* 12 or 21 */
    uint64_t image_bytes;
    uint64_t window_ns; /* how long was recorded */
    bool complete;      /* the window came to its end: the guest was ready, or the time was up */
    struct workingset_entry *entries; /* owned */
    size_t n;
    size_t room;
};

/**
 * workingset_new() - an empty one
 * @out:          (give)
 * @unit_shift:   12 or 21
 * @image_bytes:  of the memory file: a multiple of the unit, not 0, less than 2^63
 *
 * Return: 0 or -ENOMEM with a text
 */
int workingset_new(struct workingset **out, unsigned unit_shift, uint64_t image_bytes);

/** workingset_free() - Return: NULL */
struct workingset *workingset_free(struct workingset *ws);

/** workingset_reserve() - room for @n entries, which are then added without an allocation. Return: 0 or -ENOMEM with a text */
int workingset_reserve(struct workingset *ws, size_t n);

/** workingset_add() - append an entry whose unit is not in it. Return: 0 or -ENOMEM with a text */
int workingset_add(struct workingset *ws, const struct workingset_entry *entry);

/** workingset_time_class() - the class of a touch @since_start_ns after the beginning */
uint8_t workingset_time_class(uint64_t since_start_ns);

/**
 * workingset_parse() - from the bytes of a file, at any address; everything in them is checked
 * @out:   (give)
 * @name:  what the text of an error calls it
 *
 * Return: 0 or a negative errno with a text that says what is wrong at which offset.
 */
int workingset_parse(struct workingset **out, const char *name, const void *bytes, size_t len);

/** workingset_read() - the same, from a file */
int workingset_read(struct workingset **out, const char *path);

/**
 * workingset_format() - the bytes of a file
 * @bytes:  (give) to be freed
 *
 * Return: 0 or -ENOMEM with a text, or -EFBIG with one: more than WORKINGSET_ENTRIES_MAX
 */
int workingset_format(const struct workingset *ws, void **bytes, size_t *len);

/** workingset_write() - into a file, durable, whole or not at all. Return: 0 or a negative errno with a text */
int workingset_write(const struct workingset *ws, const char *path);

/** workingset_write_in() - the same by a confined process: @folder: (borrow) the folder of @path, as folder_open() has it */
int workingset_write_in(const struct workingset *ws, const char *path, int folder);

/** enum workingset_rule - how two become one */
enum workingset_rule {
    WORKINGSET_UNION, /* what is in any; the order is the first one's, what only others have comes after it */
    WORKINGSET_INTERSECTION, /* what is in all; the order is the first one's */
};

/**
 * workingset_merge() - one of several, which must be about memory files of one size and in one unit
 * @out:     (give) a write in any is a write; the time class is the earliest; complete if all are; the longest window
 * @n_sets:  at least 1
 *
 * Return: 0 or a negative errno with a text that counts the sets from 1.
 */
int workingset_merge(struct workingset **out, const struct workingset *const *sets, unsigned n_sets,
                     enum workingset_rule rule);

/** struct workingset_stat - what can be said of one in numbers */
struct workingset_stat {
    uint64_t bytes;
    uint64_t n_writes;
    uint64_t n_runs;      /* of neighbours, in the order of the memory file */
    uint64_t longest_run; /* 0 if there is none */
    uint64_t median_run;  /* the longer one of two in the middle; 0 if there is none */
    uint64_t n_ordered;   /* entries that come right after their predecessor in the memory file */
    uint64_t by_time_class[WORKINGSET_TIME_CLASSES];
};

/** workingset_stat() - Return: 0 or -ENOMEM with a text */
int workingset_stat(const struct workingset *ws, struct workingset_stat *out);

DEFINE_CLEANUP(struct workingset *, workingset_free);

#endif
