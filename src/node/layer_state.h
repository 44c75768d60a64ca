/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_LAYER_STATE_H
#define NODE_LAYER_STATE_H

/*
 * layer_state.h - what a pager's state says about the next layer of an image
 *
 * The state tells what became of each page since the VM was restored. The parent of the layer is either what the VM was
 * restored from, or was made of the same VM later: then some of what the state tells is in the parent already, and it cannot be
 * told how much. An image says by its id which it is. A memory file has a time: what is older than the VM is what the VM was
 * restored from.
 *
 *     state      the layer's page, where a file of what changed has a hole (invariant I8)
 *     ABSENT     the parent's
 *     CLEAN      the parent's
 *     REMOVED    zero: a touch would have made it another state
 *     ZERO       zero; but if writes are not tracked, a write since then may be in a parent made of the same VM: unsure
 *     DIRTY      of 4 KiB: the parent's, if that was made of the same VM and has the write. If it was not, file and state are
 *                not of the same moment: unsure. Of 2 MiB: a part of it that is a hole was not written to. It is the
 *                parent's, unless the page was removed before it was written to: unsure if the guest has removed any page
 *
 * The memory of a VM itself leaves fewer doubts: what is resident is read, what is not has been removed (layer_state_vm()).
 */

#include "node/state_copy.h"
#include "core/block.h"
#include "image/diff_file.h"
#include "image/store.h"

/**
 * layer_state_read() - read a state when its pager has nothing in hand: what the guest did last is in it, too
 * @out: (give)
 *
 * A thread of the VM goes on a moment before the state says so. Waits for that moment, a second at most.
 * Return: 0 or a negative errno with a text: -EBUSY if the VM does not rest
 */
int layer_state_read(const char *path, struct state_copy **out);

/** struct layer_state - a state, and the parent it is looked at with */
struct layer_state {
    const struct block *block; /* (borrow) */
    bool tracked;              /* every first write to a page was seen */
    bool fresh;                /* the parent is what the VM was restored from */
};

/**
 * layer_state_init() - can this state and this parent be brought together?
 * @name: of the state, for messages
 *
 * Return: 0 or -EINVAL with a text
 */
int layer_state_init(struct layer_state *out, const struct block *block, const char *name,
                     const struct image *parent);

/** layer_state_hints() - for all pages of the parent. @out: (give) to be freed. Return: 0 or -ENOMEM with a text */
int layer_state_hints(uint8_t **out, const struct layer_state *s, uint64_t image_bytes);

/* Of an entry of /proc/PID/pagemap */
#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
#define PAGEMAP_ARMED   (1ull << 57) /* write-protected through a userfaultfd */

/**
 * layer_state_vm() - what 4096 bytes of a VM's memory are: KIND_HOLE, KIND_PARENT, or KIND_DATA if they must be looked at
 * @state:  of the page that they are in
 * @mapped: their entry of pagemap
 * @shared: the memory may have pages that are not mapped
 */
enum page_kind layer_state_vm(const struct layer_state *s, enum page_state state, uint64_t mapped,
                              bool shared);

#endif
