/* SPDX-License-Identifier: Apache-2.0 */
#include "node/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"

#define DEPTH_MAX     16u
#define REMOVE_TRIES  50u /* of a folder into which somebody still writes */
#define REMOVE_NAP_NS (2 * NS_PER_MS)
#define COPY_BYTES    (64 * KIB)

int tree_path(char *buf, size_t len, const char *folder, const char *name)
{
    if (snprintf(buf, len, "%s/%s", folder, name) >= (int)len)
        return err_origin(-ENAMETOOLONG, "the folder name %s is too long", folder);
    return 0;
}

bool tree_exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

/*
 * copy_bytes() - by hand, where copy_file_range(2) does not work. Return: 0 or a negative errno (no text)
 *
 * The buffer is small enough for the stack; static thread-local memory would come off the small stacks of a pager's threads.
 */
static int copy_bytes(int from, int to, off_t at, off_t end)
{
    char buf[COPY_BYTES];

    while (at < end) {
        ssize_t n = pread(from, buf, min_u64(sizeof(buf), (uint64_t)(end - at)), at);
        int r;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        if (lseek(to, at, SEEK_SET) < 0)
            return -errno;
        r = fd_write_all(to, buf, (size_t)n);
        if (r < 0)
            return r;
        at += n;
    }
    return 0;
}

/* copy_span() - data, no holes. Return: 0 or a negative errno (no text) */
static int copy_span(int from, int to, off_t at, off_t end)
{
    while (at < end) {
        off_t in = at;
        off_t out = at;
        ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(end - at), 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP))
            return copy_bytes(from, to, at, end);
        if (n < 0)
            return -errno;
        if (n == 0) /* it became shorter */
            return -EIO;
        at += n;
    }
    return 0;
}

/* copy_data() - all data of the file; holes stay holes. Return: 0 or a negative errno (no text) */
static int copy_data(int from, int to)
{
    struct stat st;
    off_t at = 0;
    int r = 0;

    if (fstat(from, &st) < 0 || ftruncate(to, st.st_size) < 0)
        return -errno;
    while (at < st.st_size && r == 0) {
        off_t data = lseek(from, at, SEEK_DATA);
        off_t hole;

        if (data < 0 && errno == ENXIO)
            return 0;
        hole = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);
        if (data < 0 || hole < 0)
            return -errno;
        r = copy_span(from, to, data, hole);
        at = hole;
    }
    return r;
}

int tree_copy_file(const char *from, const char *to)
{
    _cleanup_fd_ int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    _cleanup_fd_ int out = -1;
    struct stat st;
    int r;

    if (in < 0 || fstat(in, &st) < 0)
        return err_origin_errno(-errno, "cannot open %s", from);
    if (!S_ISREG(st.st_mode))
        return err_origin(-EINVAL, "%s is not a file", from);
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, st.st_mode & 0777);
    if (out < 0)
        return err_origin_errno(-errno, "cannot create %s", to);
    if (ioctl(out, FICLONE, in) == 0)
        return 0;
    r = copy_data(in, out);
    if (r < 0) {
        (void)unlink(to);
        return err_origin_errno(r, "cannot copy %s to %s", from, to);
    }
    return 0;
}

int tree_link_file(const char *from, const char *to)
{
    if (link(from, to) == 0)
        return 0;
    if (errno == EXDEV || errno == EMLINK || errno == EPERM)
        return tree_copy_file(from, to);
    return err_origin_errno(-errno, "cannot link %s as %s", from, to);
}

int tree_link_durable(const char *from, const char *to)
{
    int r = tree_link_file(from, to);

    return r == 0 ? tree_sync(to) : r;
}

int tree_put_file(int (*put)(const char *from, const char *to), const char *from, const char *to,
                  const char *name)
{
    char source[PATH_MAX];
    char target[PATH_MAX];
    int r = tree_path(source, sizeof(source), from, name);

    if (r == 0)
        r = tree_path(target, sizeof(target), to, name);
    return r == 0 ? put(source, target) : r;
}

int tree_sync(const char *path)
{
    _cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    int r;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_origin_errno(-errno, "cannot write %s to the disk", path);
    if (S_ISDIR(st.st_mode))
        r = folder_sync(fd);
    else if (S_ISREG(st.st_mode))
        r = fsync(fd) < 0 ? -errno : 0;
    else
        return err_origin(-EINVAL, "%s is neither a file nor a folder", path);
    return r < 0 ? err_origin_errno(r, "cannot write %s to the disk", path) : 0;
}

/* ---- all of a folder ------------------------------------------------------------------------------------------ */

static void dir_closep(DIR **dir)
{
    if (*dir)
        (void)closedir(*dir);
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* struct walk - what is done with each entry; a folder's own come before it. Return: 0 or a negative errno (no text) */
/* @deep: of a folder that is too far down, in place of what is in it. NULL: that is -ELOOP */
struct walk {
    int (*entry)(void *ctx, int dir_fd, const char *name, bool is_folder);
    int (*deep)(void *ctx, int dir_fd, const char *name);
    void *ctx;
};

static int walk_entry(const struct walk *w, int dir_fd, const char *name, unsigned depth);

/* walk_folder() - Return: 0 or a negative errno (no text) */
/* NOLINTNEXTLINE(misc-no-recursion): at most DEPTH_MAX deep */
static int walk_folder(const struct walk *w, int dir_fd, const char *name, unsigned depth)
{
    _cleanup_(dir_closep) DIR *dir = NULL;
    struct dirent *entry;
    int fd;
    int r = 0;

    if (depth == DEPTH_MAX)
        return -ELOOP;
    fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        r = -errno;
        (void)fd_close(fd);
        return r;
    }
    while (r == 0 &&
           (errno = 0, entry = readdir(dir)) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
        if (!is_dots(entry->d_name))
            r = walk_entry(w, dirfd(dir), entry->d_name, depth + 1);
    }
    return r;
}

/* NOLINTNEXTLINE(misc-no-recursion): at most DEPTH_MAX deep */
static int walk_entry(const struct walk *w, int dir_fd, const char *name, unsigned depth)
{
    struct stat st;
    int r;

    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (S_ISDIR(st.st_mode) && depth == DEPTH_MAX && w->deep)
        return w->deep(w->ctx, dir_fd, name);
    r = S_ISDIR(st.st_mode) ? walk_folder(w, dir_fd, name, depth) : 0;
    if (r == 0)
        r = w->entry(w->ctx, dir_fd, name, S_ISDIR(st.st_mode));
    return r == -ENOENT ? 0 : r;
}

/* struct removal - of the folder @top_fd. @n_raised: folders that came up into it since it was read */
struct removal {
    int top_fd;
    unsigned n_raised;
    unsigned number; /* of the next one */
};

static int remove_entry(void *ctx, int dir_fd, const char *name, bool is_folder)
{
    (void)ctx;
    return unlinkat(dir_fd, name, is_folder ? AT_REMOVEDIR : 0) < 0 ? -errno : 0;
}

/* raise_deep() - who has made the folders, a VMM in a jail it may be, decides how deep they are. Ours are not */
static int raise_deep(void *ctx, int dir_fd, const char *name)
{
    struct removal *rm = ctx;
    char to[32];

    do {
        (void)snprintf(to, sizeof(to), ".deep.%u", rm->number++);
        if (renameat2(dir_fd, name, rm->top_fd, to, RENAME_NOREPLACE) == 0) {
            rm->n_raised++;
            return 0;
        }
    } while (errno == EEXIST);
    return -errno;
}

int tree_remove(const char *path)
{
    _cleanup_fd_ int top_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct removal rm = {.top_fd = top_fd};
    const struct walk w = {.entry = remove_entry, .deep = raise_deep, .ctx = &rm};
    int r = walk_entry(&w, AT_FDCWD, path, 0);

    /* Who waits for a process of the folder may be about to write down how it ended. What came up is looked at once more. */
    for (unsigned i = 0; r == -ENOTEMPTY && i < REMOVE_TRIES; i += rm.n_raised == 0) {
        if (rm.n_raised == 0)
            clock_sleep_ns(REMOVE_NAP_NS);
        rm.n_raised = 0;
        r = walk_entry(&w, AT_FDCWD, path, 0);
    }
    return r < 0 ? err_origin_errno(r, "cannot remove %s", path) : 0;
}

static int add_entry(void *ctx, int dir_fd, const char *name, bool is_folder)
{
    uint64_t *bytes = ctx;
    struct stat st;

    (void)is_folder;
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        *bytes += (uint64_t)st.st_blocks * 512;
    return 0;
}

uint64_t tree_bytes(const char *path)
{
    uint64_t bytes = 0;
    const struct walk w = {.entry = add_entry, .ctx = &bytes};

    return walk_entry(&w, AT_FDCWD, path, 0) < 0 ? 0 : bytes;
}
