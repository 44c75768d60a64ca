/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SOURCE_HOLE_MAP_H
#define SOURCE_HOLE_MAP_H

/*
 * hole_map.h - where a file has holes, so that they are served as zeroes without being read
 *
 * Two or three lseek(2) calls a fault would cost more than the rest of the pager's own work. So the file is walked once,
 * when it is opened and nobody waits, into one bit for each 4 KiB; a walk takes a microsecond or so for each extent. It
 * stops when its time is up: what lies beyond is asked of the kernel when it is needed.
 */

#include <thaw/source.h>

#include "base/base.h"

/** struct hole_map - what is known of a file's holes */
struct hole_map {
    int fd; /* (borrow); its offset is moved */
    uint64_t size_bytes;
    uint64_t
        known_until; /* up to here the bits are right; a multiple of 4096, or the file's size */
    uint64_t *bits;  /* owned: 1 means that these 4096 bytes are a hole */
    bool cheap_seek_hole; /* the file system finds the end of an extent without walking its pages */
};

/**
 * hole_map_init() - walk the file
 * @m:         (give) hole_map_deinit() it
 * @budget_ns: how long the walk may take
 *
 * Return: 0 or -ENOMEM with a text.
 */
int hole_map_init(struct hole_map *m, int fd, uint64_t size_bytes, uint64_t budget_ns);

void hole_map_deinit(struct hole_map *m);

/**
 * hole_map_narrow() - cut *x to the run of hole, or of data, that the page at @off is in
 * @x: in: first and end of the window; out: the run, and where: THAW_WHERE_ZERO, or _MEMORY for data
 *
 * A page that is partly data is data. Where only the kernel knows, data may be taken to reach further than it does.
 */
void hole_map_narrow(const struct hole_map *m, struct thaw_extent *x, uint64_t off,
                     uint64_t page_bytes);

/** hole_map_may_have() - is there a hole in [@off, @off + @len)? Where only the kernel knows: true */
bool hole_map_may_have(const struct hole_map *m, uint64_t off, uint64_t len);

#endif
