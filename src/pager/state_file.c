/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/procfs.h"
#include "pager/state_dir.h"

/* find_dir() - @dir or the default one */
static int find_dir(const char **dir, char *fallback, size_t len)
{
    if (*dir)
        return 0;
    if (state_dir_default(fallback, len) < 0)
        return err_origin(-ENAMETOOLONG, "the default state directory's name is too long");
    *dir = fallback;
    return 0;
}

/* ---- making one ----------------------------------------------------------------------------------------------- */

/* create_file() - under a temporary name first: whoever lists the directory sees whole blocks only */
/* #syscalls:start openat open fallocate flock unlink unlinkat */
static int create_file(struct state_file *s, const char *temp)
{
    int r;

    (void)unlink(temp); /* of a process that had our number and died */
    s->fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->fd < 0)
        return err_origin_errno(-errno, "cannot create state file %s", temp);
    if (flock(s->fd, LOCK_EX | LOCK_NB) < 0)
        return err_origin_errno(-errno, "cannot lock state file %s", temp);
    r = posix_fallocate(s->fd, 0, (off_t)s->map_bytes);
    if (r != 0)
        return err_origin_errno(-r, "cannot allocate %zu bytes for state file %s", s->map_bytes,
                                temp);
    s->map = mmap(NULL, s->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
    if (s->map == MAP_FAILED) {
        s->map = NULL;
        return err_origin_errno(-errno, "cannot map state file %s", temp);
    }
    return 0;
}

static void write_facts(struct block_header *h, const struct state_facts *facts)
{
    h->pager_pid = getpid();
    h->vmm_pid = facts->vmm_pid;
    h->vmm_uid = facts->vmm_uid;
    h->vmm_start_ticks = facts->vmm_start_ticks;
    h->uffd_device = facts->uffd_device;
    h->uffd_inode = facts->uffd_inode;
    h->track = facts->track;
    h->start_time_ns = clock_wall_ns();
    h->memory_device = facts->memory_device;
    h->memory_inode = facts->memory_inode;
    (void)strncpy(h->memory_path, facts->memory_path, sizeof(h->memory_path) - 1);
}

/* struct content - what a new file begins with: facts about a VM that nobody has served, or a block to upgrade */
struct content {
    const struct geom *geom;
    const struct state_facts *facts; /* NULL: before is given */
    const struct block *before;
};

/* is_about() - is it about the process with this number that runs now? When that had begun is not always known */
static bool is_about(const struct block_header *h, int vmm_pid)
{
    uint64_t ticks = 0;

    if (h->magic != BLOCK_MAGIC || h->vmm_pid != vmm_pid)
        return false;
    if (h->version < 2 || h->vmm_start_ticks == 0 || procfs_start_ticks(vmm_pid, &ticks) < 0)
        return true;
    return h->vmm_start_ticks == ticks;
}

/*
 * check_place() - does the file stand for a VM that lives? Then it is not to be replaced
 *
 * A pager that was killed leaves its file to the next one. Our number was its number: they come around, and in each container
 * they are the same.
 */
/* #syscalls:start openat open flock pread64 */
static int check_place(const char *path)
{
    _cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct block_header h;
    uint64_t ticks;

    if (fd < 0 || pread(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) || h.magic != BLOCK_MAGIC)
        return 0;
    if (flock(fd, LOCK_SH | LOCK_NB) < 0)
        return err_origin(-EBUSY, "state file %s is in use by another pager with this number",
                          path);
    if (h.vmm_pid <= 0 || procfs_start_ticks(h.vmm_pid, &ticks) < 0 || !is_about(&h, h.vmm_pid) ||
        (h.version == BLOCK_VERSION && h.let_go))
        return 0;
    return err_origin(-EEXIST,
                      "state file %s is of process %d, which has no pager any more (see thaw serve "
                      "--adopt)",
                      path, h.vmm_pid);
}

/* create_block() - the file s->path, whole or not at all */
/* #syscalls:start rename renameat renameat2 */
static int create_block(struct state_file *s, const struct content *content)
{
    char temp[PATH_MAX];
    int r;

    if (snprintf(temp, sizeof(temp), "%s.new", s->path) >= (int)sizeof(temp))
        return err_origin(-ENAMETOOLONG, "state file name %s is too long", s->path);
    s->map_bytes = block_bytes(content->geom->n_regions, content->geom->n_pages);
    r = create_file(s, temp);
    if (r < 0) {
        (void)unlink(temp);
        return r;
    }
    if (content->facts) {
        block_format(&s->block, s->map, content->geom);
        write_facts(s->block.header, content->facts);
    } else {
        block_upgrade(&s->block, s->map, content->before);
    }
    if (rename(temp, s->path) < 0) {
        r = err_origin_errno(-errno, "cannot create state file %s", s->path);
        (void)unlink(temp);
        return r;
    }
    return 0;
}

int state_file_new(struct state_file *out, const char *dir, const struct geom *geom,
                   const struct state_facts *facts)
{
    struct state_file s = STATE_FILE_NONE;
    struct content content = {.geom = geom, .facts = facts};
    char fallback[PATH_MAX];
    char path[PATH_MAX];
    int r = find_dir(&dir, fallback, sizeof(fallback));

    if (r == 0)
        r = state_dir_make(dir);
    if (r == 0)
        r = state_path(dir, getpid(), path, sizeof(path));
    if (r == 0)
        r = check_place(path);
    if (r < 0)
        return r;
    s.path = strdup(path);
    if (!s.path)
        return err_origin_errno(-ENOMEM, "cannot create a state file");
    r = create_block(&s, &content);
    if (r < 0) {
        state_file_leave(&s);
        return r;
    }
    *out = s;
    return 0;
}

/* ---- taking one over ------------------------------------------------------------------------------------------ */

enum {
    _ADOPT_E_SUCCESS,
    ADOPT_E_OTHER, /* a file, but not of the VMM that is meant */
};

/* #syscalls:start flock newfstatat fstat stat */
/* map_file() - lock it and map it: whoever fails has changed nothing */
static int map_file(struct state_file *s)
{
    struct stat st;
    struct stat named;

    if (flock(s->fd, LOCK_EX | LOCK_NB) < 0)
        return err_origin(
            -EBUSY, "another process serves that VM: it holds the lock on state file %s", s->path);
    if (fstat(s->fd, &st) < 0)
        return err_origin_errno(-errno, "cannot look at state file %s", s->path);
    if (stat(s->path, &named) < 0 || named.st_ino != st.st_ino || named.st_dev != st.st_dev)
        return err_origin(-EBUSY, "state file %s was replaced by another process", s->path);
    s->map_bytes = (size_t)st.st_size;
    s->map = mmap(NULL, s->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, 0);
    if (s->map == MAP_FAILED) {
        s->map = NULL;
        return err_origin_errno(-errno, "cannot map state file %s", s->path);
    }
    return 0;
}

/* upgrade() - a new file with the same name and content takes the place of one of the version before */
static int upgrade(struct state_file *s, const struct block *before)
{
    struct state_file next = STATE_FILE_NONE;
    struct content content = {.geom = &before->geom, .before = before};
    int r;

    next.path = strdup(s->path);
    if (!next.path)
        return err_origin_errno(-ENOMEM, "cannot take over state file %s", s->path);
    r = create_block(&next, &content);
    if (r < 0) {
        state_file_leave(&next);
        return r;
    }
    state_file_leave(s);
    *s = next;
    return 0;
}

/* open_block() - check what the locked file says */
static int open_block(struct state_file *s)
{
    struct block before;
    int r = block_open(&s->block, s->map, s->map_bytes);

    if (r == BLOCK_E_VERSION) {
        r = block_open_before(&before, s->map, s->map_bytes);
        if (r == 0)
            return upgrade(s, &before);
    }
    if (r == BLOCK_E_VERSION)
        return err_origin(-EPROTONOSUPPORT,
                          "state file %s is of version %u, this thaw takes over versions %u and %u",
                          s->path, ((const struct block_header *)s->map)->version,
                          BLOCK_VERSION - 1, BLOCK_VERSION);
    if (r != 0)
        return err_origin(-EINVAL, "%s is not a state file, or is damaged", s->path);
    return 0;
}

/* #syscalls:start pread64 */
/* adopt_file() - s->path, if it is about @vmm_pid (0: whomever it is about). Return: 0, ADOPT_E_OTHER or an error */
static int adopt_file(struct state_file *s, int vmm_pid)
{
    struct block_header h;
    int r;

    s->fd = open(s->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (s->fd < 0)
        return err_origin_errno(-errno, "cannot open state file %s", s->path);
    if (pread(s->fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) || h.magic != BLOCK_MAGIC)
        return vmm_pid != 0 ? ADOPT_E_OTHER
                            : err_origin(-EINVAL, "%s is not a state file, or is damaged", s->path);
    if (vmm_pid != 0 && !is_about(&h, vmm_pid))
        return ADOPT_E_OTHER;
    r = map_file(s);
    if (r == 0)
        r = open_block(s);
    return r;
}

static int adopt_path(struct state_file *out, const char *path, int vmm_pid)
{
    struct state_file s = STATE_FILE_NONE;
    int r;

    s.path = strdup(path);
    if (!s.path)
        return err_origin_errno(-ENOMEM, "cannot take over state file %s", path);
    r = adopt_file(&s, vmm_pid);
    if (r != 0)
        state_file_leave(&s);
    else
        *out = s;
    return r;
}

/* adopt_pid() - the one file of @dir that is about @vmm_pid */
static int adopt_pid(struct state_file *out, const char *dir, int vmm_pid)
{
    _cleanup_(state_list_freep) struct state_list *list = NULL;
    struct state_file found = STATE_FILE_NONE;
    char path[PATH_MAX];
    int error = 0;
    int r = state_list_read(dir, &list);

    if (r < 0)
        return r;
    for (unsigned i = 0; i < list->n && error != -EINVAL; i++) {
        struct state_file s = STATE_FILE_NONE;

        r = state_path(dir, list->pids[i], path, sizeof(path));
        if (r == 0)
            r = adopt_path(&s, path, vmm_pid);
        if (r < 0 && r != -ENOENT)
            error = r;
        if (r != 0)
            continue;
        if (found.map) {
            error = err_origin(-EINVAL,
                               "process %d has several memories: say which, by a state file of %s",
                               vmm_pid, dir);
            state_file_leave(&s);
            continue;
        }
        found = s;
    }
    if (found.map && error != -EINVAL) {
        *out = found;
        return 0;
    }
    state_file_leave(&found);
    if (error < 0)
        return error;
    return err_origin(-ENOENT, "no state file in %s is about process %d", dir, vmm_pid);
}

int state_file_adopt(struct state_file *out, const char *dir, const char *which)
{
    char fallback[PATH_MAX];
    char *end = NULL;
    long pid;
    int r;

    errno = 0;
    pid = strtol(which, &end, 10);
    if (which[0] < '1' || which[0] > '9' || *end != '\0')
        return adopt_path(out, which, 0);
    if (errno != 0 || pid > INT32_MAX)
        return err_origin(-EINVAL, "%s is no process id", which);
    r = find_dir(&dir, fallback, sizeof(fallback));
    return r < 0 ? r : adopt_pid(out, dir, (int)pid);
}

/* ---- the end -------------------------------------------------------------------------------------------------- */

void state_file_leave(struct state_file *s)
{
    if (s->map)
        (void)munmap(s->map, s->map_bytes);
    (void)fd_close(s->fd);
    free(s->path);
    *s = (struct state_file)STATE_FILE_NONE;
}

/* #syscalls unlink unlinkat */
void state_file_deinit(struct state_file *s)
{
    if (s->path)
        (void)unlink(s->path);
    state_file_leave(s);
}
