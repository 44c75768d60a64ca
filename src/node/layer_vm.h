/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_LAYER_VM_H
#define NODE_LAYER_VM_H

/*
 * layer_vm.h - the memory of a VM whose pager serves it, as a source of pages
 *
 * The pager's state says which pages are the parent's, /proc/PID/pagemap which are there, process_vm_readv(2) what is in
 * them. The VM must be paused: that it did not run meanwhile is for whoever reads to find out (image/page_watch.h). That the
 * process is still the same one, and has its pager, is looked at each time, and in the end.
 */

#include "image/page_reader.h"
#include "node/layer_state.h"

/** struct layer_vm - one that is open */
struct layer_vm {
    const char *state_path;     /* (borrow) */
    const struct image *parent; /* (borrow) */
    struct state_copy *state;   /* as it was read last */
    struct layer_state meaning; /* of that */
    int pagemap_fd;
    struct page_reader *parents_pages; /* NULL: nobody has asked yet */
    bool shared; /* some of the memory is not private: it may be there without being mapped */
    char name[64];
};

/**
 * layer_vm_open() - @vm: (give) layer_vm_close() it
 * @state_path: (borrow) the pager's state file
 * @parent:     (borrow) what is served, or an image made of the same VM
 *
 * Return: 0 or a negative errno with a text
 */
int layer_vm_open(struct layer_vm *vm, const char *state_path, const struct image *parent);

void layer_vm_close(struct layer_vm *vm);

/** layer_vm_source() - its pages and the parent's. @vm: (borrow) as long as the source is used */
struct page_source layer_vm_source(struct layer_vm *vm);

#endif
