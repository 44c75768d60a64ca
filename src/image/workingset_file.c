/* SPDX-License-Identifier: Apache-2.0 */

/*
 * workingset_file.c - a working set's file: workingset.h has the layout
 *
 * Nothing in a file is believed. The header is checked before the rest is read, so that a file that is something else
 * costs nothing, whatever its size; then the checksum; then each entry, and that none occurs twice. An error names the
 * offset of what is wrong.
 *
 * A set has one file: what was read and is written again is the same bytes.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The header is the library: a pager does not carry another one. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/err.h"
#include "base/fd.h"
#include "image/workingset.h"

#define UNIT_BITS   48u
#define TIME_SHIFT  48u
#define WRITE_BIT   (1ull << 56)
#define KNOWN_BITS  ((1ull << 57) - 1)
#define COMPLETE    1u
#define ENTRY_AT(i) (sizeof(struct workingset_header) + (i) * sizeof(uint64_t))

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
    XXH3_state_t state;

    memcpy(&h, bytes, sizeof(h));
    h.checksum = 0;
    (void)XXH3_64bits_reset(&state);
    (void)XXH3_64bits_update(&state, &h, sizeof(h));
    (void)XXH3_64bits_update(&state, (const char *)bytes + sizeof(h), len - sizeof(h));
    return XXH3_64bits_digest(&state);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static int damaged(const char *name, const char *what, uint64_t at)
{
    return err_origin(-EINVAL, "working set %s is damaged: %s (offset %" PRIu64 ")", name, what,
                      at);
}

#define HEADER_DAMAGED(name, what, member) \
    damaged(name, what, offsetof(struct workingset_header, member))

/* check_header() - of a file of @len bytes, at least a header's */
static int check_header(const struct workingset_header *h, const char *name, size_t len)
{
    if (h->magic != WORKINGSET_MAGIC)
        return err_origin(-EINVAL, "%s is not a working set", name);
    if (h->version != WORKINGSET_VERSION)
        return err_origin(-EINVAL, "working set %s is of version %u, this thaw reads version %u",
                          name, h->version, WORKINGSET_VERSION);
    if (h->header_bytes != sizeof(*h))
        return HEADER_DAMAGED(name, "no such length of a header", header_bytes);
    if (h->unit_shift != 12 && h->unit_shift != 21)
        return HEADER_DAMAGED(name, "no such unit", unit_shift);
    if ((h->flags & ~COMPLETE) != 0)
        return HEADER_DAMAGED(name, "unknown flags", flags);
    if (h->image_bytes == 0 || h->image_bytes > INT64_MAX ||
        h->image_bytes != align_down(h->image_bytes, 1ull << h->unit_shift) ||
        h->image_bytes >> h->unit_shift > 1ull << UNIT_BITS)
        return HEADER_DAMAGED(name, "no such size of a memory file", image_bytes);
    if (h->n_entries > h->image_bytes >> h->unit_shift)
        return HEADER_DAMAGED(name, "more entries than the memory file has units", n_entries);
    if (h->n_entries > WORKINGSET_ENTRIES_MAX)
        return err_origin(-EFBIG,
                          "working set %s has %" PRIu64 " entries, this thaw reads %llu at most",
                          name, h->n_entries, WORKINGSET_ENTRIES_MAX);
    if (len < ENTRY_AT(h->n_entries))
        return damaged(name, "it ends too early", len);
    if (len > ENTRY_AT(h->n_entries))
        return damaged(name, "it does not end behind its last entry", ENTRY_AT(h->n_entries));
    if (h->reserved != 0)
        return HEADER_DAMAGED(name, "what is reserved is not 0", reserved);
    return 0;
}

/* find_header() - the header of the first @len bytes of a file of @file_bytes, checked */
static int find_header(struct workingset_header *h, const char *name, const void *bytes, size_t len,
                       size_t file_bytes)
{
    if (len < sizeof(*h))
        return err_origin(-EINVAL, "%s is not a working set: it has %zu bytes", name, len);
    memcpy(h, bytes, sizeof(*h));
    return check_header(h, name, file_bytes);
}

/* find_second() - the entry that has @unit for the second time; there is one */
static size_t find_second(const struct workingset *ws, uint64_t unit)
{
    bool before = false;

    for (size_t i = 0; i < ws->n; i++) {
        if (ws->entries[i].unit == unit && before)
            return i;
        before |= ws->entries[i].unit == unit;
    }
    return ws->n;
}

/* check_distinct() - no unit twice */
static int check_distinct(const struct workingset *ws, const char *name)
{
    uint64_t *units = calloc(ws->n + 1, sizeof(*units));
    size_t i;

    if (!units)
        return err_origin_errno(-ENOMEM, "cannot read working set %s", name);
    for (i = 0; i < ws->n; i++)
        units[i] = ws->entries[i].unit;
    qsort(units, ws->n, sizeof(*units), compare_u64);
    for (i = 1; i < ws->n && units[i] != units[i - 1]; i++)
        continue;
    if (i < ws->n)
        i = find_second(ws, units[i]);
    free(units);
    return i < ws->n ? damaged(name, "an entry occurs twice", ENTRY_AT(i)) : 0;
}

/* parse_entries() - @n words at @bytes, at any address */
static int parse_entries(struct workingset *ws, const char *name, const char *bytes, uint64_t n)
{
    int r = workingset_reserve(ws, n);

    for (uint64_t i = 0; i < n && r == 0; i++) {
        struct workingset_entry e;
        uint64_t word;

        memcpy(&word, bytes + i * sizeof(word), sizeof(word));
        e = unpack(word);
        if ((word & ~KNOWN_BITS) != 0)
            return damaged(name, "unknown bits in an entry", ENTRY_AT(i));
        if (e.unit >= ws->image_bytes >> ws->unit_shift)
            return damaged(name, "an entry beyond the memory file", ENTRY_AT(i));
        if (e.time_class >= WORKINGSET_TIME_CLASSES)
            return damaged(name, "no such time class", ENTRY_AT(i));
        r = workingset_add(ws, &e);
    }
    return r == 0 ? check_distinct(ws, name) : r;
}

int workingset_parse(struct workingset **out, const char *name, const void *bytes, size_t len)
{
    _cleanup_(workingset_freep) struct workingset *ws = NULL;
    struct workingset_header h;
    int r = find_header(&h, name, bytes, len, len);

    if (r < 0)
        return r;
    if (checksum(bytes, len) != h.checksum)
        return HEADER_DAMAGED(name, "its checksum is wrong", checksum);
    r = workingset_new(&ws, h.unit_shift, h.image_bytes);
    if (r < 0)
        return r;
    ws->window_ns = h.window_ns;
    ws->complete = (h.flags & COMPLETE) != 0;
    r = parse_entries(ws, name, (const char *)bytes + sizeof(h), h.n_entries);
    if (r == 0)
        *out = TAKE(ws);
    return r;
}

/* read_part() - up to @len bytes from the beginning. Return: how many there were, or a negative errno with a text */
/* #syscalls:start pread64 */
static ssize_t read_part(int fd, const char *path, char *bytes, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pread(fd, bytes + done, len - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_origin_errno(-errno, "cannot read working set %s", path);
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

/* #syscalls:start openat open newfstatat fstat */
int workingset_read(struct workingset **out, const char *path)
{
    _cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char head[sizeof(struct workingset_header)];
    struct workingset_header h;
    struct stat st;
    char *bytes;
    ssize_t n;
    int r;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_origin_errno(-errno, "cannot open working set %s", path);
    if (!S_ISREG(st.st_mode))
        return err_origin(-EINVAL, "working set %s is not a regular file", path);
    n = read_part(fd, path, head, sizeof(head));
    if (n < 0)
        return (int)n;
    r = find_header(&h, path, head, (size_t)n, (size_t)st.st_size);
    if (r < 0)
        return r;
    bytes = malloc((size_t)st.st_size);
    if (!bytes)
        return err_origin_errno(-ENOMEM, "cannot read working set %s", path);
    n = read_part(fd, path, bytes, (size_t)st.st_size);
    r = n < 0 ? (int)n : workingset_parse(out, path, bytes, (size_t)n);
    free(bytes);
    return r;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

int workingset_format(const struct workingset *ws, void **bytes, size_t *len)
{
    size_t n_bytes = ENTRY_AT(ws->n);
    struct workingset_header h = {
        .magic = WORKINGSET_MAGIC,
        .version = WORKINGSET_VERSION,
        .header_bytes = sizeof(h),
        .unit_shift = ws->unit_shift,
        .flags = ws->complete ? COMPLETE : 0,
        .image_bytes = ws->image_bytes,
        .n_entries = ws->n,
        .window_ns = ws->window_ns,
    };
    char *mem;

    if (ws->n > WORKINGSET_ENTRIES_MAX)
        return err_origin(-EFBIG, "a working set of %zu entries, expected %llu at most", ws->n,
                          WORKINGSET_ENTRIES_MAX);
    mem = malloc(n_bytes);
    if (!mem)
        return err_origin_errno(-ENOMEM, "no memory to write a working set of %zu entries", ws->n);
    memcpy(mem, &h, sizeof(h));
    for (size_t i = 0; i < ws->n; i++) {
        uint64_t word = pack(&ws->entries[i]);

        memcpy(mem + ENTRY_AT(i), &word, sizeof(word));
    }
    h.checksum = checksum(mem, n_bytes);
    memcpy(mem, &h, sizeof(h));
    *bytes = mem;
    *len = n_bytes;
    return 0;
}

int workingset_write_in(const struct workingset *ws, const char *path, int folder)
{
    void *bytes = NULL;
    size_t len = 0;
    int r = workingset_format(ws, &bytes, &len);

    if (r == 0)
        r = file_replace_durable(path, bytes, len, folder);
    free(bytes);
    return r;
}

int workingset_write(const struct workingset *ws, const char *path)
{
    return workingset_write_in(ws, path, -1);
}
