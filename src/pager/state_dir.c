/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/state_dir.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

#define SUFFIX ".state"

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

/* #syscalls:start mkdir mkdirat stat newfstatat */
int state_dir_make(const char *dir)
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

static void dir_closep(DIR **d)
{
    if (*d)
        closedir(*d);
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
