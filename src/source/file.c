/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file.c - a raw memory file: the guest's regions laid end to end, no header
 *
 * The file is mapped once, whole and read-only. The mapping is for the kernel: UFFDIO_COPY reads it, this process never
 * does. So a file that shrinks or a disk that fails shows as an error of the ioctl (EFAULT) and not as a SIGBUS.
 *
 * locate() is called for each fault and answers three questions (docs/decisions/0002 has what each costs):
 *
 *   Is the file still as long as it was?  lseek(SEEK_END), each time. A file cut within a page would otherwise read as
 *                                         zeroes from the cut to the end of that page.
 *   Is there a hole?                      The hole map, made when the file is opened. A hole is zero without being read.
 *   Are the bytes in the page cache?      Always, on tmpfs without swap. Else cachestat(2), Linux 6.5, for the GRANULE
 *                                         around, and what it says holds for FRESH_NS; or, when only a part is cached or
 *                                         the kernel is older, mincore(2). Linux answers both to the file's owner and to
 *                                         those who may write to it: for others preadv2(2) with RWF_NOWAIT, which takes
 *                                         longer.
 *
 * All of them leave the storage alone. What they say may be outdated a moment later, when the kernel drops a cached page:
 * then the install waits for the disk, slower but never wrong.
 *
 * On tmpfs, reading a hole through a mapping gives the file a page of memory, for good, and fails when the file system is
 * full. Runs of small pages leave holes out; a huge page that is a hole in part is put together in a buffer with pread(2),
 * which costs the file nothing.
 *
 * fetch() reads a range with preadv(2), page after page into the same few bytes that nobody looks at: what counts is that
 * the range is in the page cache. So a thread that fetches needs one page of memory for it, on its stack.
 */
#include "source/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"
#include "source/hole_map.h"

#define FETCH_PAGES      16 /* of SMALL_PAGE, read with one call */
#define SMALL_PAGE       4096ull
#define HUGE_PAGE        (2 * MIB)
#define WINDOW_MAX_PAGES 512 /* a locate() window is at most 2 MiB or one page */
#define WALK_BUDGET_NS   (20 * NS_PER_MS)
#define GRANULE          (256 * KIB) /* what one cachestat(2) is about */
#define FRESH_NS         (1 * NS_PER_S)
#define EXTENT_STEPS_MAX 8 /* extents looked at in one window before it is taken as data */

struct file_source {
    char *path;          /* for messages */
    int fd;              /* owned; its offset is not used by anything else */
    const char *map;     /* owned; map_bytes long */
    uint64_t size_bytes; /* as at open */
    struct hole_map holes;
    bool always_cached; /* the file system has no other place for its bytes than memory */
    char *
        mixed; /* owned; HUGE_PAGE bytes, on tmpfs: a page that is a hole in part. Pager thread only */
    bool has_cachestat; /* the kernel has cachestat(2) and lets us use it on this file */
    uid_t owner;
    int owned; /* are we the owner? -1: not asked yet */
    uint64_t *
        cached_ns; /* owned: when a GRANULE was last seen to be cached whole; 0: never. Pager thread only */
};

static struct file_source *file_source_free(struct file_source *f)
{
    if (!f)
        return NULL;
    if (f->map)
        (void)munmap((void *)f->map, f->size_bytes);
    if (f->mixed)
        (void)munmap(f->mixed, HUGE_PAGE);
    hole_map_deinit(&f->holes);
    (void)fd_close(f->fd);
    free(f->cached_ns);
    free(f->path);
    free(f);
    return NULL;
}

DEFINE_CLEANUP(struct file_source *, file_source_free);

/* check_size() - the file is as long as it was when it was opened, or an error */
/* #syscalls lseek */
static int check_size(const struct file_source *f)
{
    off_t size = lseek(f->fd, 0, SEEK_END);

    if (size < 0)
        return err_origin_errno(-errno, "cannot tell the size of memory file %s", f->path);
    if ((uint64_t)size < f->size_bytes)
        return err_origin(-EIO,
                          "memory file %s was truncated while it is served: %" PRIu64
                          " bytes, expected %" PRIu64,
                          f->path, (uint64_t)size, f->size_bytes);
    return 0;
}

/* is_owner() - asked when the pager serves: what it was when it opened the file it may have given away */
/* #syscalls geteuid */
static bool is_owner(struct file_source *f)
{
    if (f->owned < 0)
        f->owned = f->owner == geteuid();
    return f->owned;
}

/*
 * read_nowhere() - read up to FETCH_PAGES pages from @off on, all of them into one page that nobody looks at: what counts is
 * that they are in the page cache then. Return: bytes, or -1 and errno
 */
/* #syscalls preadv preadv2 */
static ssize_t read_nowhere(const struct file_source *f, uint64_t off, uint64_t len, int flags)
{
    char page[SMALL_PAGE];
    struct iovec into[FETCH_PAGES];
    uint64_t n_pages = min_u64(align_up(len, SMALL_PAGE) / SMALL_PAGE, FETCH_PAGES);

    for (unsigned i = 0; i < n_pages; i++)
        into[i] = (struct iovec){.iov_base = page, .iov_len = sizeof(page)};
    return preadv2(f->fd, into, (int)n_pages, (off_t)off, flags);
}

/*
 * cached_run() - how many bytes from @first on are in the page cache, up to @end; found by reading what takes no waiting
 * Return: a multiple of SMALL_PAGE, or a negative errno (no text).
 */
static int64_t cached_run(const struct file_source *f, uint64_t first, uint64_t end)
{
    uint64_t at = first;

    while (at < end) {
        uint64_t asked = min_u64(end - at, FETCH_PAGES * SMALL_PAGE);
        ssize_t n = read_nowhere(f, at, asked, RWF_NOWAIT);

        if (n < 0 && errno != EAGAIN)
            return -errno;
        if (n > 0)
            at += (uint64_t)n;
        if (n < (ssize_t)asked)
            break;
    }
    return (int64_t)align_down(at - first, SMALL_PAGE);
}

/* ask_cachestat() - is all of [first, end) in the page cache? false: no, or not known */
/* #syscalls cachestat */
static bool ask_cachestat(struct file_source *f, uint64_t first, uint64_t end)
{
    struct compat_cachestat_range range = {.off = first, .len = end - first};
    struct compat_cachestat cs;

    if (syscall(SYS_cachestat, f->fd, &range, &cs, 0) == 0)
        return cs.nr_cache == (end - first) / SMALL_PAGE;
    f->has_cachestat = errno != EPERM && errno != ENOSYS;
    return false;
}

static bool is_range_cached(struct file_source *f, uint64_t first, uint64_t end)
{
    if (f->has_cachestat && ask_cachestat(f, first, end))
        return true;
    return !f->has_cachestat && !is_owner(f) && cached_run(f, first, end) == (int64_t)(end - first);
}

/* granule_cached() - is the GRANULE at @off (its start) cached, as far as was known within FRESH_NS? */
static bool granule_cached(struct file_source *f, uint64_t off, uint64_t now_ns)
{
    uint64_t *seen_ns = &f->cached_ns[off / GRANULE];

    if (*seen_ns != 0 && now_ns - *seen_ns < FRESH_NS)
        return true;
    if (!is_range_cached(f, off, min_u64(off + GRANULE, f->size_bytes)))
        return false;
    *seen_ns = now_ns;
    return true;
}

/* all_cached() - true if all of [first, end) is in the page cache; false: not, or not known */
static bool all_cached(struct file_source *f, uint64_t first, uint64_t end)
{
    uint64_t now_ns;

    if (f->always_cached)
        return true;
    if (!f->has_cachestat && is_owner(f))
        return false;
    now_ns = clock_now_ns();
    for (uint64_t off = align_down(first, GRANULE); off < end; off += GRANULE) {
        if (!granule_cached(f, off, now_ns))
            return is_range_cached(f, first, end);
    }
    return true;
}

/* look_around() - what cached_run() says of the pages around @off, as far as they are cached without a gap */
static int look_around(const struct file_source *f, const struct thaw_extent *x, uint64_t off,
                       unsigned char *cached)
{
    int64_t after = cached_run(f, off, x->end);
    uint64_t first = off;

    if (after < 0)
        return (int)after;
    memset(cached, 0, (x->end - x->first) / SMALL_PAGE);
    while (after > 0 && first > x->first &&
           cached_run(f, first - SMALL_PAGE, first) == (int64_t)SMALL_PAGE)
        first -= SMALL_PAGE;
    memset(cached + (first - x->first) / SMALL_PAGE, 1,
           (off + (uint64_t)after - first) / SMALL_PAGE);
    return 0;
}

/* narrow_to_cached() - cut *out to the cached run around the page at @off, or say that it must be fetched */
/* #syscalls mincore */
static int narrow_to_cached(struct file_source *f, struct thaw_extent *out, uint64_t off,
                            uint64_t page_bytes)
{
    unsigned char cached[WINDOW_MAX_PAGES];
    uint64_t first = off;
    uint64_t end;
    uint64_t n_small = (out->end - out->first) / SMALL_PAGE;

    if (n_small > WINDOW_MAX_PAGES)
        return err_origin(-EINVAL, "a window of %" PRIu64 " pages is too large", n_small);
    /* mincore(2) answers the owner. It tells everybody else that all is cached. */
    if ((is_owner(f) || look_around(f, out, off, cached) < 0) &&
        mincore((void *)(f->map + out->first), out->end - out->first, cached) != 0)
        return err_origin_errno(-errno, "cannot tell what of memory file %s is in memory", f->path);
    for (end = off; end < out->end && (cached[(end - out->first) / SMALL_PAGE] & 1);)
        end += SMALL_PAGE;
    end = align_down(end, page_bytes);
    if (end <= off) {
        out->where = THAW_WHERE_ELSEWHERE;
        return 0;
    }
    while (first > out->first && (cached[(first - out->first) / SMALL_PAGE - 1] & 1))
        first -= SMALL_PAGE;
    out->first = align_up(first, page_bytes);
    out->end = end;
    return 0;
}

/* check_read() - what a read at @off gave: @n bytes, or errno. Return: @n, at least 1; < 0 with a text */
static ssize_t check_read(const struct file_source *f, ssize_t n, uint64_t off)
{
    if (n < 0)
        return err_origin_errno(-errno, "cannot read memory file %s at offset 0x%" PRIx64, f->path,
                                off);
    if (n == 0)
        return err_origin(-EIO,
                          "memory file %s was truncated while it is served: ends at offset "
                          "0x%" PRIx64 ", expected %" PRIu64 " bytes",
                          f->path, off, f->size_bytes);
    return n;
}

/* read_at() - up to @len bytes. Return: how many, at least 1; < 0 with a text */
/* #syscalls pread64 */
static ssize_t read_at(const struct file_source *f, char *buf, uint64_t len, uint64_t off)
{
    ssize_t n;

    do {
        n = pread(f->fd, buf, len, (off_t)off);
    } while (n < 0 && errno == EINTR);
    return check_read(f, n, off);
}

/* is_mixed() - is the page at @off a hole in part, and a hole not to be looked at through the mapping? */
static bool is_mixed(const struct file_source *f, uint64_t off, uint64_t page_bytes)
{
    return f->mixed && page_bytes > SMALL_PAGE && hole_map_may_have(&f->holes, off, page_bytes);
}

/* data_is_cached() - is all of a mixed page in memory that is in the file at all? false: not, or not known */
static bool data_is_cached(const struct file_source *f, uint64_t off, uint64_t page_bytes)
{
    unsigned char cached[WINDOW_MAX_PAGES];

    if (f->always_cached)
        return true;
    if (mincore((void *)(f->map + off), page_bytes, cached) != 0)
        return false;
    for (uint64_t at = 0; at < page_bytes; at += SMALL_PAGE) {
        if (!(cached[at / SMALL_PAGE] & 1) && !hole_map_may_have(&f->holes, off + at, SMALL_PAGE))
            return false;
    }
    return true;
}

static int locate_mixed(const struct file_source *f, struct thaw_extent *out, uint64_t off,
                        uint64_t page_bytes)
{
    *out = (struct thaw_extent){
        .where = THAW_WHERE_ELSEWHERE,
        .first = off,
        .end = off + page_bytes,
        .bytes = f->map + off,
    };
    if (!data_is_cached(f, off, page_bytes))
        return 0;
    for (uint64_t done = 0; done < page_bytes;) {
        ssize_t n = read_at(f, f->mixed + done, page_bytes - done, off + done);

        if (n < 0)
            return (int)n;
        done += (uint64_t)n;
    }
    out->where = THAW_WHERE_MEMORY;
    out->bytes = f->mixed;
    return 0;
}

static int file_locate(void *self, struct thaw_extent *out, uint64_t off, uint64_t lo, uint64_t hi,
                       uint64_t page_bytes)
{
    struct file_source *f = self;
    int r = check_size(f);

    if (r < 0)
        return r;
    *out = (struct thaw_extent){.first = lo, .end = hi};
    hole_map_narrow(&f->holes, out, off, page_bytes);
    if (out->where == THAW_WHERE_MEMORY && is_mixed(f, off, page_bytes))
        return locate_mixed(f, out, off, page_bytes);
    if (out->where == THAW_WHERE_MEMORY && !all_cached(f, out->first, out->end)) {
        r = narrow_to_cached(f, out, off, page_bytes);
        if (r < 0)
            return r;
    }
    if (out->where != THAW_WHERE_ZERO) {
        out->bytes = f->map + out->first;
        out->lasting = true;
    }
    return 0;
}

static int file_fetch(void *self, uint64_t lo, uint64_t hi)
{
    const struct file_source *f = self;

    while (lo < hi) {
        ssize_t n;

        do {
            n = read_nowhere(f, lo, hi - lo, 0);
        } while (n < 0 && errno == EINTR);
        n = check_read(f, n, lo);

        if (n < 0)
            return (int)n;
        lo += (uint64_t)n;
    }
    return 0;
}

/*
 * file_expect() - have the page cache read what it has not, and fill in our mapping of what it has
 *
 * An install from a part of the mapping that was never used begins with a page fault of ours. Before the VM is there nobody
 * waits for it. Where something is not cached, MADV_POPULATE_READ would wait for the disk; advice does not.
 */
/* #syscalls:start fadvise64 madvise */
static void file_expect(void *self, uint64_t lo, uint64_t hi)
{
    struct file_source *f = self;

    if (all_cached(f, lo, hi))
        (void)madvise((void *)(f->map + lo), hi - lo, MADV_POPULATE_READ); /* since Linux 5.14 */
    else
        (void)posix_fadvise(f->fd, (off_t)lo, (off_t)(hi - lo), POSIX_FADV_WILLNEED);
}

static void file_free(void *self)
{
    (void)file_source_free(self);
}

static const struct thaw_source_ops file_ops = {
    .name = "file",
    .locate = file_locate,
    .fetch = file_fetch,
    .expect = file_expect,
    .free = file_free,
};

/* #syscalls:start openat open newfstatat fstat */
static int open_file(struct file_source *f, struct file_id *id)
{
    struct stat st;

    f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would wait for a writer */
    if (f->fd < 0)
        return err_origin_errno(-errno, "cannot open memory file %s", f->path);
    if (fstat(f->fd, &st) < 0)
        return err_origin_errno(-errno, "cannot look at memory file %s", f->path);
    if (!S_ISREG(st.st_mode))
        return err_origin(-EINVAL, "memory file %s is not a regular file", f->path);
    if (st.st_size == 0)
        return err_origin(-EINVAL, "memory file %s is empty", f->path);
    if (((uint64_t)st.st_size & (SMALL_PAGE - 1)) != 0)
        return err_origin(
            -EINVAL, "memory file %s has %jd bytes, expected a multiple of the page size, 4096",
            f->path, (intmax_t)st.st_size);
    f->size_bytes = (uint64_t)st.st_size;
    *id = (struct file_id){.device = st.st_dev, .inode = st.st_ino};
    f->owner = st.st_uid;
    return 0;
}

/* has_no_swap() - nothing in memory can be moved to a disk */
/* #syscalls:start sysinfo */
static bool has_no_swap(void)
{
    struct sysinfo info;

    return sysinfo(&info) == 0 && info.totalswap == 0;
}

/* map_mixed() - room for one page, which costs nothing before it is used. Return: is there room? */
static bool map_mixed(struct file_source *f)
{
    void *mixed = mmap(NULL, HUGE_PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    f->mixed = mixed == MAP_FAILED ? NULL : mixed;
    return f->mixed != NULL;
}

/* #syscalls:start fstatfs */
static int probe_file(struct file_source *f)
{
    struct statfs fs;
    struct compat_cachestat_range range = {.off = 0, .len = SMALL_PAGE};
    struct compat_cachestat cs;

    if (fstatfs(f->fd, &fs) < 0)
        return err_origin_errno(-errno, "cannot look at memory file %s", f->path);
    f->always_cached = (fs.f_type == TMPFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC) && has_no_swap();
    if (fs.f_type == TMPFS_MAGIC && !map_mixed(f))
        return err_origin_errno(-ENOMEM, "cannot open memory file %s", f->path);
    f->has_cachestat = syscall(SYS_cachestat, f->fd, &range, &cs, 0) == 0;
    f->cached_ns = calloc(f->size_bytes / GRANULE + 1, sizeof(*f->cached_ns));
    if (!f->cached_ns)
        return err_origin_errno(-ENOMEM, "cannot open memory file %s", f->path);
    return hole_map_init(&f->holes, f->fd, f->size_bytes, WALK_BUDGET_NS);
}

int source_open_file(struct source **out, const char *path, struct file_id *id)
{
    _cleanup_(file_source_freep) struct file_source *f = calloc(1, sizeof(*f));
    void *map;
    int r;

    if (!f)
        return err_origin_errno(-ENOMEM, "cannot open memory file %s", path);
    f->fd = -1;
    f->owned = -1;
    f->path = strdup(path);
    if (!f->path)
        return err_origin_errno(-ENOMEM, "cannot open memory file %s", path);
    r = open_file(f, id);
    if (r < 0)
        return r;
    map = mmap(NULL, f->size_bytes, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, f->fd, 0);
    if (map == MAP_FAILED)
        return err_origin_errno(-errno, "cannot map memory file %s", path);
    f->map = map;
    r = probe_file(f);
    if (r < 0)
        return r;
    r = source_new(out, &file_ops, f, f->size_bytes);
    if (r < 0)
        return r;
    (void)TAKE(f);
    return 0;
}
