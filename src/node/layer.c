/* SPDX-License-Identifier: Apache-2.0 */
#include "node/layer.h"

#include "node/layer_vm.h"
#include "image/page_watch.h"
#include "image/squash.h"

/* pack() - relative to what is served, or to an ancestor of it */
static int pack(struct store *s, const struct page_source *src, const struct image *served,
                const struct pack_options *o, struct pack_result *out)
{
    _cleanup_(squash_freep) struct squash *squash = NULL;
    struct page_source squashed;
    int r;

    if (served == o->parent)
        return pack_pages(s, src, o, out);
    r = squash_new(&squash, src, served, o->parent, o->job.n_threads);
    if (r < 0)
        return r;
    squashed = squash_source(squash);
    return pack_pages(s, &squashed, o, out);
}

int layer_make(struct store *s, const char *state_path, const struct image *served,
               const struct layer_then *then, const struct pack_options *o, struct pack_result *out)
{
    struct layer_vm vm;
    struct page_watch watch;
    struct page_source memory;
    struct page_source src;
    int r;

    assert(served && o->parent);
    r = layer_vm_open(&vm, state_path, served);
    if (r < 0)
        return r;
    memory = layer_vm_source(&vm);
    r = page_watch_init(&watch, &memory, &o->job);
    if (r == 0) {
        watch.then = then ? then->fn : NULL;
        watch.then_ctx = then ? then->ctx : NULL;
        src = page_watch_source(&watch);
        r = pack(s, &src, served, o, out);
        page_watch_deinit(&watch);
    }
    layer_vm_close(&vm);
    return r;
}
