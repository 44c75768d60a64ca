/* SPDX-License-Identifier: Apache-2.0 */
#include "image/page_watch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/err.h"

#define PIECE_PAGES 64u

int page_watch_init(struct page_watch *w, const struct page_source *below,
                    const struct image_job *job)
{
    *w = (struct page_watch){.below = below, .job = job, .n_pages = below->bytes / IMAGE_PAGE};
    w->kinds = calloc(w->n_pages, sizeof(*w->kinds));
    w->sums = calloc(w->n_pages, sizeof(*w->sums));
    if (w->kinds && w->sums)
        return 0;
    page_watch_deinit(w);
    return err_origin_errno(-ENOMEM, "no memory for the checksums of %" PRIu64 " pages",
                            w->n_pages);
}

void page_watch_deinit(struct page_watch *w)
{
    free(w->kinds);
    free(w->sums);
    w->kinds = NULL;
    w->sums = NULL;
}

static int changed(const struct page_watch *w, uint64_t page)
{
    return err_origin(-ESTALE,
                      "%s changed at offset %" PRIu64
                      " while it was read: expected a VM that is paused and a pager at rest",
                      w->below->name, (uint64_t)(page * IMAGE_PAGE));
}

static int look(void *ctx, uint8_t *kinds)
{
    struct page_watch *w = ctx;
    int r = w->below->look(w->below->ctx, kinds);

    memcpy(w->kinds, kinds, w->n_pages);
    return r;
}

static int read_pages(void *ctx, void *buf, size_t len, uint64_t off)
{
    struct page_watch *w = ctx;
    uint64_t first = off / IMAGE_PAGE;
    int r = w->below->read(w->below->ctx, buf, len, off);

    for (uint64_t i = 0; i < len / IMAGE_PAGE && r == 0; i++) {
        uint64_t sum = max_u64(1, XXH3_64bits((const char *)buf + i * IMAGE_PAGE, IMAGE_PAGE));

        if (w->sums[first + i] == 0)
            w->sums[first + i] = sum;
        else if (w->sums[first + i] != sum)
            r = changed(w, first + i);
    }
    return r;
}

/*
 * is_same() - a page whose bytes were known without being read is data now: somebody has read it, or it was installed ahead of the
 * guest. Is it as it was? Return: 1, 0, or a negative errno with a text
 */
static int is_same(const struct page_watch *w, uint64_t page)
{
    const struct page_source *below = w->below;
    char was[IMAGE_PAGE] = {0};
    char is[IMAGE_PAGE];
    int r = 0;

    if (w->kinds[page] == KIND_PARENT && !below->read_parent)
        return 0;
    if (w->kinds[page] == KIND_PARENT)
        r = below->read_parent(below->ctx, was, page);
    if (r == 0)
        r = below->read(below->ctx, is, IMAGE_PAGE, page * IMAGE_PAGE);
    return r < 0 ? r : memcmp(is, was, IMAGE_PAGE) == 0;
}

/* look_at_again() - Return: 0, or -ESTALE or another negative errno with a text */
static int look_at_again(const struct page_watch *w, uint64_t page, uint8_t kind)
{
    int r = 0;

    if (kind == w->kinds[page])
        return 0;
    if (kind == KIND_DATA && (w->kinds[page] == KIND_PARENT || w->kinds[page] == KIND_HOLE))
        r = is_same(w, page);
    if (r < 0)
        return r;
    return r == 1 ? 0 : changed(w, page);
}

/* look_again() - is of each page known what was known before? */
static int look_again(struct page_watch *w)
{
    uint8_t *kinds = calloc(w->n_pages, sizeof(*kinds));
    int r;

    if (!kinds)
        return err_origin_errno(-ENOMEM, "no memory for a table of %" PRIu64 " pages", w->n_pages);
    r = w->below->look(w->below->ctx, kinds);
    for (uint64_t p = 0; p < w->n_pages && r == 0; p++)
        r = look_at_again(w, p, kinds[p]);
    free(kinds);
    return r;
}

/* read_again() - all that was read. @buf: room for PIECE_PAGES */
static int read_again(struct page_watch *w, char *buf)
{
    struct image_part part = {.job = w->job, .what = "checking"};
    int r = 0;

    for (uint64_t p = 0; p < w->n_pages; p++)
        part.all += w->sums[p] != 0 ? IMAGE_PAGE : 0;
    for (uint64_t p = 0, n; p < w->n_pages && r == 0; p += max_u64(n, 1)) {
        for (n = 0; n < PIECE_PAGES && p + n < w->n_pages && w->sums[p + n] != 0; n++)
            ;
        if (n == 0)
            continue;
        r = read_pages(w, buf, n * IMAGE_PAGE, p * IMAGE_PAGE);
        (void)atomic_fetch_add(&part.done, n * IMAGE_PAGE);
        if (r == 0)
            r = image_part_tell(&part);
    }
    return r;
}

static int check(void *ctx)
{
    struct page_watch *w = ctx;
    char *buf;
    int r = w->then ? w->then(w->then_ctx) : 0;

    if (r == 0)
        r = look_again(w);
    if (r < 0)
        return r;
    buf = malloc(PIECE_PAGES * IMAGE_PAGE);
    if (!buf)
        return err_origin_errno(-ENOMEM, "no memory to read %s again", w->below->name);
    r = read_again(w, buf);
    free(buf);
    return r == 0 ? w->below->check(w->below->ctx) : r;
}

struct page_source page_watch_source(struct page_watch *w)
{
    struct page_source src = *w->below;

    src.look = look;
    src.read = read_pages;
    src.check = check;
    src.ctx = w;
    return src;
}
