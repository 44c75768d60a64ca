/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/served.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/err.h"
#include "image/hot.h"
#include "image/store.h"
#include "pager/sharing.h"
#include "pager/workers.h"
#include "source/arena.h"
#include "source/image.h"

#define PREFIX      "image:"
#define PREFIX_LEN  (sizeof(PREFIX) - 1)
#define ID_DIGITS   (IMAGE_ID_TEXT - 1)
#define ID_END      (PREFIX_LEN + ID_DIGITS) /* up to here it says which image, behind it where */

#define SHARE_BYTES (256 * MIB) /* the default */

static_assert(ARENA_KEEPS >= WORKERS_MAX_JOBS + WORKERS_MAX_AHEAD,
              "what a fetch has brought is there when the pager looks at it");

/* ---- images ---------------------------------------------------------------------------------------------------- */

/*
 * raise_file_limit() - each pack of an image is an open file
 *
 * The soft limit is low for the sake of programs that use select(2). When the pager is confined both limits come down to
 * what is in use.
 */
/* #syscalls:start prlimit64 */
static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* name_image() - what the state file says of it. Return: 0 or a negative errno with a text */
static int name_image(struct served *s, const struct image *image, const char *store)
{
    const size_t room = sizeof(((struct block_header *)NULL)->memory_path);
    char full[PATH_MAX];
    char id[IMAGE_ID_TEXT];

    if (!realpath(store, full))
        return err_origin_errno(-errno, "cannot tell where the store %s is", store);
    if (asprintf(&s->name, "%s%s:%s", PREFIX, image_id_text(image->manifest->id, id), full) < 0) {
        s->name = NULL;
        return err_origin_errno(-ENOMEM, "cannot serve image %s", image->name);
    }
    if (strlen(s->name) >= room)
        return err_origin(-ENAMETOOLONG,
                          "the store's name %s is too long: expected at most %zu bytes", full,
                          room - ID_END - 2);
    return 0;
}

/* join() - share the pages; if that is not possible, do without. Return: NULL: nothing is shared */
static struct share *join(struct served *s, const struct image *image,
                          const struct thaw_pager_options *o)
{
    struct sharing what = {
        .program = o->image_filler,
        .store = s->name + ID_END + 1,
        .manifest = image->manifest,
        .bytes = o->image_share_bytes ? o->image_share_bytes : SHARE_BYTES,
    };
    struct share *share = NULL;

    if (sharing_join(&share, &what) < 0)
        s->not_shared = strdup(err_text());
    return share;
}

/* open_image() - by name or id */
static int open_image(struct served *s, const char *folder, const char *name,
                      const struct thaw_pager_options *o)
{
    _cleanup_(store_closep) struct store *store = NULL;
    _cleanup_(image_closep) struct image *image = NULL;
    uint64_t cache_bytes = o->image_cache_bytes ? o->image_cache_bytes : IMAGE_SOURCE_CACHE_BYTES;
    struct share *share = NULL;
    int r;

    raise_file_limit();
    r = store_open(&store, folder, false);
    if (r == 0)
        r = image_open(&image, store, name);
    if (r == 0)
        r = name_image(s, image, folder);
    if (r == 0 && !o->no_working_set && !o->prefetch_path && (!o->record_path || o->record_missed))
        r = hot_workingset(&s->hot, image->manifest);
    if (r == 0 && o->image_filler)
        share = join(s, image, o);
    if (r == 0)
        r = source_open_image(&s->source, image, cache_bytes, share);
    if (r < 0)
        return r;
    (void)TAKE(image);
    s->is_image = true;
    return 0;
}

/* says_image() - is the state file about an image? */
static bool says_image(const struct block_header *h)
{
    return h->memory_inode == 0 && strncmp(h->memory_path, PREFIX, PREFIX_LEN) == 0 &&
           strnlen(h->memory_path, ID_END + 1) > ID_END && h->memory_path[ID_END] == ':';
}

/* ---- both ------------------------------------------------------------------------------------------------------ */

static int open_memory(struct served *s, const char *path)
{
    s->name = strdup(path);
    if (!s->name)
        return err_origin_errno(-ENOMEM, "cannot open memory file %s", path);
    return source_open_file(&s->source, path, &s->memory);
}

int served_open(struct served *out, const struct thaw_pager_options *o)
{
    struct served s = {0};
    int r = 0;

    if (o->memory_path)
        r = open_memory(&s, o->memory_path);
    else if (o->image)
        r = open_image(&s, o->store, o->image, o);
    if (r < 0)
        served_deinit(&s);
    else
        *out = s;
    return r;
}

int served_open_again(struct served *out, const struct block_header *h,
                      const struct thaw_pager_options *o)
{
    struct served s = {0};
    char id[IMAGE_ID_TEXT];
    int r;

    if (says_image(h)) {
        (void)snprintf(id, sizeof(id), "%s", h->memory_path + PREFIX_LEN);
        r = open_image(&s, h->memory_path + ID_END + 1, id, o);
    } else {
        r = open_memory(&s, h->memory_path);
    }
    if (r < 0)
        served_deinit(&s);
    else
        *out = s;
    return r;
}

int served_check(const struct served *s, const struct block *block)
{
    const struct block_header *h = block->header;
    const struct geom_region *last = &block->geom.regions[block->geom.n_regions - 1];
    uint64_t size_bytes = source_size_bytes(s->source);
    const char *what = s->is_image ? "" : "memory file ";

    if (s->is_image != says_image(h) && (s->is_image || s->memory.inode != 0))
        return err_origin(-EINVAL, "the VM was served from %s, not from %s", h->memory_path,
                          s->name);
    if (size_bytes != last->imgoff + last->len_bytes)
        return err_origin(-EINVAL, "%s%s has %ju bytes, the VM's memory ends at %ju", what, s->name,
                          (uintmax_t)size_bytes, (uintmax_t)(last->imgoff + last->len_bytes));
    if (s->is_image && strncmp(s->name, h->memory_path, ID_END) != 0)
        return err_origin(-EINVAL, "the VM was served from %s, not from %s", h->memory_path,
                          s->name);
    if (h->memory_inode != 0 &&
        (h->memory_inode != s->memory.inode || h->memory_device != s->memory.device))
        return err_origin(-EINVAL,
                          "memory file %s is not the file that the VM was served from (inode %ju, "
                          "expected %ju)",
                          s->name, (uintmax_t)s->memory.inode, (uintmax_t)h->memory_inode);
    return 0;
}

void served_deinit(struct served *s)
{
    s->source = source_free(s->source);
    s->hot = workingset_free(s->hot);
    free(s->name);
    free(s->not_shared);
    *s = (struct served){0};
}
