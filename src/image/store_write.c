/* SPDX-License-Identifier: Apache-2.0 */

/*
 * store_write.c - files get their places in a store; store.h has the order in which they do
 *
 * A file in tmp/ is held by a shared lock from its beginning. When it becomes a manifest the lock goes with it, so a new
 * image cannot be removed before its name is there.
 *
 * A pack or manifest is never put over one that is there: it would be the same, and somebody may have it locked. What is
 * there may have got its place a moment ago from somebody who has not synced the folder yet, so it is synced here, too.
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

#define TRIES_MAX 1000u /* of names in tmp/, and of a place that somebody else takes and leaves */

int store_hold(struct store *s)
{
    int r = store_flock(s->lock_fd, LOCK_SH);

    return r < 0 ? err_origin_errno(r, "cannot lock the store %s", s->path) : 0;
}

int store_lock_names(struct store *s)
{
    int r = store_flock(s->folders[STORE_NAMES], LOCK_EX);

    return r < 0 ? err_origin_errno(r, "cannot lock %s/names", s->path) : 0;
}

void store_unlock_names(struct store *s)
{
    (void)store_flock(s->folders[STORE_NAMES], LOCK_UN);
}

int store_file_init(struct store_file *f, struct store *s)
{
    int r;

    *f = (struct store_file){.store = s, .fd = -1};
    for (unsigned i = 0; i < TRIES_MAX && f->fd < 0; i++) {
        (void)snprintf(f->name, sizeof(f->name), "%d.%u", (int)getpid(), i);
        f->fd = openat(s->folders[STORE_TMP], f->name,
                       O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0444);
        if (f->fd < 0 && errno != EEXIST)
            break;
    }
    if (f->fd < 0) {
        r = err_origin_errno(-errno, "cannot create a file in %s/tmp", s->path);
        f->name[0] = '\0';
        return r;
    }
    r = store_flock(f->fd, LOCK_SH);
    if (r == 0)
        return 0;
    r = err_origin_errno(r, "cannot lock a file in %s/tmp", s->path);
    store_file_deinit(f);
    return r;
}

void store_file_deinit(struct store_file *f)
{
    if (f->name[0] != '\0')
        (void)unlinkat(f->store->folders[STORE_TMP], f->name, 0);
    f->name[0] = '\0';
    f->fd = fd_close(f->fd);
}

/* sync_file() - what was written survives a crash of the host */
static int sync_file(struct store_file *f)
{
    assert(f->store);
    return fsync(f->fd) < 0 ? err_origin_errno(-errno, "cannot write a file in %s/tmp to the disk",
                                               f->store->path)
                            : 0;
}

/* move() - the file gets its place, which must be free. Return: 0; -EEXIST (no text); others with a text */
static int move(struct store_file *f, enum store_folder to, const char *name, unsigned flags)
{
    struct store *s = f->store;

    assert(s);
    if (renameat2(s->folders[STORE_TMP], f->name, s->folders[to], name, flags) < 0)
        return errno == EEXIST ? -EEXIST
                               : err_origin_errno(-errno, "cannot put a file at %s/%s/%s", s->path,
                                                  store_folder_name(to), name);
    f->name[0] = '\0';
    return 0;
}

int store_put_pack(struct store_file *f, const uint8_t id[IMAGE_ID_BYTES], uint64_t bytes)
{
    struct store *s = f->store;
    char text[IMAGE_ID_TEXT];
    struct stat st;
    int r = sync_file(f);

    if (r == 0)
        r = move(f, STORE_PACKS, image_id_text(id, text), RENAME_NOREPLACE);
    if (r == -EEXIST) {
        if (fstatat(s->folders[STORE_PACKS], text, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return err_origin_errno(-errno, "cannot look at %s/packs/%s", s->path, text);
        if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != bytes)
            return err_origin(-EIO, "%s/packs/%s is damaged: it has %ju bytes, expected %" PRIu64,
                              s->path, text, (uintmax_t)st.st_size, bytes);
        r = 0;
    }
    return r == 0 ? store_sync(s, STORE_PACKS) : r;
}

/* hold_manifest() - the shared lock of one that is there. Return: the fd (give); -ENOENT: it went away meanwhile (no text) */
static int hold_manifest(struct store *s, const char *id)
{
    _cleanup_fd_ int fd =
        openat(s->folders[STORE_MANIFESTS], id, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int r;

    if (fd < 0 && errno == ENOENT)
        return -ENOENT;
    r = fd < 0 ? -errno : store_flock(fd, LOCK_SH); /* who removes it is done soon */
    if (r < 0)
        return err_origin_errno(r, "cannot lock %s/manifests/%s", s->path, id);
    return store_is_there(s, STORE_MANIFESTS, id, fd) ? TAKE_FD(fd) : -ENOENT;
}

/* place_manifest() - the file gets its place, or one that is there is locked. Return: the fd (give) */
static int place_manifest(struct store_file *f, const char *id)
{
    for (unsigned i = 0; i < TRIES_MAX; i++) {
        int r = move(f, STORE_MANIFESTS, id, RENAME_NOREPLACE);

        if (r == 0)
            return TAKE_FD(f->fd);
        if (r != -EEXIST)
            return r;
        r = hold_manifest(f->store, id);
        if (r != -ENOENT)
            return r;
    }
    return err_origin(-EBUSY, "%s/manifests/%s comes and goes", f->store->path, id);
}

int store_put_manifest(struct store *s, struct manifest *m, int *fd)
{
    _cleanup_(store_file_deinit) struct store_file f = {.fd = -1};
    _cleanup_fd_ int held = -1;
    char text[IMAGE_ID_TEXT];
    void *bytes = NULL;
    size_t len = 0;
    int r = manifest_format(m, &bytes, &len);

    if (r < 0)
        return r;
    r = store_file_init(&f, s);
    if (r == 0) {
        r = fd_write_all(f.fd, bytes, len);
        if (r < 0)
            (void)err_origin_errno(r, "cannot write a manifest in %s/tmp", s->path);
    }
    free(bytes);
    if (r == 0)
        r = sync_file(&f);
    if (r < 0)
        return r;
    held = place_manifest(&f, image_id_text(m->id, text));
    r = held < 0 ? held : store_sync(s, STORE_MANIFESTS);
    if (r == 0)
        *fd = TAKE_FD(held);
    return r;
}

int store_put_name(struct store *s, const char *name, const uint8_t id[IMAGE_ID_BYTES],
                   bool replace)
{
    _cleanup_(store_file_deinit) struct store_file f = {.fd = -1};
    char text[IMAGE_ID_TEXT];
    char line[IMAGE_ID_TEXT + 1];
    int r = store_check_name(name);

    if (r == 0)
        r = store_file_init(&f, s);
    if (r < 0)
        return r;
    (void)snprintf(line, sizeof(line), "%s\n", image_id_text(id, text));
    r = fd_write_all(f.fd, line, IMAGE_ID_TEXT);
    if (r < 0)
        return err_origin_errno(r, "cannot write a name in %s/tmp", s->path);
    r = sync_file(&f);
    if (r == 0)
        r = store_lock_names(s);
    if (r < 0)
        return r;
    r = move(&f, STORE_NAMES, name, replace ? 0 : RENAME_NOREPLACE);
    if (r == -EEXIST)
        r = err_origin(-EEXIST, "there is an image %s in the store %s", name, s->path);
    if (r == 0)
        r = store_sync(s, STORE_NAMES);
    store_unlock_names(s);
    return r;
}
