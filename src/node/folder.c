/* SPDX-License-Identifier: Apache-2.0 */
#include "node/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "node/tree.h"

#define TRIES_MAX 100u /* of hidden names */
#define OPEN_FDS  16   /* while a tree is walked */

static int open_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    return fd < 0 ? -errno : fd;
}

static int make_one(const char *path)
{
    return mkdir(path, 0700) < 0 && errno != EEXIST
               ? err_origin_errno(-errno, "cannot make the folder %s", path)
               : 0;
}

/* sync_given() - a folder of the user's, who may have given a link to it */
static int sync_given(const char *path)
{
    _cleanup_fd_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd < 0 ? -errno : folder_sync(fd);

    return r < 0 ? err_origin_errno(r, "cannot write %s to the disk", path) : 0;
}

int folder_make(const char *path, const char *name)
{
    char *inside = NULL;
    int r = make_one(path);

    if (r == 0 && asprintf(&inside, "%s/%s", path, name) < 0)
        r = err_origin_errno(-ENOMEM, "cannot make the folder %s/%s", path, name);
    if (r == 0) {
        r = make_one(inside);
        free(inside);
    }
    return r == 0 ? sync_given(path) : r;
}

/* ---- locks ---------------------------------------------------------------------------------------------------- */

/* is_at() - does the name lead to the folder that @fd has open? */
static bool is_at(const char *path, int fd)
{
    struct stat open_one;
    struct stat named;

    return fstat(fd, &open_one) == 0 && lstat(path, &named) == 0 &&
           open_one.st_ino == named.st_ino && open_one.st_dev == named.st_dev;
}

int folder_lock(const char *path, enum folder_lock how, unsigned timeout_ms, int *fd)
{
    uint64_t until_ns = clock_now_ns() + timeout_ms * NS_PER_MS;
    _cleanup_fd_ int opened = open_folder(path);
    int r;

    if (opened < 0)
        return err_origin_errno(opened, "cannot open the folder %s", path);
    r = fd_lock(opened, how == FOLDER_ALONE ? LOCK_EX : LOCK_SH, until_ns);
    if (r == -EWOULDBLOCK)
        return err_origin(-EBUSY, "somebody else works with %s", path);
    if (r < 0)
        return err_origin_errno(r, "cannot lock the folder %s", path);
    if (!is_at(path, opened))
        return err_origin(-ENOENT, "%s was removed meanwhile", path);
    *fd = TAKE_FD(opened);
    return 0;
}

/* ---- removing ------------------------------------------------------------------------------------------------- */

/* hidden_path() - a name that only this process gives. Return: (give) NULL: no memory */
static char *hidden_path(const char *parent, const char *name, unsigned number)
{
    char *path = NULL;

    return asprintf(&path, "%s/.%s.%d.%u", parent, name, (int)getpid(), number) < 0 ? NULL : path;
}

/* hide() - a folder loses its name. @hidden: (give) its new path */
static int hide(const char *path, const char *parent, const char *name, char **hidden)
{
    for (unsigned i = 0; i < TRIES_MAX; i++) {
        char *to = hidden_path(parent, name, i);

        if (!to)
            return err_origin_errno(-ENOMEM, "cannot remove %s", path);
        if (renameat2(AT_FDCWD, path, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
            *hidden = to;
            return 0;
        }
        free(to);
        if (errno != EEXIST)
            break;
    }
    return err_origin_errno(-errno, "cannot remove %s", path);
}

int folder_remove(const char *parent, const char *name, int fd)
{
    char *path = NULL;
    char *hidden = NULL;
    int r;

    if (asprintf(&path, "%s/%s", parent, name) < 0)
        return err_origin_errno(-ENOMEM, "cannot remove %s/%s", parent, name);
    r = is_at(path, fd) ? hide(path, parent, name, &hidden)
                        : err_origin(-ENOENT, "%s was removed meanwhile", path);
    if (r == 0)
        r = tree_sync(parent);
    if (r == 0)
        r = tree_remove(hidden) < 0 ? -EIO : 0;
    free(path);
    free(hidden);
    return r;
}

/* sweep_one() - a hidden folder; one that is locked belongs to somebody who lives */
static int sweep_one(const char *path, int (*end)(void *ctx, const char *path), void *ctx)
{
    _cleanup_fd_ int fd = open_folder(path);

    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || !is_at(path, fd))
        return 0; /* somebody was faster, or it is no folder of ours */
    if (end && end(ctx, path) != 0)
        return 0;
    return tree_remove(path);
}

/* is_hidden() - such as folder_new_init() makes */
static bool is_hidden(const char *name)
{
    return name[0] == '.' && name[1] != '\0' && strcmp(name, "..") != 0;
}

int folder_sweep(const char *parent, int (*end)(void *ctx, const char *path), void *ctx)
{
    DIR *dir = opendir(parent);
    struct dirent *entry;
    int r = 0;

    if (!dir)
        return errno == ENOENT ? 0 : err_origin_errno(-errno, "cannot read %s", parent);
    while (r == 0 && (entry = readdir(dir)) != NULL) {
        char *path = NULL;

        if (!is_hidden(entry->d_name))
            continue;
        if (asprintf(&path, "%s/%s", parent, entry->d_name) < 0) {
            r = err_origin_errno(-ENOMEM, "cannot clean %s", parent);
            break;
        }
        r = sweep_one(path, end, ctx);
        free(path);
    }
    (void)closedir(dir);
    return r;
}

/* ---- making --------------------------------------------------------------------------------------------------- */

/* make_hidden() - a new folder that we hold. Return: 0; 1: that name is taken; or a negative errno (no text) */
static int make_hidden(struct folder_new *f, unsigned number)
{
    int r;

    free(f->path);
    f->path = hidden_path(f->parent, f->name, number);
    if (!f->path)
        return -ENOMEM;
    if (mkdir(f->path, 0700) < 0)
        return errno == EEXIST ? 1 : -errno;
    f->fd = open_folder(f->path);
    if (f->fd >= 0 && flock(f->fd, LOCK_EX) == 0 && is_at(f->path, f->fd))
        return 0;
    r = f->fd < 0 && f->fd != -ENOENT ? f->fd : 1; /* 1: taken for rubbish before it was locked */
    f->fd = fd_close(f->fd);
    if (r < 0)
        (void)rmdir(f->path);
    return r;
}

int folder_new_init(struct folder_new *f, const char *parent, const char *name)
{
    char *final = NULL;
    struct stat st;
    int r = 1;

    *f = (struct folder_new){.parent = strdup(parent), .name = strdup(name), .fd = -1};
    if (!f->parent || !f->name || asprintf(&final, "%s/%s", parent, name) < 0)
        r = -ENOMEM;
    else if (lstat(final, &st) == 0)
        r = -EEXIST;
    for (unsigned i = 0; i < TRIES_MAX && r > 0; i++)
        r = make_hidden(f, i);
    free(final);
    if (r == -EEXIST)
        (void)err_origin(r, "%s/%s is there already", parent, name);
    else if (r != 0)
        r = err_origin_errno(r > 0 ? -EEXIST : r, "cannot make the folder %s/%s", parent, name);
    if (r < 0) {
        if (f->fd < 0) {
            free(f->path);
            f->path = NULL; /* not ours to remove */
        }
        folder_new_deinit(f);
    }
    return r;
}

/* sync_entry() - Return: 0; 1: there is a text */
static int sync_entry(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)at;
    if (kind != FTW_DP && !S_ISREG(st->st_mode))
        return 0;
    return tree_sync(path) < 0 ? 1 : 0;
}

int folder_new_place(struct folder_new *f)
{
    char *final = NULL;
    int r = nftw(f->path, sync_entry, OPEN_FDS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);

    assert(!f->placed);
    if (r != 0)
        return r < 0 ? err_origin_errno(-errno, "cannot write %s to the disk", f->path) : -EIO;
    if (asprintf(&final, "%s/%s", f->parent, f->name) < 0)
        return err_origin_errno(-ENOMEM, "cannot put %s into its place", f->path);
    if (renameat2(AT_FDCWD, f->path, AT_FDCWD, final, RENAME_NOREPLACE) < 0) {
        r = errno == EEXIST ? err_origin(-EEXIST, "%s is there already", final)
                            : err_origin_errno(-errno, "cannot make %s", final);
        free(final);
        return r;
    }
    free(f->path);
    f->path = final;
    f->placed = true;
    return tree_sync(f->parent);
}

void folder_new_leave(struct folder_new *f)
{
    free(f->path);
    f->path = NULL;
}

void folder_new_deinit(struct folder_new *f)
{
    if (!f->placed && f->path)
        (void)tree_remove(f->path);
    f->fd = fd_close(f->fd);
    free(f->path);
    free(f->name);
    free(f->parent);
    *f = (struct folder_new){.fd = -1};
}

/* ---- looking -------------------------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_name(struct folder_list *list, const char *name)
{
    char **more = reallocarray(list->names, list->n + 1, sizeof(*more));

    if (!more)
        return -ENOMEM;
    list->names = more;
    more[list->n] = strdup(name);
    return more[list->n] ? (list->n++, 0) : -ENOMEM;
}

int folder_list(const char *parent, struct folder_list *out)
{
    struct folder_list list = {0};
    DIR *dir = opendir(parent);
    struct dirent *entry;
    int r = 0;

    if (!dir && errno == ENOENT) {
        *out = list;
        return 0;
    }
    if (!dir)
        return err_origin_errno(-errno, "cannot read %s", parent);
    while (r == 0 && (errno = 0, entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.')
            r = add_name(&list, entry->d_name);
    }
    if (r == 0 && errno != 0)
        r = -errno;
    (void)closedir(dir);
    if (r < 0) {
        folder_list_deinit(&list);
        return err_origin_errno(r, "cannot read %s", parent);
    }
    if (list.n > 0)
        qsort((void *)list.names, list.n, sizeof(*list.names), compare_names);
    *out = list;
    return 0;
}

void folder_list_deinit(struct folder_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->names[i]);
    free((void *)list->names);
    *list = (struct folder_list){0};
}
