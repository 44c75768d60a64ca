/* SPDX-License-Identifier: Apache-2.0 */
#include "node/state_copy.h"

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

int state_tell_ready(const struct state_copy *s, const char *path)
{
    int pid = s->block.header->pager_pid;

    if (s->stale || pid <= 0)
        return err_origin(-ESRCH, "no pager serves the VM of state file %s", path);
    if (kill(pid, SIGUSR2) < 0)
        return err_origin_errno(-errno, "cannot tell pager %d", pid);
    return 0;
}

struct state_copy *state_free(struct state_copy *s)
{
    if (s)
        free(s->mem);
    free(s);
    return NULL;
}
