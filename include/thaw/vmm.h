/* SPDX-License-Identifier: Apache-2.0 */
#ifndef THAW_VMM_H
#define THAW_VMM_H

#include <stddef.h>
#include <stdint.h>
#include <thaw/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The VMM's half: give guest memory to a pager.
 *
 * A VMM maps its guest memory as usual (anonymous or hugetlb, private), then calls thaw_vmm_attach() before the
 * first touch. From then on every page that is touched comes from the pager at the other end of the socket.
 * Memory is given back with madvise(MADV_DONTNEED); the page then reads as zero.
 */

/**
 * struct thaw_region - one contiguous piece of guest memory
 * @addr:       where it is mapped in this process; a multiple of @page_bytes
 * @len_bytes:  its length, a multiple of @page_bytes, not 0
 * @offset:     where its bytes begin in the snapshot, in bytes
 * @page_bytes: page size of the mapping: 4096, or 2097152 for hugetlb; the same for all regions
 */
struct thaw_region {
    void *addr;
    size_t len_bytes;
    uint64_t offset;
    uint64_t page_bytes;
};

struct thaw_attachment;

/**
 * thaw_vmm_attach() - register guest memory with userfaultfd and hand it to a pager
 * @out:         (give) keep it for as long as the memory is in use
 * @socket_path: unix stream socket on which the pager listens
 * @regions:     (borrow for the call)
 * @n_regions:   1..8192
 *
 * Creates a userfaultfd (/dev/userfaultfd, else userfaultfd(2)), asks for UFFD_FEATURE_EVENT_REMOVE, registers the
 * regions in mode MISSING and sends the handshake that Firecracker sends: one JSON array with the userfaultfd as
 * SCM_RIGHTS. Memory may be touched as soon as this returns.
 *
 * Return: 0 or a negative errno; thaw_last_error() says what could not be done. On failure nothing stays registered.
 * Errors: -EPERM, -EACCES userfaultfd may not be used; -ECONNREFUSED, -ENOENT no pager there; -EINVAL bad region.
 */
int thaw_vmm_attach(struct thaw_attachment **out, const char *socket_path,
                    const struct thaw_region *regions, unsigned n_regions);

/**
 * thaw_vmm_detach() - close the connection and this process's userfaultfd
 * @a: (take) may be NULL
 *
 * Missing pages read as zeroes afterwards: call it when the memory is no longer used, or not at all.
 * Return: NULL
 */
struct thaw_attachment *thaw_vmm_detach(struct thaw_attachment *a);

#ifdef __cplusplus
}
#endif
#endif
