/* SPDX-License-Identifier: Apache-2.0 */

/*
 * pack_classify.c - what each page of an image is: zero, the parent's, or to be stored
 *
 * First the source says what it knows, which costs no read. Then threads take units of work: each frame of the parent that has
 * pages where the source has data is decompressed once, and those pages are compared with it, byte by byte; what is nowhere
 * in the parent is looked through piece by piece. No page is read twice, and no two units have a page in common.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "image/frame_runs.h"
#include "image/pack_private.h"

#define PIECE_PAGES 256u

/* struct classify_thread - what one thread works with */
struct classify_thread {
    struct frame_coder *coder;
    char *parents; /* pages of a frame of the parent */
    char *pages;   /* of the source, FRAME_PAGES_MAX */
};

struct classify {
    struct page_kinds *kinds;
    const struct page_source *src;
    const struct image *parent; /* NULL: none */
    struct frame_runs runs;     /* of the parent */
    struct classify_thread *threads;
    struct image_part part;
};

static bool is_zero(const char *page)
{
    static const char zeroes[IMAGE_PAGE];

    return memcmp(page, zeroes, IMAGE_PAGE) == 0;
}

/* classify_read() - pages @first to @first + @n - 1, all data. @parents: the parent's there; NULL: they are zero */
static int classify_read(struct classify *c, struct classify_thread *t, uint64_t first, uint64_t n,
                         const char *parents)
{
    int r = c->src->read(c->src->ctx, t->pages, n * IMAGE_PAGE, first * IMAGE_PAGE);

    for (uint64_t i = 0; i < n && r == 0; i++) {
        const char *page = t->pages + i * IMAGE_PAGE;
        enum page_kind kind = KIND_OWN;

        if (is_zero(page))
            kind = KIND_ZERO;
        else if (parents && memcmp(page, parents + i * IMAGE_PAGE, IMAGE_PAGE) == 0)
            kind = KIND_PARENT;
        c->kinds->of[first + i] = (uint8_t)kind;
    }
    (void)atomic_fetch_add(&c->part.done, n * IMAGE_PAGE);
    return r;
}

/* next_data() - the next stretch of data in [@from, @end), at most FRAME_PAGES_MAX pages. Return: its length, 0: none */
static uint64_t next_data(const struct page_kinds *kinds, uint64_t *from, uint64_t end)
{
    uint64_t n = 0;

    while (*from < end && kinds->of[*from] != KIND_DATA)
        (*from)++;
    while (n < FRAME_PAGES_MAX && *from + n < end && kinds->of[*from + n] == KIND_DATA)
        n++;
    return n;
}

/* classify_range() - all data in [@first, @end). @parents: the parent's pages from @first on, or NULL */
static int classify_range(struct classify *c, struct classify_thread *t, uint64_t first,
                          uint64_t end, const char *parents)
{
    uint64_t at = first;
    uint64_t n;
    int r = 0;

    while (r == 0 && (n = next_data(c->kinds, &at, end)) > 0) {
        r = classify_read(c, t, at, n, parents ? parents + (at - first) * IMAGE_PAGE : NULL);
        at += n;
    }
    return r;
}

/* frame_has_data() - is there anything to be compared with frame @f of the parent? */
static bool frame_has_data(const struct classify *c, const struct manifest *m, uint32_t f)
{
    for (uint64_t i = c->runs.first[f]; i < c->runs.first[f + 1]; i++) {
        const struct manifest_run *run = &m->runs[c->runs.numbers[i]];
        uint64_t at = run->first;

        if (next_data(c->kinds, &at, run->first + run->n) > 0)
            return true;
    }
    return false;
}

static int classify_frame(struct classify *c, struct classify_thread *t, uint32_t f)
{
    const struct manifest *m = c->parent->manifest;
    const struct manifest_frame *frame = &m->frames[f];
    int r;

    if (!frame_has_data(c, m, f))
        return 0;
    r = frame_read(t->coder, frame, c->parent->pack_fds[frame->pack],
                   c->parent->pack_names[frame->pack], t->parents);
    for (uint64_t i = c->runs.first[f]; i < c->runs.first[f + 1] && r == 0; i++) {
        const struct manifest_run *run = &m->runs[c->runs.numbers[i]];

        r = classify_range(c, t, run->first, run->first + run->n,
                           t->parents + (uint64_t)run->index * IMAGE_PAGE);
    }
    return r;
}

/* classify_piece() - what is in no run of the parent */
static int classify_piece(struct classify *c, struct classify_thread *t, uint64_t piece)
{
    const struct manifest *m = c->parent ? c->parent->manifest : NULL;
    uint64_t at = piece * PIECE_PAGES;
    uint64_t end = min_u64(at + PIECE_PAGES, c->kinds->n);
    uint64_t i = m ? manifest_find(m, at) : 0;
    int r = 0;

    while (at < end && r == 0) {
        uint64_t gap_end = m && i < m->n_runs ? min_u64(max_u64(m->runs[i].first, at), end) : end;

        r = classify_range(c, t, at, gap_end, NULL);
        at = gap_end < end ? m->runs[i].first + m->runs[i].n : end;
        i++;
    }
    return r;
}

static int classify_unit(void *ctx, unsigned thread, uint64_t unit)
{
    struct classify *c = ctx;
    uint64_t n_frames = c->parent ? c->parent->manifest->n_frames : 0;

    if (unit < n_frames)
        return classify_frame(c, &c->threads[thread], (uint32_t)unit);
    return classify_piece(c, &c->threads[thread], unit - n_frames);
}

static int classify_tick(void *ctx)
{
    return image_part_tell(&((struct classify *)ctx)->part);
}

/* ---- before anything is read ---------------------------------------------------------------------------------- */

/* settle() - pages in [@first, @end), which the parent has nowhere: its page is zero */
static void settle(struct page_kinds *kinds, uint64_t first, uint64_t end)
{
    for (uint64_t p = first; p < end; p++) {
        if (kinds->of[p] == KIND_PARENT)
            kinds->of[p] = KIND_ZERO;
    }
}

/* look() - what the source knows; what is the parent's is what the parent has bytes of */
static int look(struct classify *c)
{
    const struct manifest *m = c->parent ? c->parent->manifest : NULL;
    uint64_t at = 0;
    int r = c->src->look(c->src->ctx, c->kinds->of);

    if (r < 0)
        return r;
    for (uint64_t i = 0; m && i < m->n_runs; i++) {
        settle(c->kinds, at, m->runs[i].first);
        at = m->runs[i].first + m->runs[i].n;
    }
    settle(c->kinds, at, c->kinds->n);
    for (uint64_t p = 0; p < c->kinds->n; p++)
        c->part.all += c->kinds->of[p] == KIND_DATA ? IMAGE_PAGE : 0;
    return 0;
}

static int start_threads(struct classify *c, unsigned n)
{
    int r = 0;

    c->threads = calloc(n, sizeof(*c->threads));
    for (unsigned i = 0; c->threads && i < n && r == 0; i++) {
        struct classify_thread *t = &c->threads[i];

        t->pages = malloc(FRAME_PAGES_MAX * IMAGE_PAGE);
        t->parents = c->parent ? malloc(FRAME_PAGES_MAX * IMAGE_PAGE) : NULL;
        if (!t->pages || (c->parent && !t->parents))
            r = -ENOMEM;
        else if (c->parent)
            r = frame_coder_new(&t->coder);
    }
    return c->threads && r == 0 ? 0 : err_origin_errno(-ENOMEM, "no memory for %u threads", n);
}

static void end_threads(struct classify *c, unsigned n)
{
    for (unsigned i = 0; c->threads && i < n; i++) {
        (void)frame_coder_free(c->threads[i].coder);
        free(c->threads[i].parents);
        free(c->threads[i].pages);
    }
    free(c->threads);
}

int pack_classify(struct page_kinds *kinds, const struct page_source *src,
                  const struct pack_options *o)
{
    struct classify c = {
        .kinds = kinds,
        .src = src,
        .parent = o->parent,
        .part = {.job = &o->job, .what = "comparing"},
    };
    struct parallel work = {
        .n_threads = o->job.n_threads,
        .n_units = (kinds->n + PIECE_PAGES - 1) / PIECE_PAGES,
        .work = classify_unit,
        .tick = classify_tick,
        .ctx = &c,
    };
    int r = look(&c);

    if (r == 0 && o->parent) {
        work.n_units += o->parent->manifest->n_frames;
        r = frame_runs_init(&c.runs, o->parent->manifest);
    }
    if (r == 0)
        r = start_threads(&c, work.n_threads);
    if (r == 0)
        r = image_part_tell(&c.part);
    if (r == 0)
        r = parallel_run(&work);
    if (r == 0)
        r = image_part_tell(&c.part);
    end_threads(&c, work.n_threads);
    frame_runs_deinit(&c.runs);
    return r;
}
