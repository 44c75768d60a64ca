/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/map/state_list.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"

#define SUFFIX ".state"

static void dir_closep(DIR **d)
{
    if (*d)
        closedir(*d);
}

/*
 * All of the file; one that changes its size meanwhile is too short or too long for block_open().
 */
static int read_all(int fd, void *mem, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pread(fd, (char *)mem + done, len - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -ENODATA;
        done += (size_t)n;
    }
    return 0;
}

static void file_closep(FILE **f)
{
    if (*f)
        (void)fclose(*f);
}

/* Does a process with this number run, and has it the file mapped? A pager has, for all its life. */
static bool is_held(int pid, ino_t inode)
{
    _cleanup_(file_closep) FILE *maps = NULL;
    char line[PATH_MAX + 128];
    char path[64];

    if (pid <= 0 || (kill(pid, 0) < 0 && errno == ESRCH))
        return false;
    (void)snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    maps = fopen(path, "re");
    if (!maps)
        return errno != ENOENT; /* not ours to look at: it runs, more cannot be said */
    errno = 0;
    while (fgets(line, sizeof(line), maps)) {
        uintmax_t mapped = 0;

        if (sscanf(line, "%*s %*s %*s %*s %ju", &mapped) == 1 && mapped == inode)
            return true;
    }
    return errno == EACCES || errno == EPERM;
}

int state_read(const char *path, struct state_copy **out)
{
    _cleanup_(state_freep) struct state_copy *s = NULL;
    _cleanup_fd_ int fd = -1;
    struct stat st;
    int r;

    s = calloc(1, sizeof(*s));
    if (!s)
        return err_origin(-ENOMEM, "no memory");
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_origin_errno(-errno, "%s", path);
    if (fstat(fd, &st) < 0)
        return err_origin_errno(-errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return err_origin(-EINVAL, "%s is not a state file: not a regular file", path);
    s->mem_bytes = (size_t)st.st_size;
    s->mem = malloc(s->mem_bytes ? s->mem_bytes : 1);
    if (!s->mem)
        return err_origin(-ENOMEM, "no memory for the %zu bytes of %s", s->mem_bytes, path);
    r = read_all(fd, s->mem, s->mem_bytes);
    if (r < 0)
        return err_origin_errno(r, "reading %s", path);
    r = block_open(&s->block, s->mem, s->mem_bytes);
    if (r == BLOCK_E_VERSION)
        return err_origin(-EINVAL, "%s is the state file of another version of thaw", path);
    if (r > 0)
        return err_origin(-EINVAL, "%s is not a state file, or is damaged", path);
    s->stale = !is_held(s->block.header->pager_pid, st.st_ino);
    *out = TAKE(s);
    return 0;
}

struct state_copy *state_free(struct state_copy *s)
{
    if (s)
        free(s->mem);
    free(s);
    return NULL;
}

/* The pid in "123.state", 0 if it is another kind of name. */
static int pid_of(const char *name)
{
    char *end = NULL;
    long pid;

    if (name[0] < '1' || name[0] > '9')
        return 0;
    errno = 0;
    pid = strtol(name, &end, 10);
    if (errno || strcmp(end, SUFFIX) != 0 || pid > INT32_MAX)
        return 0;
    return (int)pid;
}

static int compare_pids(const void *a, const void *b)
{
    int x = *(const int *)a;
    int y = *(const int *)b;

    return (x > y) - (x < y);
}

int state_list_read(const char *dir, struct state_list **out)
{
    _cleanup_(state_list_freep) struct state_list *l = NULL;
    _cleanup_(dir_closep) DIR *d = NULL;
    struct dirent *e;

    l = calloc(1, sizeof(*l));
    if (!l)
        return err_origin(-ENOMEM, "no memory");
    d = opendir(dir);
    if (!d && errno != ENOENT)
        return err_origin_errno(-errno, "%s", dir);
    while (d && (e = readdir(d))) {
        int pid = pid_of(e->d_name);
        int *more;

        if (pid == 0)
            continue;
        more = realloc(l->pids, (l->n + 1) * sizeof(*l->pids));
        if (!more)
            return err_origin(-ENOMEM, "no memory");
        l->pids = more;
        l->pids[l->n++] = pid;
    }
    if (l->n > 0)
        qsort(l->pids, l->n, sizeof(*l->pids), compare_pids);
    *out = TAKE(l);
    return 0;
}

struct state_list *state_list_free(struct state_list *l)
{
    if (l)
        free(l->pids);
    free(l);
    return NULL;
}

int state_path(const char *dir, int pid, char *buf, size_t len)
{
    if (snprintf(buf, len, "%s/%d" SUFFIX, dir, pid) >= (int)len)
        return err_origin(-ENAMETOOLONG, "directory name %s is too long", dir);
    return 0;
}
