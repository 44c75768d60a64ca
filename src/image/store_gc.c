/* SPDX-License-Identifier: Apache-2.0 */

/*
 * store_gc.c - what is in a store, and removing what is not needed
 *
 * store_remove() works on one image: it takes its manifest's exclusive lock, which nobody gets while it is served or a
 * child is made of it, looks at all names and manifests once more, and removes the name before the manifest. So there is
 * never a name that leads nowhere.
 *
 * store_gc() has the store to itself, but for those who serve, list or remove. It reads all manifests, marks what names
 * lead to and what cannot be locked, then the parents of what is marked, until nothing is added; removes the other manifests; and then
 * the packs that no manifest that stayed has. Between the two the folder is synced: a pack is gone for good only after all
 * manifests that have it.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "image/store_private.h"

/* ---- what is there -------------------------------------------------------------------------------------------- */

/* struct listing - a list that grows */
struct listing {
    struct store *store;
    struct store_list list;
    size_t room;
    size_t n_named;
};

static int compare_entries(const void *a, const void *b)
{
    const struct store_entry *x = a;
    const struct store_entry *y = b;

    if (x->name && y->name)
        return strcmp(x->name, y->name);
    if (!x->name && !y->name)
        return memcmp(x->id, y->id, IMAGE_ID_BYTES);
    return x->name ? -1 : 1;
}

static int add_entry(struct listing *l, const char *name, const uint8_t id[IMAGE_ID_BYTES])
{
    struct store_entry *e;

    if (l->list.n == l->room) {
        size_t room = l->room ? l->room * 2 : 64;
        void *more = reallocarray(l->list.entries, room, sizeof(*l->list.entries));

        if (!more)
            return err_origin_errno(-ENOMEM, "no memory for the list of images");
        l->list.entries = more;
        l->room = room;
    }
    e = &l->list.entries[l->list.n];
    *e = (struct store_entry){.name = name ? strdup(name) : NULL};
    if (name && !e->name)
        return err_origin_errno(-ENOMEM, "no memory for the list of images");
    memcpy(e->id, id, IMAGE_ID_BYTES);
    l->list.n++;
    return 0;
}

static int add_name(void *ctx, const char *name)
{
    struct listing *l = ctx;
    uint8_t id[IMAGE_ID_BYTES];
    int r = store_find_name(l->store, name, id);

    if (r == -ENOENT) /* it was removed a moment ago */
        return 0;
    return r < 0 ? r : add_entry(l, name, id);
}

static int add_unnamed(void *ctx, const char *entry)
{
    struct listing *l = ctx;
    uint8_t id[IMAGE_ID_BYTES];

    if (strlen(entry) != IMAGE_ID_TEXT - 1 || !store_id_parse(entry, id))
        return err_origin(-EINVAL, "%s/manifests/%s has no place there", l->store->path, entry);
    for (size_t i = 0; i < l->n_named; i++) {
        if (memcmp(l->list.entries[i].id, id, IMAGE_ID_BYTES) == 0)
            return 0;
    }
    return add_entry(l, NULL, id);
}

int store_list(struct store *s, struct store_list *out)
{
    struct listing l = {.store = s};
    int r = store_each(s, STORE_NAMES, add_name, &l);

    l.n_named = l.list.n;
    if (r == 0)
        r = store_each(s, STORE_MANIFESTS, add_unnamed, &l);
    if (r < 0) {
        store_list_deinit(&l.list);
        return r;
    }
    if (l.list.n > 1)
        qsort(l.list.entries, l.list.n, sizeof(*l.list.entries), compare_entries);
    *out = l.list;
    return 0;
}

void store_list_deinit(struct store_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->entries[i].name);
    free(list->entries);
    *list = (struct store_list){0};
}

/* drop() - one entry of a folder goes away */
static int drop(struct store *s, enum store_folder folder, const char *name)
{
    if (unlinkat(s->folders[folder], name, 0) < 0)
        return err_origin_errno(-errno, "cannot remove %s/%s/%s", s->path,
                                store_folder_name(folder), name);
    return 0;
}

static bool has_parent(const struct manifest *m, const uint8_t id[IMAGE_ID_BYTES])
{
    for (uint32_t i = 0; i < m->n_parents; i++) {
        if (memcmp(m->parents[i], id, IMAGE_ID_BYTES) == 0)
            return true;
    }
    return false;
}

/* ---- one image ------------------------------------------------------------------------------------------------ */

/*
 * check_children() - does an image of the list have @id as a parent?
 * Return: 0; -EBUSY with a text that names it; others
 */
static int check_children(struct store *s, const struct store_list *list, const char *name,
                          const uint8_t id[IMAGE_ID_BYTES])
{
    for (size_t i = 0; i < list->n; i++) {
        const struct store_entry *e = &list->entries[i];
        _cleanup_(manifest_freep) struct manifest *m = NULL;
        char text[IMAGE_ID_TEXT];
        int r;

        if (memcmp(e->id, id, IMAGE_ID_BYTES) == 0)
            continue;
        r = store_read_manifest(s, e->id, &m, NULL);
        if (r == -ENOENT)
            continue;
        if (r < 0)
            return r;
        if (has_parent(m, id) && e->name)
            return err_origin(-EBUSY, "image %s stays: it is a parent of image %s", name, e->name);
        if (has_parent(m, id))
            return err_origin(-EBUSY,
                              "image %s stays: it is a parent of image %s, which has no name: gc "
                              "removes that",
                              name, image_id_text(e->id, text));
    }
    return 0;
}

/* count_names() - how many names of the list lead to @id */
static size_t count_names(const struct store_list *list, const uint8_t id[IMAGE_ID_BYTES])
{
    size_t n = 0;

    for (size_t i = 0; i < list->n; i++)
        n += list->entries[i].name && memcmp(list->entries[i].id, id, IMAGE_ID_BYTES) == 0;
    return n;
}

/* look_around() - may image @id go? @n_names: how many lead to it */
static int look_around(struct store *s, const char *name, const uint8_t id[IMAGE_ID_BYTES],
                       size_t *n_names)
{
    struct store_list list = {0};
    int r = store_list(s, &list);

    if (r == 0) {
        *n_names = count_names(&list, id);
        if (*n_names <= 1)
            r = check_children(s, &list, name, id);
    }
    store_list_deinit(&list);
    return r;
}

/* lock_alone() - the exclusive lock of a manifest. Return: the fd (give); -ENOENT: it is not there; -EBUSY; others (no text) */
static int lock_alone(struct store *s, const char *id)
{
    _cleanup_fd_ int fd =
        openat(s->folders[STORE_MANIFESTS], id, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int r = fd < 0 ? -errno : store_flock(fd, LOCK_EX | LOCK_NB);

    if (r == -EWOULDBLOCK)
        return -EBUSY;
    if (r < 0)
        return r;
    return store_is_there(s, STORE_MANIFESTS, id, fd) ? TAKE_FD(fd) : -ENOENT;
}

/* drop_name() - unless it leads elsewhere meanwhile */
static int drop_name(struct store *s, const char *name, const uint8_t id[IMAGE_ID_BYTES])
{
    uint8_t there[IMAGE_ID_BYTES];
    int r = store_lock_names(s);

    if (r < 0)
        return r;
    r = store_find_name(s, name, there);
    if (r == 0 && memcmp(there, id, IMAGE_ID_BYTES) != 0)
        r = err_origin(-EBUSY, "image %s stays: the name was given to another one meanwhile", name);
    if (r == 0)
        r = drop(s, STORE_NAMES, name);
    if (r == 0)
        r = store_sync(s, STORE_NAMES);
    store_unlock_names(s);
    return r;
}

int store_remove(struct store *s, const char *name)
{
    uint8_t id[IMAGE_ID_BYTES];
    char text[IMAGE_ID_TEXT];
    _cleanup_fd_ int fd = -1;
    size_t n_names = 0;
    int r = store_find_name(s, name, id);

    if (r == 0)
        r = look_around(s, name, id, &n_names);
    if (r < 0)
        return r;
    if (n_names > 1)
        return drop_name(s, name, id);
    fd = lock_alone(s, image_id_text(id, text));
    if (fd == -ENOENT) /* a name that leads nowhere; nobody here makes one */
        return drop_name(s, name, id);
    if (fd == -EBUSY)
        return err_origin(-EBUSY, "image %s stays: it is in use, served or a child is made of it",
                          name);
    if (fd < 0)
        return err_origin_errno(fd, "cannot lock %s/manifests/%s", s->path, text);
    r = look_around(s, name, id, &n_names); /* from here on nobody makes a child or another name */
    if (r == 0)
        r = drop_name(s, name, id);
    if (r == 0 && n_names <= 1)
        r = drop(s, STORE_MANIFESTS, text);
    return r == 0 ? store_sync(s, STORE_MANIFESTS) : r;
}

int store_forget_name(struct store *s, const char *name)
{
    bool gone;
    int r = store_check_name(name);

    if (r == 0)
        r = store_lock_names(s);
    if (r < 0)
        return r;
    gone = unlinkat(s->folders[STORE_NAMES], name, 0) == 0;
    if (!gone && errno != ENOENT)
        r = err_origin_errno(-errno, "cannot remove %s/%s/%s", s->path,
                             store_folder_name(STORE_NAMES), name);
    r = gone ? store_sync(s, STORE_NAMES) : r; /* or a power cut would bring the name back */
    store_unlock_names(s);
    return r;
}

/* ---- all that nobody needs ------------------------------------------------------------------------------------ */

/* struct known - an image that gc found */
struct known {
    struct manifest *manifest;
    uint64_t bytes; /* of the manifest */
    int fd;         /* holds the exclusive lock of one that is to be removed */
    bool needed;
};

struct gc {
    struct store *store;
    struct known *images; /* owned; by id */
    size_t n;
    bool dry_run;
    struct store_freed freed;
};

static uint64_t bytes_of(struct store *s, enum store_folder folder, const char *name)
{
    struct stat st;

    return fstatat(s->folders[folder], name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_size
                                                                            : 0;
}

static int compare_known(const void *a, const void *b)
{
    return memcmp(((const struct known *)a)->manifest->id, ((const struct known *)b)->manifest->id,
                  IMAGE_ID_BYTES);
}

/* find_known() - by id; NULL if it is not there */
static struct known *find_known(const struct gc *gc, const uint8_t id[IMAGE_ID_BYTES])
{
    size_t low = 0;
    size_t high = gc->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = memcmp(gc->images[middle].manifest->id, id, IMAGE_ID_BYTES);

        if (order == 0)
            return &gc->images[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* learn() - all images of the list, those with a name marked */
static int learn(struct gc *gc, const struct store_list *list)
{
    char text[IMAGE_ID_TEXT];

    gc->images = calloc(list->n + 1, sizeof(*gc->images));
    if (!gc->images)
        return err_origin_errno(-ENOMEM, "no memory for %zu images", list->n);
    for (size_t i = 0; i < list->n; i++) {
        struct known *image = &gc->images[gc->n];
        int r = store_read_manifest(gc->store, list->entries[i].id, &image->manifest, NULL);

        if (r == -ENOENT) /* it was removed a moment ago */
            continue;
        if (r < 0)
            return r;
        image->fd = -1;
        image->needed = list->entries[i].name != NULL;
        image->bytes =
            bytes_of(gc->store, STORE_MANIFESTS, image_id_text(image->manifest->id, text));
        gc->n++;
    }
    qsort(gc->images, gc->n, sizeof(*gc->images), compare_known);
    return 0;
}

/* mark_used() - lock what has no name; what cannot be locked is needed */
static int mark_used(struct gc *gc)
{
    for (size_t i = 0; i < gc->n; i++) {
        struct known *image = &gc->images[i];
        char text[IMAGE_ID_TEXT];

        if (image->needed)
            continue;
        image->fd = lock_alone(gc->store, image_id_text(image->manifest->id, text));
        if (image->fd == -EBUSY) {
            image->needed = true;
            gc->freed.n_in_use++;
        } else if (image->fd < 0 && image->fd != -ENOENT) {
            return err_origin_errno(image->fd, "cannot lock %s/manifests/%s", gc->store->path,
                                    text);
        }
    }
    return 0;
}

/* mark_parents() - a manifest has all its parents, so one look at each image is enough */
static void mark_parents(struct gc *gc)
{
    for (size_t i = 0; i < gc->n; i++) {
        const struct manifest *m = gc->images[i].manifest;

        for (uint32_t p = 0; gc->images[i].needed && p < m->n_parents; p++) {
            struct known *parent = find_known(gc, m->parents[p]);

            if (parent)
                parent->needed = true;
        }
    }
}

static int drop_manifests(struct gc *gc)
{
    int r = 0;

    for (size_t i = 0; i < gc->n && r == 0; i++) {
        struct known *image = &gc->images[i];
        char text[IMAGE_ID_TEXT];

        if (image->needed || image->fd < 0)
            continue;
        gc->freed.n_manifests++;
        gc->freed.manifest_bytes += image->bytes;
        if (!gc->dry_run)
            r = drop(gc->store, STORE_MANIFESTS, image_id_text(image->manifest->id, text));
    }
    return r == 0 && gc->freed.n_manifests > 0 && !gc->dry_run
               ? store_sync(gc->store, STORE_MANIFESTS)
               : r;
}

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, IMAGE_ID_BYTES);
}

/* struct needed_packs - the packs of the manifests that stay, sorted */
struct needed_packs {
    struct gc *gc;
    uint8_t (*ids)[IMAGE_ID_BYTES];
    size_t n;
};

static int collect_packs(struct needed_packs *packs, const struct gc *gc)
{
    size_t room = 1;

    for (size_t i = 0; i < gc->n; i++)
        room += gc->images[i].needed ? gc->images[i].manifest->n_packs : 0;
    packs->ids = calloc(room, sizeof(*packs->ids));
    if (!packs->ids)
        return err_origin_errno(-ENOMEM, "no memory for the list of %zu packs", room - 1);
    for (size_t i = 0; i < gc->n; i++) {
        const struct manifest *m = gc->images[i].manifest;

        for (uint32_t p = 0; gc->images[i].needed && p < m->n_packs; p++)
            memcpy(packs->ids[packs->n++], m->packs[p].sha256, IMAGE_ID_BYTES);
    }
    qsort(packs->ids, packs->n, sizeof(*packs->ids), compare_ids);
    return 0;
}

static int drop_pack(void *ctx, const char *entry)
{
    const struct needed_packs *packs = ctx;
    struct gc *gc = packs->gc;
    uint8_t id[IMAGE_ID_BYTES];

    if (strlen(entry) != IMAGE_ID_TEXT - 1 || !store_id_parse(entry, id))
        return err_origin(-EINVAL, "%s/packs/%s has no place there", gc->store->path, entry);
    if (bsearch(id, packs->ids, packs->n, sizeof(*packs->ids), compare_ids))
        return 0;
    gc->freed.n_packs++;
    gc->freed.pack_bytes += bytes_of(gc->store, STORE_PACKS, entry);
    return gc->dry_run ? 0 : drop(gc->store, STORE_PACKS, entry);
}

static int drop_packs(struct gc *gc)
{
    struct needed_packs packs = {.gc = gc};
    int r = collect_packs(&packs, gc);

    if (r == 0)
        r = store_each(gc->store, STORE_PACKS, drop_pack, &packs);
    free(packs.ids);
    return r == 0 && gc->freed.n_packs > 0 && !gc->dry_run ? store_sync(gc->store, STORE_PACKS) : r;
}

/* drop_temp() - a file in tmp/ that nobody holds locked */
static int drop_temp(void *ctx, const char *entry)
{
    struct gc *gc = ctx;
    struct store *s = gc->store;
    _cleanup_fd_ int fd =
        openat(s->folders[STORE_TMP], entry, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0)
        return err_origin_errno(-errno, "cannot open %s/tmp/%s", s->path, entry);
    if (store_flock(fd, LOCK_EX | LOCK_NB) < 0)
        return 0;
    gc->freed.n_temps++;
    gc->freed.temp_bytes += bytes_of(s, STORE_TMP, entry);
    return gc->dry_run ? 0 : drop(s, STORE_TMP, entry);
}

static int collect(struct gc *gc)
{
    struct store_list list = {0};
    int r = store_list(gc->store, &list);

    if (r == 0)
        r = learn(gc, &list);
    store_list_deinit(&list);
    if (r == 0)
        r = mark_used(gc);
    if (r < 0)
        return r;
    mark_parents(gc);
    r = drop_manifests(gc);
    if (r == 0)
        r = drop_packs(gc);
    return r == 0 ? store_each(gc->store, STORE_TMP, drop_temp, gc) : r;
}

int store_gc(struct store *s, bool dry_run, struct store_freed *out)
{
    struct gc gc = {.store = s, .dry_run = dry_run};
    int r = store_flock(s->lock_fd, LOCK_EX | LOCK_NB);

    if (r == -EWOULDBLOCK)
        return err_origin(
            -EBUSY, "the store %s is in use: an image is being made, or another gc runs", s->path);
    if (r < 0)
        return err_origin_errno(r, "cannot lock the store %s", s->path);
    r = collect(&gc);
    for (size_t i = 0; i < gc.n; i++) {
        (void)fd_close(gc.images[i].fd);
        (void)manifest_free(gc.images[i].manifest);
    }
    free(gc.images);
    *out = gc.freed;
    (void)store_flock(s->lock_fd, LOCK_UN);
    return r;
}
