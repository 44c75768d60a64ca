/* SPDX-License-Identifier: Apache-2.0 */
/* workingset_file.c - a working set's file: workingset.h has the layout. Nothing in a file is believed */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/err.h"
#include "base/fd.h"
#include "image/workingset.h"

#define UNIT_BITS  48u
#define TIME_SHIFT 48u
#define WRITE_BIT  (1ull << 56)
#define KNOWN_BITS ((1ull << 57) - 1)
#define COMPLETE   1u

static uint64_t pack(const struct workingset_entry *e)
{
    return e->unit | (uint64_t)e->time_class << TIME_SHIFT | (e->write ? WRITE_BIT : 0);
}

static struct workingset_entry unpack(uint64_t word)
{
    return (struct workingset_entry){
        .unit = word & ((1ull << UNIT_BITS) - 1),
        .time_class = (uint8_t)(word >> TIME_SHIFT),
        .write = (word & WRITE_BIT) != 0,
    };
}

/* checksum() - of a whole file's bytes, whose own checksum counts as 0 */
static uint64_t checksum(const void *bytes, size_t len)
{
    struct workingset_header h;
    XXH3_state_t *state = XXH3_createState();
    uint64_t sum;

    if (!state)
        return 0;
    memcpy(&h, bytes, sizeof(h));
    h.checksum = 0;
    (void)XXH3_64bits_reset(state);
    (void)XXH3_64bits_update(state, &h, sizeof(h));
    (void)XXH3_64bits_update(state, (const char *)bytes + sizeof(h), len - sizeof(h));
    sum = XXH3_64bits_digest(state);
    (void)XXH3_freeState(state);
    return sum;
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static int damaged(const char *path, const char *what, uint64_t at)
{
    return err_origin(-EINVAL, "working set %s is damaged: %s (offset %" PRIu64 ")", path, what,
                      at);
}

static int check_header(const struct workingset_header *h, const char *path, size_t len)
{
    if (h->magic != WORKINGSET_MAGIC)
        return err_origin(-EINVAL, "%s is not a working set", path);
    if (h->version != WORKINGSET_VERSION || h->header_bytes != sizeof(*h))
        return err_origin(-EINVAL, "working set %s is of version %u, this thaw reads version %u",
                          path, h->version, WORKINGSET_VERSION);
    if (h->unit_shift != 12 && h->unit_shift != 21)
        return damaged(path, "no such unit", offsetof(struct workingset_header, unit_shift));
    if ((h->flags & ~COMPLETE) != 0 || h->reserved != 0)
        return damaged(path, "unknown flags", offsetof(struct workingset_header, flags));
    if (h->image_bytes == 0 || (h->image_bytes & ((1ull << h->unit_shift) - 1)) != 0 ||
        h->image_bytes >> h->unit_shift > 1ull << UNIT_BITS)
        return damaged(path, "no such size of a memory file",
                       offsetof(struct workingset_header, image_bytes));
    if (h->n_entries > h->image_bytes >> h->unit_shift ||
        h->n_entries != (len - sizeof(*h)) / sizeof(uint64_t) ||
        (len - sizeof(*h)) % sizeof(uint64_t) != 0)
        return damaged(path, "its length is not that of its entries",
                       offsetof(struct workingset_header, n_entries));
    return 0;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* check_distinct() - no unit twice */
static int check_distinct(const struct workingset *ws, const char *path)
{
    uint64_t *units = malloc((ws->n + 1) * sizeof(*units));
    bool twice = false;

    if (!units)
        return err_origin_errno(-ENOMEM, "cannot read working set %s", path);
    for (size_t i = 0; i < ws->n; i++)
        units[i] = ws->entries[i].unit;
    qsort(units, ws->n, sizeof(*units), compare_u64);
    for (size_t i = 1; i < ws->n; i++)
        twice |= units[i] == units[i - 1];
    free(units);
    return twice ? damaged(path, "an entry occurs twice", sizeof(struct workingset_header)) : 0;
}

static int read_entries(struct workingset *ws, const char *path, const uint64_t *words, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        struct workingset_entry e = unpack(words[i]);
        int r;

        if ((words[i] & ~KNOWN_BITS) != 0 || e.unit >= ws->image_bytes >> ws->unit_shift ||
            e.time_class > 63)
            return damaged(path, "no such entry",
                           sizeof(struct workingset_header) + i * sizeof(uint64_t));
        r = workingset_add(ws, &e);
        if (r < 0)
            return r;
    }
    return check_distinct(ws, path);
}

static int parse(struct workingset **out, const char *path, const void *bytes, size_t len)
{
    _cleanup_(workingset_freep) struct workingset *ws = NULL;
    struct workingset_header h;
    int r;

    if (len < sizeof(h))
        return err_origin(-EINVAL, "%s is not a working set: %zu bytes", path, len);
    memcpy(&h, bytes, sizeof(h));
    r = check_header(&h, path, len);
    if (r < 0)
        return r;
    if (checksum(bytes, len) != h.checksum)
        return damaged(path, "its checksum is wrong", offsetof(struct workingset_header, checksum));
    r = workingset_new(&ws, h.unit_shift, h.image_bytes);
    if (r < 0)
        return r;
    ws->window_ns = h.window_ns;
    ws->complete = (h.flags & COMPLETE) != 0;
    r = read_entries(ws, path, (const uint64_t *)(const void *)((const char *)bytes + sizeof(h)),
                     h.n_entries);
    if (r == 0)
        *out = TAKE(ws);
    return r;
}

/* read_all() - a regular file's bytes. *bytes: (give) */
static int read_all(const char *path, void **bytes, size_t *len)
{
    _cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    size_t done = 0;
    ssize_t n = 1;
    char *mem;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_origin_errno(-errno, "cannot open working set %s", path);
    if (!S_ISREG(st.st_mode))
        return err_origin(-EINVAL, "working set %s is not a regular file", path);
    mem = malloc((size_t)st.st_size + 8);
    if (!mem)
        return err_origin_errno(-ENOMEM, "cannot read working set %s", path);
    while (done < (size_t)st.st_size && n > 0) {
        n = read(fd, mem + done, (size_t)st.st_size - done);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            done += (size_t)n;
    }
    if (n < 0) {
        free(mem);
        return err_origin_errno(-errno, "cannot read working set %s", path);
    }
    *bytes = mem;
    *len = done;
    return 0;
}

int workingset_read(struct workingset **out, const char *path)
{
    void *bytes = NULL;
    size_t len = 0;
    int r = read_all(path, &bytes, &len);

    if (r == 0)
        r = parse(out, path, bytes, len);
    free(bytes);
    return r;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

int workingset_write(const struct workingset *ws, const char *path)
{
    size_t len = sizeof(struct workingset_header) + ws->n * sizeof(uint64_t);
    struct workingset_header *h = malloc(len);
    uint64_t *words;
    int r;

    if (!h)
        return err_origin_errno(-ENOMEM, "cannot write working set %s", path);
    *h = (struct workingset_header){
        .magic = WORKINGSET_MAGIC,
        .version = WORKINGSET_VERSION,
        .header_bytes = sizeof(*h),
        .unit_shift = ws->unit_shift,
        .flags = ws->complete ? COMPLETE : 0,
        .image_bytes = ws->image_bytes,
        .n_entries = ws->n,
        .window_ns = ws->window_ns,
    };
    words = (uint64_t *)(void *)(h + 1);
    for (size_t i = 0; i < ws->n; i++)
        words[i] = pack(&ws->entries[i]);
    h->checksum = checksum(h, len);
    r = file_replace(path, (const char *)h, len);
    free(h);
    return r;
}
