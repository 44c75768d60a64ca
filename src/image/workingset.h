/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_WORKINGSET_H
#define IMAGE_WORKINGSET_H

/*
 * workingset.h - which parts of a snapshot a guest touched first, in which order
 *
 * A working set is recorded while a restored guest runs for a while, and replayed before or while another one does. It
 * speaks of offsets in the memory file, not of page numbers: it holds for guests with other pages and other regions.
 *
 * The file, little endian as the host:
 *
 *     struct workingset_header     64 bytes
 *     entries                      8 bytes each, in the order of the first touches
 *
 *     an entry:  bits 0..47   which unit of the memory file: offset >> unit_shift
 *                bits 48..55  time class: 0 within the first millisecond, k before 2^k ms
 *                bit  56      the first access was a write
 *                others       0
 *
 * No unit occurs twice. Everything is checked when a file is read.
 */

#include "base/base.h"

#define WORKINGSET_MAGIC   0x6b6c427357685401ull /* "\1ThWsBlk" */
#define WORKINGSET_VERSION 1u

/** struct workingset_header - the beginning of the file */
struct workingset_header {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes; /* 64 */
    uint32_t unit_shift;   /* 12 or 21 */
    uint32_t flags;        /* bit 0: the window came to its end, see struct workingset */
    uint64_t image_bytes;  /* size of the memory file, a multiple of the unit */
    uint64_t n_entries;
    uint64_t window_ns;
    uint64_t checksum; /* XXH3, 64 bits, of the header with 0 here, then the entries */
    uint64_t reserved; /* 0 */
};
static_assert(sizeof(struct workingset_header) == 64, "on-disk record");

/** struct workingset_entry - one unit of the memory file */
struct workingset_entry {
    uint64_t unit;
    uint8_t time_class;
    bool write;
};

/** struct workingset - one in memory */
struct workingset {
    unsigned unit_shift;
    uint64_t image_bytes;
    uint64_t window_ns; /* how long was recorded */
    bool complete;      /* the window came to its end: the guest was ready, or the time was up */
    struct workingset_entry *entries; /* owned */
    size_t n;
    size_t room;
};

/** workingset_new() - an empty one. @out: (give). Return: 0 or -ENOMEM with a text */
int workingset_new(struct workingset **out, unsigned unit_shift, uint64_t image_bytes);

/** workingset_free() - Return: NULL */
struct workingset *workingset_free(struct workingset *ws);

/** workingset_add() - append an entry, which is not in it. Return: 0 or -ENOMEM with a text */
int workingset_add(struct workingset *ws, const struct workingset_entry *entry);

/** workingset_time_class() - the class of a touch @since_start_ns after the beginning */
uint8_t workingset_time_class(uint64_t since_start_ns);

/**
 * workingset_read() - from a file; everything in it is checked
 * @out: (give)
 *
 * Return: 0 or a negative errno with a text that names @path and what is wrong where.
 */
int workingset_read(struct workingset **out, const char *path);

/** workingset_write() - into a file, whole or not at all. Return: 0 or a negative errno with a text */
int workingset_write(const struct workingset *ws, const char *path);

/** enum workingset_rule - how two become one */
enum workingset_rule {
    WORKINGSET_UNION, /* what is in any; the order is the first one's, what only others have comes after it */
    WORKINGSET_INTERSECTION, /* what is in all; the order is the first one's */
};

/**
 * workingset_merge() - one of several, which must be about memory files of one size and in one unit
 * @out: (give) a write in any is a write; the time class is the earliest
 *
 * Return: 0 or a negative errno with a text.
 */
int workingset_merge(struct workingset **out, const struct workingset *const *sets, unsigned n_sets,
                     enum workingset_rule rule);

/** struct workingset_stat - what can be said of one in numbers */
struct workingset_stat {
    uint64_t bytes;
    uint64_t n_writes;
    uint64_t n_runs; /* of neighbours, in the order of the file */
    uint64_t longest_run;
    uint64_t median_run;
    uint64_t n_ordered; /* entries whose predecessor in time is their predecessor in the file */
    uint64_t by_time_class[64];
};

/** workingset_stat() - Return: 0 or -ENOMEM with a text */
int workingset_stat(const struct workingset *ws, struct workingset_stat *out);

DEFINE_CLEANUP(struct workingset *, workingset_free);

#endif
