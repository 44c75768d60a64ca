/* SPDX-License-Identifier: Apache-2.0 */
#ifndef THAW_SOURCE_H
#define THAW_SOURCE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * enum thaw_where - where the bytes of a range of the snapshot are just now
 * @THAW_WHERE_ZERO:      nowhere: they are zeroes
 * @THAW_WHERE_MEMORY:    in memory: they can be copied at once without waiting for storage
 * @THAW_WHERE_ELSEWHERE: on a disk or a network: fetch() brings them into memory
 */
enum thaw_where {
    THAW_WHERE_ZERO,
    THAW_WHERE_MEMORY,
    THAW_WHERE_ELSEWHERE,
};

/**
 * struct thaw_extent - a range of the snapshot whose bytes are all in one kind of place
 * @where: see enum thaw_where
 * @first: byte offset in the snapshot where the range begins, a multiple of the page size asked with
 * @end:   byte offset where it ends (exclusive), a multiple of the page size
 * @bytes: address of the byte at @first (borrow until the next locate()). The pager never reads it itself, the kernel
 *         does (UFFDIO_COPY); it may be a file mapping that faults with an error. Mandatory for THAW_WHERE_MEMORY. For
 *         THAW_WHERE_ELSEWHERE it may be NULL; if not, the bytes can be had there by waiting for storage, which is done
 *         for bytes that a fetch() brought and that did not stay in memory
 * @lasting: the bytes stay at that address until the next trim(), so that several extents can be used at once
 */
struct thaw_extent {
    enum thaw_where where;
    uint64_t first;
    uint64_t end;
    const void *bytes;
    int lasting;
};

/**
 * struct thaw_source_ops - where a snapshot's bytes come from
 *
 * Offsets are in bytes from the start of the snapshot. @self is the pointer given with the table.
 *
 * @name:   for messages, such as "file"
 * @locate: say where the page at @off is, and how far around it the same holds, within [@lo, @hi).
 *          @off, @lo and @hi are multiples of @page_bytes. *@out must contain the page at @off.
 *          Called on the pager thread for each fault: must not block on storage.
 *          Return 0, or a negative errno if the bytes cannot be had any more: the VM is then stopped.
 * @fetch:  bring [@lo, @hi) into memory, so that locate() says THAW_WHERE_MEMORY.
 *          Called on a worker thread, several at once; may block. 0 or a negative errno. NULL if locate()
 *          never says THAW_WHERE_ELSEWHERE.
 * @expect: [@lo, @hi) will be asked for soon. A hint: what can be got ready now costs nothing later; NULL if nothing can.
 *          Called before there is a VM, on the thread that waits for it; must not wait for storage.
 * @trim:   no extent that locate() gave is in use any more: bytes can be dropped from memory. A fetch() that has returned must
 *          not be in vain: what the last 72 of them brought stays. NULL if there is nothing to drop.
 *          Called on the pager thread, again and again; must not block.
 * @free:   release @self, called once, after the last other call returned. NULL if there is nothing to do.
 */
struct thaw_source_ops {
    const char *name;
    int (*locate)(void *self, struct thaw_extent *out, uint64_t off, uint64_t lo, uint64_t hi,
                  uint64_t page_bytes);
    int (*fetch)(void *self, uint64_t lo, uint64_t hi);
    void (*expect)(void *self, uint64_t lo, uint64_t hi);
    void (*trim)(void *self);
    void (*free)(void *self);
};

#ifdef __cplusplus
}
#endif
#endif
