/* SPDX-License-Identifier: Apache-2.0 */

/*
 * squash.c - a layer on an older parent: what lies between is taken in; see squash.h
 *
 * Which pages are read out of the served image is noted when the packer looks, and not changed afterwards. Reading
 * goes through a few readers (page_reader.h): pages are asked for in the order of memory. A thread takes a reader that is free;
 * there is one for each.
 */

#include "image/squash.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/thread.h"
#include "image/page_reader.h"

/* struct reader - of the served image */
struct reader {
    bool taken;
    struct page_reader *pages;
};

struct squash {
    const struct page_source *inner;
    const struct image *served;
    const struct image *base;
    bool *in_served; /* of each page: it is read out of the served image */

    pthread_mutex_t mutex; /* of whether readers are taken */
    pthread_cond_t moved;
    struct reader *readers;
    unsigned n_readers;
};

/* ---- what lies between ---------------------------------------------------------------------------------------- */

static bool has_pack(const struct manifest *m, const uint8_t sha256[IMAGE_ID_BYTES])
{
    for (uint32_t i = 0; i < m->n_packs; i++) {
        if (memcmp(m->packs[i].sha256, sha256, IMAGE_ID_BYTES) == 0)
            return true;
    }
    return false;
}

/* count_needed() - per run, so that pages of a frame that no run has are not counted */
static uint64_t count_needed(const struct manifest *m, const bool *between)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < m->n_runs; i++) {
        const struct manifest_frame *frame = &m->frames[m->runs[i].frame];

        if (between[frame->pack])
            sum += (uint64_t)frame->stored_bytes * m->runs[i].n / frame->n_pages;
    }
    return sum;
}

struct squash_cost squash_cost(const struct image *img, const struct image *base)
{
    const struct manifest *m = img->manifest;
    const struct manifest *b = base->manifest;
    bool *between = calloc((size_t)m->n_packs + 1, sizeof(*between));
    struct squash_cost cost = {.n_layers =
                                   m->n_parents > b->n_parents ? m->n_parents - b->n_parents : 0};

    for (uint32_t i = 0; i < m->n_packs; i++) {
        if (has_pack(b, m->packs[i].sha256))
            continue;
        cost.pack_bytes += m->packs[i].bytes;
        if (between)
            between[i] = true;
    }
    if (between) /* without memory for the table nothing is known to be needed */
        cost.needed_bytes = count_needed(m, between);
    free(between);
    return cost;
}

/* ---- looking -------------------------------------------------------------------------------------------------- */

/* is_same_place() - do two runs have page @page in the same place of the same pack? */
static bool is_same_place(const struct manifest *a, const struct manifest_run *ra,
                          const struct manifest *b, const struct manifest_run *rb, uint64_t page)
{
    const struct manifest_frame *fa = &a->frames[ra->frame];
    const struct manifest_frame *fb = &b->frames[rb->frame];

    return fa->off == fb->off && page - ra->first + ra->index == page - rb->first + rb->index &&
           memcmp(a->packs[fa->pack].sha256, b->packs[fb->pack].sha256, IMAGE_ID_BYTES) == 0;
}

/* run_of() - the run that has @page, going on from run *@at. Return: NULL: the page is zero */
static const struct manifest_run *run_of(const struct manifest *m, uint64_t *at, uint64_t page)
{
    while (*at < m->n_runs && m->runs[*at].first + m->runs[*at].n <= page)
        (*at)++;
    return *at < m->n_runs && m->runs[*at].first <= page ? &m->runs[*at] : NULL;
}

static int squash_look(void *ctx, uint8_t *kinds)
{
    struct squash *s = ctx;
    const struct manifest *m = s->served->manifest;
    const struct manifest *b = s->base->manifest;
    uint64_t at = 0;
    uint64_t at_base = 0;
    int r = s->inner->look(s->inner->ctx, kinds);

    for (uint64_t page = 0; page < s->inner->bytes / IMAGE_PAGE && r == 0; page++) {
        const struct manifest_run *run;
        const struct manifest_run *base_run;

        if (kinds[page] != KIND_PARENT)
            continue;
        run = run_of(m, &at, page);
        base_run = run_of(b, &at_base, page);
        if (!run) {
            kinds[page] = KIND_HOLE;
        } else if (!base_run || !is_same_place(m, run, b, base_run, page)) {
            kinds[page] = KIND_DATA;
            s->in_served[page] = true;
        }
    }
    return r;
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static struct reader *reader_take(struct squash *s)
{
    struct reader *found = NULL;

    pthread_mutex_lock(&s->mutex);
    while (!found) {
        for (unsigned i = 0; i < s->n_readers && !found; i++)
            found = s->readers[i].taken ? NULL : &s->readers[i];
        if (!found)
            pthread_cond_wait(&s->moved, &s->mutex);
    }
    found->taken = true;
    pthread_mutex_unlock(&s->mutex);
    return found;
}

static void reader_give_back(struct squash *s, struct reader *reader)
{
    pthread_mutex_lock(&s->mutex);
    reader->taken = false;
    pthread_cond_signal(&s->moved);
    pthread_mutex_unlock(&s->mutex);
}

static int squash_read(void *ctx, void *buf, size_t len, uint64_t off)
{
    struct squash *s = ctx;
    uint64_t page = off / IMAGE_PAGE;
    uint64_t end = page + len / IMAGE_PAGE;
    char *to = buf;
    int r = 0;

    while (page < end && r == 0) {
        bool served = s->in_served[page];
        uint64_t n = 1;

        while (page + n < end && s->in_served[page + n] == served)
            n++;
        if (served) {
            struct reader *reader = reader_take(s);

            r = page_reader_read(reader->pages, to, page, n);
            reader_give_back(s, reader);
        } else {
            r = s->inner->read(s->inner->ctx, to, n * IMAGE_PAGE, page * IMAGE_PAGE);
        }
        to += n * IMAGE_PAGE;
        page += n;
    }
    return r;
}

static int squash_check(void *ctx)
{
    struct squash *s = ctx;

    return s->inner->check(s->inner->ctx);
}

/* ---- the whole ------------------------------------------------------------------------------------------------ */

static bool start_readers(struct squash *s, unsigned n)
{
    s->readers = calloc(n, sizeof(*s->readers));
    if (!s->readers)
        return false;
    for (; s->n_readers < n; s->n_readers++) {
        if (page_reader_new(&s->readers[s->n_readers].pages, s->served) < 0)
            return false;
    }
    return true;
}

int squash_new(struct squash **out, const struct page_source *inner, const struct image *served,
               const struct image *base, unsigned n_readers)
{
    _cleanup_(squash_freep) struct squash *s = NULL;

    if (served->manifest->image_bytes != inner->bytes ||
        base->manifest->image_bytes != inner->bytes)
        return err_origin(
            -EINVAL, "%s has %" PRIu64 " bytes, the images %s and %s have %" PRIu64 " and %" PRIu64,
            inner->name, inner->bytes, served->name, base->name, served->manifest->image_bytes,
            base->manifest->image_bytes);
    s = calloc(1, sizeof(*s));
    if (!s)
        return err_origin_errno(-ENOMEM, "no memory to squash the layers of image %s",
                                served->name);
    s->inner = inner;
    s->served = served;
    s->base = base;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->moved, NULL);
    s->in_served = calloc(inner->bytes / IMAGE_PAGE, sizeof(*s->in_served));
    if (!s->in_served || !start_readers(s, n_readers))
        return err_origin_errno(-ENOMEM, "no memory to squash the layers of image %s",
                                served->name);
    *out = TAKE(s);
    return 0;
}

struct squash *squash_free(struct squash *s)
{
    if (!s)
        return NULL;
    for (unsigned i = 0; i < s->n_readers; i++)
        (void)page_reader_free(s->readers[i].pages);
    free(s->readers);
    free(s->in_served);
    pthread_cond_destroy(&s->moved);
    pthread_mutex_destroy(&s->mutex);
    free(s);
    return NULL;
}

struct page_source squash_source(struct squash *s)
{
    return (struct page_source){
        .name = s->inner->name,
        .bytes = s->inner->bytes,
        .created_s = s->inner->created_s,
        .look = squash_look,
        .read = squash_read,
        .check = squash_check,
        .ctx = s,
    };
}
