/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_ATTACH_H
#define VMM_ATTACH_H

/* attach.h - the steps of thaw_vmm_attach() that can be tried one by one; see thaw/vmm.h */

#include <thaw/vmm.h>

#include "base/base.h"

#define ATTACH_MAX_REGIONS 8192u

/** struct span - a range of addresses or of snapshot bytes; end is exclusive */
struct span {
    uint64_t start;
    uint64_t end;
};

/**
 * regions_check() - whether these regions can be handed to a pager
 * @regions: (borrow) @n_regions of them
 *
 * Return: 0, -EINVAL with a text that names the region, or -ENOMEM.
 */
int regions_check(const struct thaw_region *regions, unsigned n_regions);

/**
 * regions_json() - the handshake's JSON
 * @out: (give) free() it
 *
 * Return: 0 or -ENOMEM.
 */
int regions_json(char **out, const struct thaw_region *regions, unsigned n_regions);

/**
 * handshake_send() - send all of @json, with @uffd on its first byte
 * @sock: connected stream socket, blocking
 * @json: (borrow) not empty
 * @uffd: (borrow) stays open here
 *
 * Return: 0 or a negative errno with a text.
 */
int handshake_send(int sock, const char *json, int uffd);

DEFINE_CLEANUP(struct thaw_attachment *, thaw_vmm_detach);

#endif
