/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_MEMORY_FILE_H
#define IMAGE_MEMORY_FILE_H

/*
 * memory_file.h - the raw memory of a guest, read to be packed
 *
 * It is read with pread(2), never through a mapping: a file that is cut off meanwhile is an error and not a signal. That it
 * was not written to meanwhile is looked at in the end, by its length and its time.
 */

#include <time.h>

#include "image/page_source.h"

/** struct memory_file - one that is open */
struct memory_file {
    int fd;
    const char *path; /* (borrow) */
    uint64_t bytes;   /* a multiple of 4096, not 0, at most IMAGE_BYTES_MAX */
    struct timespec written;
};

/** memory_file_open() - @f: (give) memory_file_close() it. Return: 0 or a negative errno with a text */
int memory_file_open(struct memory_file *f, const char *path);

void memory_file_close(struct memory_file *f);

/** memory_file_read() - @len bytes at @off, all of them. Return: 0 or a negative errno with a text */
int memory_file_read(const struct memory_file *f, void *buf, size_t len, uint64_t off);

/**
 * memory_file_next_data() - where data begins and ends, in whole pages: what lies between is holes
 * @from:  in: where to look from; out: where the data begins, f->bytes if there is none
 * @end:   out: where it ends
 *
 * Context: moves the file's offset: one thread at a time.
 * Return: 0 or a negative errno with a text
 */
int memory_file_next_data(const struct memory_file *f, uint64_t *from, uint64_t *end);

/** memory_file_source() - its pages, of which holes are zero. @f: (borrow) as long as the source is used */
struct page_source memory_file_source(struct memory_file *f);

/** memory_file_created_s() - when it was written, in seconds since 1970; 0: before that */
uint64_t memory_file_created_s(const struct memory_file *f);

/** memory_file_check() - is it as it was when it was opened? Return: 0; -EIO with a text: it was written to */
int memory_file_check(const struct memory_file *f);

#endif
