/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_IMAGE_H
#define CLI_BENCH_IMAGE_H

/*
 * image.h - the snapshot's memory file: bytes that can be told from their place alone
 */

#include "base/base.h"

/** struct bench_image - a memory file; each 8-byte word is a function of its offset */
struct bench_image {
    char path[256];
    uint64_t size_bytes; /* a multiple of 4096 */
    bool is_sparse;      /* one piece of 64 KiB in 16 holds data, the others are holes */
};

/**
 * bench_image_page_key() - what the words of one 4 KiB page are made from; 0: the page is all
 * zeroes
 * @page: number of the 4 KiB page
 */
static inline uint64_t bench_image_page_key(const struct bench_image *im, uint64_t page)
{
    uint64_t key = (page + 1) * 0xd6e8feb86659fd93ull;

    if (im->is_sparse && page / 16 % 16 != 0)
        return 0;
    key ^= key >> 31;
    return key | 1;
}

/** bench_image_word() - the @i-th word (0..511) of a page with @key */
static inline uint64_t bench_image_word(uint64_t key, unsigned i)
{
    return key ? key + i * 0x9e3779b97f4a7c15ull : 0;
}

/**
 * bench_image_create() - write the file @name in the folder @dir, down to the disk
 * @im: becomes valid on success
 *
 * Written back at once, so that no write-back runs beside a measurement. Return: 0 or a negative
 * errno with a text.
 */
int bench_image_create(struct bench_image *im, const char *dir, const char *name,
                       uint64_t size_bytes, bool is_sparse);

/**
 * bench_image_warm() - see that all of the file is in the page cache. Return: 0 or a negative errno
 * with a text
 */
int bench_image_warm(const struct bench_image *im);

/**
 * bench_image_check() - compare memory with what the file holds there
 * @page:   number of the 4 KiB page that @memory ought to be
 * @memory: its 4096 bytes
 *
 * Return: the offset of the first wrong word in the page, or -1 when all are right.
 */
int bench_image_check(const struct bench_image *im, uint64_t page, const void *memory);

#endif
