/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_BLOCK_H
#define CORE_BLOCK_H

/*
 * block.h - everything a pager must know, in one flat piece of memory without pointers (invariant I7)
 *
 * The block is the content of the state file. A running pager is its only writer; anybody who may read the file
 * can map it and see the pages' states and the counters as they change (`thaw map`, `thaw ps`). Layout:
 *
 *     struct block_header     page 0
 *     regions                 n_regions x struct geom_region
 *     inbox                   BLOCK_INBOX_BYTES: read(2) puts the kernel's messages here; a message that was dealt with
 *                             is cleared, so what is left in it is what a pager that was killed had in hand
 *     page states             three bits a page (core/pagetab.h)
 *     waiting, waiting_wp     one bit a page: a fault was read and is not answered yet (base/bitset.h)
 *
 * Each part starts on a 4096-byte boundary; parts that nothing happened to are holes in the file.
 *
 * Versions. A pager takes over a block of its own version or of the one before (block_upgrade()); every other one is
 * refused. The header up to and including vmm_pid is the same in all versions, so that it can be told whose block it is.
 */

#include "base/base.h"
#include "base/hist.h"
#include "core/geom.h"
#include "core/pagetab.h"
#include "base/bitset.h"

#define BLOCK_MAGIC       0x6b6c427761685401ull /* "\1ThawBlk" */
#define BLOCK_VERSION     3u
#define BLOCK_INBOX_BYTES 4096u
#define BLOCK_INBOX_MSG   32u /* a message; its first byte is 0 once it was dealt with */

/** struct counters - see core/counters.def */
struct counters {
#define COUNTER(name, unit, meaning) uint64_t name;
#include "core/counters.def"
};

/** struct block_header - the beginning of the state file, little endian as the host */
struct block_header {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes; /* sizeof(struct block_header) of the writer */
    uint64_t total_bytes;
    uint32_t page_shift;
    uint32_t n_regions;
    uint64_t n_pages;
    uint64_t regions_off; /* byte offsets of the parts */
    uint64_t inbox_off;
    uint64_t pagetab_off;
    uint64_t waiting_off;
    uint64_t waiting_wp_off;
    int32_t pager_pid;
    int32_t vmm_pid;
    uint32_t vmm_uid;
    uint32_t track;           /* enum thaw_track */
    uint64_t start_time_ns;   /* CLOCK_REALTIME of the handshake */
    char memory_path[1024];   /* what is served, NUL terminated, cut if longer */
    uint64_t vmm_start_ticks; /* when the VMM's process began, /proc/PID/stat; 0: not known */
    uint64_t uffd_device;     /* st_dev and st_ino of the userfaultfd; 0: not known */
    uint64_t uffd_inode;
    uint64_t memory_device; /* the same of the memory file; 0: not a file */
    uint64_t memory_inode;
    uint64_t left_ns;    /* CLOCK_MONOTONIC when the last pager was found dead; 0: not known */
    uint32_t generation; /* how many pagers have served, this one included; 0: none yet */
    int32_t keeper_pid;  /* the process that starts another pager when this one dies; 0: none */
    /* Since version 3 */
    uint32_t may_resume;  /* the VM may go on, and whoever tells it has been told */
    uint32_t let_go;      /* the VM needs no pager any more */
    struct hist fault_ns; /* from a fault's read(2) to the end of its install */
    struct counters counters;
};

/** struct block - a view on a mapped block */
struct block {
    struct block_header *header;
    struct geom geom;
    struct pagetab pages;
    struct bitset waiting;
    struct bitset waiting_wp;
    void *inbox;
};

/** block_bytes() - how big the block of this geometry is; a multiple of 4096 */
size_t block_bytes(unsigned n_regions, pgno_t n_pages);

/**
 * block_format() - lay out a new block
 * @b:    the view, set up
 * @mem:  (borrow for the life of @b) block_bytes() of zeroes
 * @geom: copied into the block
 */
void block_format(struct block *b, void *mem, const struct geom *geom);

enum {
    _BLOCK_E_SUCCESS,
    BLOCK_E_FORMAT,  /* not a state file, or damaged */
    BLOCK_E_VERSION, /* of a version that this program does not read */
};

/**
 * block_open() - a view on a block that another process formatted; everything in it is checked
 * @mem:       (borrow for the life of @b)
 * @mem_bytes: how much of it there is
 *
 * Return: 0 or BLOCK_E_*.
 */
int block_open(struct block *b, void *mem, size_t mem_bytes);

/**
 * block_open_before() - a view on a block of the version before this one, to read it; everything in it is checked
 *
 * Only the header's members before may_resume may be read through the view. Return: 0 or BLOCK_E_*.
 */
int block_open_before(struct block *b, void *mem, size_t mem_bytes);

/** block_at_rest() - has the pager nothing in hand: no message, and nobody who waits? */
bool block_at_rest(const struct block *b);

/**
 * block_upgrade() - a block of this version with what a block of the version before says
 * @b:    the view, set up
 * @mem:  (borrow for the life of @b) block_bytes() of zeroes
 * @from: a view from block_open_before()
 *
 * A VM of version 2 has been running: nobody waits to be told that it may.
 */
void block_upgrade(struct block *b, void *mem, const struct block *from);

#endif
