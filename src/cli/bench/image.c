/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.c - the snapshot's memory file
 *
 * Every byte of the guest can be checked without keeping a second copy: a page's words follow from
 * its number, differ from all other pages' words, and differ within the page, so that a page from
 * the wrong place, a rotated page and a zero page are all seen. Nothing in the file is zero, unless
 * it is made sparse; then holes read as zeroes.
 *
 * Warm means: in the page cache. mincore(2) on a mapping of the file tells for each page; what is
 * missing is read.
 */

#include "cli/bench/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"

#define IMAGE_PAGE  4096u
#define IMAGE_WORDS (IMAGE_PAGE / sizeof(uint64_t))
#define CHUNK_PAGES 16u /* of CHUNK_BYTES */
#define CHUNK_BYTES (64 * KIB)

static void fill_chunk(const struct bench_image *im, uint64_t first_page, uint64_t *words)
{
    for (unsigned p = 0; p < CHUNK_PAGES; p++) {
        uint64_t key = bench_image_page_key(im, first_page + p);

        for (unsigned i = 0; i < IMAGE_WORDS; i++)
            *words++ = bench_image_word(key, i);
    }
}

static int write_chunks(const struct bench_image *im, int fd)
{
    static uint64_t words[CHUNK_PAGES * IMAGE_WORDS];

    for (uint64_t off = 0; off < im->size_bytes; off += CHUNK_BYTES) {
        size_t len = min_u64(CHUNK_BYTES, im->size_bytes - off);
        ssize_t n;

        if (bench_image_page_key(im, off / IMAGE_PAGE) == 0)
            continue;
        fill_chunk(im, off / IMAGE_PAGE, words);
        n = pwrite(fd, words, len, (off_t)off);
        if (n != (ssize_t)len)
            return err_origin_errno(n < 0 ? -errno : -ENOSPC, "cannot write %s", im->path);
    }
    return 0;
}

int bench_image_create(struct bench_image *im, const char *dir, const char *name,
                       uint64_t size_bytes, bool is_sparse)
{
    _cleanup_fd_ int fd = -1;
    int r;

    assert(size_bytes % IMAGE_PAGE == 0);
    (void)snprintf(im->path, sizeof(im->path), "%s/%s", dir, name);
    im->size_bytes = size_bytes;
    im->is_sparse = is_sparse;
    fd = open(im->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_origin_errno(-errno, "cannot make the memory file %s", im->path);
    if (ftruncate(fd, (off_t)size_bytes) < 0)
        return err_origin_errno(-errno, "cannot give %s %llu bytes", im->path,
                                (unsigned long long)size_bytes);
    r = write_chunks(im, fd);
    if (r < 0)
        return r;
    if (fdatasync(fd) < 0)
        return err_origin_errno(-errno, "cannot write %s to its disk", im->path);
    return 0;
}

static int read_all(const struct bench_image *im, int fd)
{
    static char sink[CHUNK_BYTES];

    for (uint64_t off = 0; off < im->size_bytes; off += CHUNK_BYTES) {
        size_t len = min_u64(CHUNK_BYTES, im->size_bytes - off);

        if (pread(fd, sink, len, (off_t)off) != (ssize_t)len)
            return err_origin_errno(-EIO, "cannot read %s", im->path);
    }
    return 0;
}

/* Whether each page of the file is cached; "no" too where that cannot be told. */
static bool is_cached(const struct bench_image *im, int fd)
{
    uint64_t n_pages = im->size_bytes / IMAGE_PAGE;
    unsigned char *cached = malloc(n_pages);
    void *map = mmap(NULL, im->size_bytes, PROT_READ, MAP_SHARED, fd, 0);
    bool all = false;

    if (cached && map != MAP_FAILED && mincore(map, im->size_bytes, cached) == 0) {
        all = true;
        for (uint64_t i = 0; i < n_pages; i++)
            all = all && (cached[i] & 1);
    }
    if (map != MAP_FAILED)
        (void)munmap(map, im->size_bytes);
    free(cached);
    return all;
}

int bench_image_warm(const struct bench_image *im)
{
    _cleanup_fd_ int fd = open(im->path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_origin_errno(-errno, "cannot open %s", im->path);
    if (is_cached(im, fd))
        return 0;
    return read_all(im, fd);
}

int bench_image_check(const struct bench_image *im, uint64_t page, const void *memory)
{
    const uint64_t *words = memory;
    uint64_t key = bench_image_page_key(im, page);

    for (unsigned i = 0; i < IMAGE_WORDS; i++) {
        if (words[i] != bench_image_word(key, i))
            return (int)(i * sizeof(*words));
    }
    return -1;
}
