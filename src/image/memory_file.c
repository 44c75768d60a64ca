/* SPDX-License-Identifier: Apache-2.0 */
#include "image/memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"

int memory_file_open(struct memory_file *f, const char *path)
{
    _cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_origin_errno(-errno, "cannot open memory file %s", path);
    if (!S_ISREG(st.st_mode))
        return err_origin(-EINVAL, "memory file %s is not a regular file", path);
    if (st.st_size == 0 || st.st_size % (off_t)IMAGE_PAGE != 0 ||
        (uint64_t)st.st_size > IMAGE_BYTES_MAX)
        return err_origin(
            -EINVAL, "memory file %s has %jd bytes, expected a multiple of %llu, and %llu at most",
            path, (intmax_t)st.st_size, IMAGE_PAGE, IMAGE_BYTES_MAX);
    *f = (struct memory_file){
        .fd = TAKE_FD(fd), .path = path, .bytes = (uint64_t)st.st_size, .written = st.st_mtim};
    return 0;
}

void memory_file_close(struct memory_file *f)
{
    f->fd = fd_close(f->fd);
}

static int changed(const struct memory_file *f, const char *how)
{
    return err_origin(-EIO, "memory file %s was %s while it was read", f->path, how);
}

int memory_file_read(const struct memory_file *f, void *buf, size_t len, uint64_t off)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pread(f->fd, (char *)buf + done, len - done, (off_t)(off + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_origin_errno(-errno, "cannot read memory file %s at offset %" PRIu64,
                                    f->path, off + done);
        if (n == 0)
            return changed(f, "cut off");
        done += (size_t)n;
    }
    return 0;
}

int memory_file_next_data(const struct memory_file *f, uint64_t *from, uint64_t *end)
{
    off_t data = lseek(f->fd, (off_t)*from, SEEK_DATA);
    off_t hole;

    if (data < 0 && errno == ENXIO) {
        *from = *end = f->bytes;
        return 0;
    }
    if (data < 0 &&
        (errno == EINVAL || errno == EOPNOTSUPP)) { /* this file system knows no holes */
        *end = f->bytes;
        return 0;
    }
    hole = data < 0 ? -1 : lseek(f->fd, data, SEEK_HOLE);
    if (hole < 0)
        return err_origin_errno(-errno, "cannot look for holes in memory file %s", f->path);
    *from = min_u64(max_u64(*from, align_down((uint64_t)data, IMAGE_PAGE)), f->bytes);
    *end = min_u64(align_up((uint64_t)hole, IMAGE_PAGE), f->bytes);
    return 0;
}

int memory_file_check(const struct memory_file *f)
{
    struct stat st;

    if (fstat(f->fd, &st) < 0)
        return err_origin_errno(-errno, "cannot look at memory file %s", f->path);
    if ((uint64_t)st.st_size != f->bytes || st.st_mtim.tv_sec != f->written.tv_sec ||
        st.st_mtim.tv_nsec != f->written.tv_nsec)
        return changed(f, "written to");
    return 0;
}

uint64_t memory_file_created_s(const struct memory_file *f)
{
    return f->written.tv_sec > 0 ? (uint64_t)f->written.tv_sec : 0;
}

static int look(void *ctx, uint8_t *kinds)
{
    const struct memory_file *f = ctx;
    uint64_t at = 0;
    uint64_t end = 0;
    int r = memory_file_next_data(f, &at, &end);

    for (; r == 0 && at < f->bytes; r = memory_file_next_data(f, &at, &end)) {
        memset(kinds + at / IMAGE_PAGE, KIND_DATA, (end - at) / IMAGE_PAGE);
        at = end;
    }
    return r;
}

static int read_source(void *ctx, void *buf, size_t len, uint64_t off)
{
    return memory_file_read(ctx, buf, len, off);
}

static int check_source(void *ctx)
{
    return memory_file_check(ctx);
}

struct page_source memory_file_source(struct memory_file *f)
{
    return (struct page_source){
        .name = f->path,
        .bytes = f->bytes,
        .created_s = memory_file_created_s(f),
        .look = look,
        .read = read_source,
        .check = check_source,
        .ctx = f,
    };
}
