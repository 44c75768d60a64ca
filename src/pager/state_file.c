/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"

int state_dir_default(char *buf, size_t len)
{
    const char *runtime =
        getenv("XDG_RUNTIME_DIR"); /* NOLINT(concurrency-mt-unsafe): read at start */
    int n;

    if (geteuid() == 0)
        n = snprintf(buf, len, "/run/thaw");
    else if (runtime && runtime[0] == '/')
        n = snprintf(buf, len, "%s/thaw", runtime);
    else
        n = snprintf(buf, len, "/tmp/thaw-%u", geteuid());
    return n < 0 || (size_t)n >= len ? -ENAMETOOLONG : 0;
}

/* #syscalls mkdir mkdirat */
static int make_dir(const char *dir)
{
    struct stat st;

    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return err_origin_errno(-errno, "cannot create state directory %s", dir);
    if (stat(dir, &st) < 0)
        return err_origin_errno(-errno, "cannot look at state directory %s", dir);
    if (!S_ISDIR(st.st_mode))
        return err_origin(-ENOTDIR, "state directory %s is no directory", dir);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return err_origin(-EPERM, "state directory %s belongs to user %u, expected %u", dir,
                          st.st_uid, geteuid());
    return 0;
}

/* create_file() - under a temporary name first: whoever lists the directory sees whole blocks only */
/* #syscalls openat open fallocate */
static int create_file(struct state_file *s, const char *temp)
{
    _cleanup_fd_ int fd = -1;
    int r;

    (void)unlink(temp); /* of a process that had our number and died */
    fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_origin_errno(-errno, "cannot create state file %s", temp);
    r = posix_fallocate(fd, 0, (off_t)s->map_bytes);
    if (r != 0)
        return err_origin_errno(-r, "cannot allocate %zu bytes for state file %s", s->map_bytes,
                                temp);
    s->map = mmap(NULL, s->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (s->map == MAP_FAILED) {
        s->map = NULL;
        return err_origin_errno(-errno, "cannot map state file %s", temp);
    }
    return 0;
}

/* #syscalls rename renameat renameat2 */
static int create_block(struct state_file *s, const struct geom *geom)
{
    char temp[PATH_MAX];
    int r;

    if (snprintf(temp, sizeof(temp), "%s.new", s->path) >= (int)sizeof(temp))
        return err_origin(-ENAMETOOLONG, "state file name %s is too long", s->path);
    r = create_file(s, temp);
    if (r < 0) {
        (void)unlink(temp);
        return r;
    }
    block_format(&s->block, s->map, geom);
    s->block.header->pager_pid = getpid();
    if (rename(temp, s->path) < 0) {
        r = err_origin_errno(-errno, "cannot create state file %s", s->path);
        (void)unlink(temp);
        return r;
    }
    return 0;
}

int state_file_new(struct state_file *out, const char *dir, const struct geom *geom)
{
    struct state_file s = {.map_bytes = block_bytes(geom->n_regions, geom->n_pages)};
    char fallback[PATH_MAX];
    int r;

    if (!dir) {
        if (state_dir_default(fallback, sizeof(fallback)) < 0)
            return err_origin(-ENAMETOOLONG, "the default state directory's name is too long");
        dir = fallback;
    }
    r = make_dir(dir);
    if (r < 0)
        return r;
    if (asprintf(&s.path, "%s/%d.state", dir, getpid()) < 0)
        return err_origin_errno(-ENOMEM, "cannot create a state file");
    r = create_block(&s, geom);
    if (r < 0) {
        if (s.map)
            (void)munmap(s.map, s.map_bytes);
        free(s.path);
        return r;
    }
    *out = s;
    return 0;
}

void state_file_deinit(struct state_file *s)
{
    if (s->path)
        (void)unlink(s->path);
    if (s->map)
        (void)munmap(s->map, s->map_bytes);
    free(s->path);
    *s = (struct state_file){0};
}
