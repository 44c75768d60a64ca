/* SPDX-License-Identifier: Apache-2.0 */

/*
 * pack.c - from a source of pages to an image: the parts in their order
 *
 * The source is read twice: to learn what each page is (pack_classify.c), and to store what is to be stored (pack_frames.c).
 * If it changed in between, it says so, and there is no image.
 *
 * An image is as old as its memory: the time in the manifest is that of the memory file. So packing a file again gives the
 * same image again.
 */

#include "image/pack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/fd.h"
#include "image/memory_file.h"
#include "image/pack_private.h"

#define DEFAULT_FRAME (32 * KIB) /* docs/decisions/0015-frames-of-an-image.md */

struct pack_options pack_options_default(void)
{
    return (struct pack_options){
        .codec = FRAME_ZSTD,
        .frame_pages = (unsigned)(DEFAULT_FRAME / IMAGE_PAGE),
    };
}

static int check_options(const struct pack_options *o, const struct page_source *src)
{
    if (o->hot && o->hot->image_bytes != src->bytes)
        return err_origin(
            -EINVAL, "the working set is of a memory file of %" PRIu64 " bytes, %s has %" PRIu64,
            o->hot->image_bytes, src->name, src->bytes);
    if (o->parent && o->parent->manifest->image_bytes != src->bytes)
        return err_origin(-EINVAL, "the parent %s has %" PRIu64 " bytes, %s has %" PRIu64,
                          o->parent->name, o->parent->manifest->image_bytes, src->name, src->bytes);
    return 0;
}

static void count(struct pack_result *out, const struct page_kinds *kinds)
{
    out->n_pages = kinds->n;
    for (uint64_t i = 0; i < kinds->n; i++) {
        out->n_own += kinds->of[i] == KIND_OWN || kinds->of[i] == KIND_HOT;
        out->n_hot += kinds->of[i] == KIND_HOT;
        out->n_parent += kinds->of[i] == KIND_PARENT;
        out->n_hole += kinds->of[i] == KIND_HOLE;
    }
}

/* put() - the pack, then the manifest, then the name: each is durable before the next one is there */
static int put(struct store *s, struct store_file *pack, struct packed *packed,
               const struct page_kinds *kinds, const struct page_source *src,
               const struct pack_options *o, struct pack_result *out)
{
    _cleanup_(manifest_freep) struct manifest *m = NULL;
    _cleanup_fd_ int held = -1;
    uint8_t sha256[IMAGE_ID_BYTES];
    int r;

    out->n_frames = (uint32_t)packed->n_frames;
    out->pack_bytes = packed->n_frames > 0 ? packed->bytes : 0;
    digest_end(&packed->digest, sha256);
    r = pack_manifest(&m, packed, sha256, kinds, o);
    if (r < 0)
        return r;
    m->created_s = src->created_s;
    if (m->has_own_pack)
        r = store_put_pack(pack, sha256, out->pack_bytes);
    if (r == 0)
        r = store_put_manifest(s, m, &held);
    memcpy(out->id, m->id, sizeof(out->id));
    if (r == 0 && o->before_name)
        r = o->before_name(o->before_name_ctx, out);
    return r == 0 ? store_put_name(s, o->name, m->id, o->replace) : r;
}

static int pack_all(struct store *s, const struct page_source *src, struct page_kinds *kinds,
                    const struct pack_options *o, struct pack_result *out)
{
    _cleanup_(store_file_deinit) struct store_file pack = {.fd = -1};
    _cleanup_(packed_deinit) struct packed packed = {0};
    int r = pack_classify(kinds, src, o);

    if (r == 0)
        r = store_file_init(&pack, s);
    if (r == 0)
        r = pack_frames(&packed, pack.fd, src, kinds, o);
    if (r == 0)
        r = src->check(src->ctx);
    if (r < 0)
        return r;
    count(out, kinds);
    return put(s, &pack, &packed, kinds, src, o, out);
}

/* check_name() - that it is free is seen before the work, too */
static int check_name(struct store *s, const struct pack_options *o)
{
    uint8_t id[IMAGE_ID_BYTES];
    int r = store_check_name(o->name);

    if (r < 0 || o->replace)
        return r;
    r = store_find_name(s, o->name, id);
    if (r == 0)
        return err_origin(-EEXIST, "there is an image %s", o->name);
    return r == -ENOENT ? 0 : r;
}

int pack_pages(struct store *s, const struct page_source *src, const struct pack_options *o,
               struct pack_result *out)
{
    struct page_kinds kinds = {.n = src->bytes / IMAGE_PAGE};
    int r = check_name(s, o);

    assert(o->frame_pages >= 1 && o->frame_pages <= FRAME_PAGES_MAX);
    if (r == 0)
        r = check_options(o, src);
    if (r < 0)
        return r;
    *out = (struct pack_result){0};
    kinds.of = calloc(kinds.n + 1, 1);
    if (!kinds.of)
        return err_origin_errno(-ENOMEM, "no memory for a table of %" PRIu64 " pages", kinds.n);
    r = pack_all(s, src, &kinds, o, out);
    free(kinds.of);
    return r;
}

int pack_memory(struct store *s, const char *path, const struct pack_options *o,
                struct pack_result *out)
{
    _cleanup_(memory_file_close) struct memory_file file = {.fd = -1};
    struct page_source src;
    int r = check_name(s, o);

    if (r == 0)
        r = memory_file_open(&file, path);
    if (r < 0)
        return r;
    src = memory_file_source(&file);
    return pack_pages(s, &src, o, out);
}
