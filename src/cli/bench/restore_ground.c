/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore_ground.c - what all restores of `thaw bench restore` share: a folder, a raw memory file, the page cache
 *
 * The raw memory file is the template's image, unpacked: what the VMM's own restore maps. Cold means that none of the files that a
 * restore reads is in the page cache, and warm that all are. What is on a file system in memory cannot be cold; that is told
 * before anything is measured.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "cli/bench/restore.h"
#include "image/store.h"
#include "image/unpack.h"
#include "node/tree.h"

#define READ_BYTES (256 * KIB)

/* unpack_memory() - the template's memory as a raw file in the folder */
static int unpack_memory(const struct restore_ground *g)
{
    _cleanup_(store_closep) struct store *store = NULL;
    _cleanup_(image_closep) struct image *img = NULL;
    _cleanup_fd_ int fd = -1;
    struct image_job job = {.n_threads = parallel_default_threads()};
    char path[PATH_MAX];
    int r = tree_path(path, sizeof(path), g->folder, VMM_FILE_MEMORY);

    if (r == 0)
        r = store_open(&store, g->store, false);
    if (r == 0)
        r = image_open(&img, store, g->template->image);
    if (r < 0)
        return r;
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_origin_errno(-errno, "cannot make %s", path);
    r = unpack_image(img, fd, path, &job);
    if (r == 0 && fsync(fd) < 0)
        r = err_origin_errno(-errno, "cannot write %s to its disk", path);
    return r;
}

int restore_ground_init(struct restore_ground *g, const struct template *t, const char *store,
                        const char *dir, bool files, unsigned timeout_ms)
{
    int r = 0;

    *g = (struct restore_ground){.template = t, .store = store, .timeout_ms = timeout_ms};
    if (snprintf(g->folder, sizeof(g->folder), "%s/thaw-bench-XXXXXX", dir) >=
        (int)sizeof(g->folder))
        r = err_origin(-ENAMETOOLONG, "the folder name %s is too long", dir);
    else if (!mkdtemp(g->folder))
        r = err_origin_errno(-errno, "cannot make a folder in %s", dir);
    if (r < 0) {
        g->folder[0] = '\0';
        return r;
    }
    if (files)
        r = unpack_memory(g);
    if (r < 0)
        restore_ground_deinit(g);
    return r;
}

void restore_ground_deinit(struct restore_ground *g)
{
    if (g->folder[0] != '\0')
        (void)tree_remove(g->folder);
    g->folder[0] = '\0';
}

/* ---- the page cache ------------------------------------------------------------------------------------------- */

static int read_through(int fd, const char *path)
{
    static char sink[READ_BYTES];
    ssize_t n;

    while ((n = read(fd, sink, sizeof(sink))) > 0)
        ;
    return n < 0 ? err_origin_errno(-errno, "cannot read %s", path) : 0;
}

static int cache_fd(int fd, const char *path, bool cold)
{
    struct statfs fs;

    if (!cold)
        return read_through(fd, path);
    if (fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC))
        return err_origin(-EOPNOTSUPP,
                          "%s lies in memory and cannot be cold: choose a store and a --dir that "
                          "are on a disk, or --warm",
                          path);
    (void)fsync(fd); /* what is not written yet cannot be dropped */
    if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
        return err_origin(-EIO, "cannot drop %s from the page cache", path);
    return 0;
}

static int cache_file(const char *folder, const char *name, bool cold)
{
    _cleanup_fd_ int fd = -1;
    char path[PATH_MAX];
    int r = tree_path(path, sizeof(path), folder, name);

    if (r < 0)
        return r;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_origin_errno(-errno, "cannot open %s", path);
    return cache_fd(fd, path, cold);
}

static int cache_packs(const struct restore_ground *g, bool cold)
{
    _cleanup_(store_closep) struct store *store = NULL;
    _cleanup_(image_closep) struct image *img = NULL;
    int r = store_open(&store, g->store, false);

    if (r == 0)
        r = image_open(&img, store, g->template->image);
    for (uint32_t i = 0; r == 0 && i < img->manifest->n_packs; i++)
        r = cache_fd(img->pack_fds[i], img->pack_names[i], cold);
    if (r == 0)
        r = cache_fd(img->manifest_fd, img->name, cold);
    return r;
}

int restore_cache(const struct restore_ground *g, enum restore_kind kind, bool cold)
{
    static const char *const files[] = {VMM_FILE_STATE, VMM_FILE_KERNEL, VMM_FILE_INITRD,
                                        VMM_FILE_ROOTFS};
    char *folder = template_folder(g->store, g->template->name);
    int r = folder ? 0 : err_origin_errno(-ENOMEM, "no memory for the name of a folder");

    for (size_t i = 0; r == 0 && i < ARRAY_LEN(files); i++)
        r = cache_file(folder, files[i], cold);
    free(folder);
    if (r < 0)
        return r;
    return kind == RESTORE_FILE ? cache_file(g->folder, VMM_FILE_MEMORY, cold)
                                : cache_packs(g, cold);
}
