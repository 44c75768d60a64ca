/* SPDX-License-Identifier: Apache-2.0 */
#include "node/layer.h"

#include "node/layer_vm.h"
#include "image/page_watch.h"

int layer_make(struct store *s, const char *state_path, const struct pack_options *o,
               struct pack_result *out)
{
    struct layer_vm vm;
    struct page_watch watch;
    struct page_source memory;
    struct page_source src;
    int r;

    assert(o->parent);
    r = layer_vm_open(&vm, state_path, o->parent);
    if (r < 0)
        return r;
    memory = layer_vm_source(&vm);
    r = page_watch_init(&watch, &memory, &o->job);
    if (r == 0) {
        src = page_watch_source(&watch);
        r = pack_pages(s, &src, o, out);
        page_watch_deinit(&watch);
    }
    layer_vm_close(&vm);
    return r;
}
