/* SPDX-License-Identifier: Apache-2.0 */
#include "source/hole_map.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"

#define UNIT          4096ull /* bytes a bit stands for */
#define ASK_STEPS_MAX 8       /* extents looked at in one window before the rest is taken as data */

/* seek() - the next data or hole at or after @off; the end of the file if there is none */
/* #syscalls lseek */
static uint64_t seek(const struct hole_map *m, uint64_t off, int whence)
{
    off_t at = lseek(m->fd, (off_t)off, whence);

    if (at >= 0)
        return min_u64((uint64_t)at, m->size_bytes);
    if (errno == ENXIO)
        return m->size_bytes;
    return whence == SEEK_DATA ? off
                               : m->size_bytes; /* no such call on this file system: all is data */
}

static bool is_hole(const struct hole_map *m, uint64_t off, uint64_t len)
{
    for (uint64_t u = off / UNIT; u < (off + len) / UNIT; u++) {
        if (!((m->bits[u / 64] >> (u % 64)) & 1))
            return false;
    }
    return true;
}

static void mark_hole(struct hole_map *m, uint64_t from, uint64_t to)
{
    uint64_t u = align_up(from, UNIT) / UNIT;
    uint64_t end = align_down(to, UNIT) / UNIT;

    for (; u < end && u % 64 != 0; u++)
        m->bits[u / 64] |= 1ull << (u % 64);
    for (; u + 64 <= end; u += 64)
        m->bits[u / 64] = UINT64_MAX;
    for (; u < end; u++)
        m->bits[u / 64] |= 1ull << (u % 64);
}

/* walk() - hole, data, hole, ... until the end or until the time is up; edges inside a unit belong to the data */
static void walk(struct hole_map *m, uint64_t budget_ns)
{
    uint64_t deadline_ns = clock_now_ns() + budget_ns;
    uint64_t at = 0;

    while (at < m->size_bytes && clock_now_ns() < deadline_ns) {
        uint64_t data = seek(m, at, SEEK_DATA);

        mark_hole(m, at, data);
        at = data < m->size_bytes ? max_u64(seek(m, data, SEEK_HOLE), data + 1) : data;
        m->known_until = at < m->size_bytes ? align_down(at, UNIT) : m->size_bytes;
    }
}

/* #syscalls:start fstatfs */
int hole_map_init(struct hole_map *m, int fd, uint64_t size_bytes, uint64_t budget_ns)
{
    struct statfs fs;

    *m = (struct hole_map){.fd = fd, .size_bytes = size_bytes};
    m->bits = calloc(size_bytes / UNIT / 64 + 1, sizeof(*m->bits));
    if (!m->bits)
        return err_origin_errno(-ENOMEM, "cannot note the holes of a file of %ju bytes",
                                (uintmax_t)size_bytes);
    m->cheap_seek_hole = fstatfs(fd, &fs) == 0 && fs.f_type != TMPFS_MAGIC;
    walk(m, budget_ns);
    return 0;
}

void hole_map_deinit(struct hole_map *m)
{
    free(m->bits);
    m->bits = NULL;
}

static void narrow_known(const struct hole_map *m, struct thaw_extent *x, uint64_t off,
                         uint64_t page_bytes)
{
    bool hole = is_hole(m, off, page_bytes);
    uint64_t first = off;
    uint64_t end = off + page_bytes;

    while (first > x->first && is_hole(m, first - page_bytes, page_bytes) == hole)
        first -= page_bytes;
    while (end < x->end && is_hole(m, end, page_bytes) == hole)
        end += page_bytes;
    *x = (struct thaw_extent){
        .where = hole ? THAW_WHERE_ZERO : THAW_WHERE_MEMORY,
        .first = first,
        .end = end,
    };
}

static void narrow_by_asking(const struct hole_map *m, struct thaw_extent *x, uint64_t off,
                             uint64_t page_bytes)
{
    uint64_t from = x->first;

    x->where = THAW_WHERE_MEMORY;
    for (unsigned step = 0; step < ASK_STEPS_MAX; step++) {
        uint64_t data = max_u64(from, align_down(seek(m, from, SEEK_DATA), page_bytes));
        uint64_t hole;

        if (data > off) {
            x->where = THAW_WHERE_ZERO;
            x->first = from;
            x->end = min_u64(x->end, data);
            return;
        }
        x->first = data;
        if (!m->cheap_seek_hole)
            break;
        hole = align_up(seek(m, data, SEEK_HOLE), page_bytes);
        if (hole > off) {
            x->end = min_u64(x->end, hole);
            return;
        }
        from = hole;
    }
    /* The rest of the window may have holes: copying one is right as well, only dearer. Not so the page itself. */
    if (seek(m, off, SEEK_DATA) >= off + page_bytes) {
        x->where = THAW_WHERE_ZERO;
        x->first = off;
        x->end = off + page_bytes;
    }
}

void hole_map_narrow(const struct hole_map *m, struct thaw_extent *x, uint64_t off,
                     uint64_t page_bytes)
{
    if (x->end <= m->known_until)
        narrow_known(m, x, off, page_bytes);
    else
        narrow_by_asking(m, x, off, page_bytes);
}

bool hole_map_may_have(const struct hole_map *m, uint64_t off, uint64_t len)
{
    if (off + len > m->known_until)
        return true;
    for (uint64_t at = off; at < off + len; at += UNIT) {
        if (is_hole(m, at, UNIT))
            return true;
    }
    return false;
}
