/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_LAYER_H
#define NODE_LAYER_H

/*
 * layer.h - the next layer of an image, made from the memory of a VM that is served from it
 *
 * The VM must be paused, and its pager must serve it. A page that the guest removed is zero in the layer, whatever the parent has
 * there (layer_state.h). That the VM stood still meanwhile is found out while the layer is made (image/page_watch.h): one that
 * ran makes an error and not an image.
 */

#include "image/pack.h"

/** struct layer_then - 0 or a negative errno with a text */
struct layer_then {
    int (*fn)(void *ctx);
    void *ctx;
};

/**
 * layer_make() - pack what changed since the parent, and give it its name
 * @s:          held (store_hold())
 * @state_path: of the VM's pager
 * @served:     (borrow) what is served, or an image made of the same VM later
 * @then:       (borrow) called when all has been read once and will be compared once more: what it does, it does at the moment of
 *              the layer, unless that is -ESTALE. NULL: nothing
 * @o:          with a parent: @served itself, or an ancestor of it, on which all that has changed since then is laid
 *              (image/squash.h)
 *
 * Return: 0 or a negative errno with a text: -ESRCH: there is no such VM or pager any more; -EBUSY: its pager is
 * not at rest; -ESTALE: its memory has changed meanwhile
 */
int layer_make(struct store *s, const char *state_path, const struct image *served,
               const struct layer_then *then, const struct pack_options *o,
               struct pack_result *out);

#endif
