/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ahead_slow.c - a source of bytes that takes a millisecond for each read
 *
 * A network or a loaded disk, without either: the bytes are in a mapping of the file, but locate() says that they are elsewhere
 * until a fetch() of them, which sleeps, has returned. How much a fetch asks for does not matter; that many run at once does.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "cli/bench/ahead_run.h"

#define PAGE_BYTES 4096u

struct ahead_slow {
    const char *bytes;
    unsigned char *is_here; /* atomic: one a page */
};

static int slow_locate(void *self, struct thaw_extent *out, uint64_t off, uint64_t lo, uint64_t hi,
                       uint64_t page_bytes)
{
    const struct ahead_slow *s = self;
    uint64_t first = off / PAGE_BYTES;
    uint64_t end = first + 1;
    unsigned char here = __atomic_load_n(&s->is_here[first], __ATOMIC_ACQUIRE);

    assert(page_bytes == PAGE_BYTES);
    while (first > lo / PAGE_BYTES &&
           __atomic_load_n(&s->is_here[first - 1], __ATOMIC_ACQUIRE) == here)
        first--;
    while (end < hi / PAGE_BYTES && __atomic_load_n(&s->is_here[end], __ATOMIC_ACQUIRE) == here)
        end++;
    *out = (struct thaw_extent){
        .where = here ? THAW_WHERE_MEMORY : THAW_WHERE_ELSEWHERE,
        .first = first * PAGE_BYTES,
        .end = end * PAGE_BYTES,
        .bytes = s->bytes + first * PAGE_BYTES,
        .lasting = 1,
    };
    return 0;
}

static int slow_fetch(void *self, uint64_t lo, uint64_t hi)
{
    struct ahead_slow *s = self;

    clock_sleep_ns(NS_PER_MS);
    for (uint64_t page = lo / PAGE_BYTES; page < hi / PAGE_BYTES; page++)
        __atomic_store_n(&s->is_here[page], 1, __ATOMIC_RELEASE);
    return 0;
}

const struct thaw_source_ops ahead_slow_ops = {
    .name = "slow",
    .locate = slow_locate,
    .fetch = slow_fetch,
};

int ahead_slow_new(struct ahead_slow **out, const struct bench_image *image)
{
    _cleanup_fd_ int fd = open(image->path, O_RDONLY | O_CLOEXEC);
    struct ahead_slow *s = calloc(1, sizeof(*s));
    void *bytes;

    if (fd < 0 || !s)
        return err_origin_errno(fd < 0 ? -errno : -ENOMEM, "cannot open %s", image->path);
    bytes = mmap(NULL, image->size_bytes, PROT_READ, MAP_SHARED, fd, 0);
    s->is_here = calloc(image->size_bytes / PAGE_BYTES, 1);
    if (bytes == MAP_FAILED || !s->is_here)
        return err_origin(-ENOMEM, "cannot map %s", image->path);
    s->bytes = bytes;
    *out = s;
    return 0;
}
