/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_PAGE_READER_H
#define IMAGE_PAGE_READER_H

/*
 * page_reader.h - pages of an image, for who makes another one
 *
 * A reader keeps the frame that it has decompressed last: who asks for pages in the order of memory has most of a frame's pages
 * of one decompression. One thread at a time.
 */

#include "image/store.h"

struct page_reader;

/** page_reader_new() - @image: (borrow) as long as the reader is there. @out: (give). Return: 0 or -ENOMEM with a text */
int page_reader_new(struct page_reader **out, const struct image *image);

/** page_reader_free() - @r: (take) may be NULL. Return: NULL */
struct page_reader *page_reader_free(struct page_reader *r);

/** page_reader_read() - @n pages from @page on; those that the image does not have are zero. Return: 0 or -errno with a text */
int page_reader_read(struct page_reader *r, char *buf, uint64_t page, uint64_t n);

DEFINE_CLEANUP(struct page_reader *, page_reader_free);

#endif
