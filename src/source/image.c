/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.c - an image: where its pages are is in its manifest, and their bytes are in the arena once they were asked for
 *
 *     locate()   the arena has the page   in memory, with its neighbours that the arena has
 *                no run has the page      zero, up to the next run
 *                else                     elsewhere, as far as its frame has the neighbours too
 *     fetch()    the frames of the range go into the arena; they stay there until trim() finds too many (arena.c)
 *
 * What is in the arena is contiguous there as it is in the guest, so one install takes a run of pages out of several frames,
 * as with a raw file.
 *
 * A page of the guest that is larger than one of the image's is in memory if all of its parts are there or are zero: where no
 * run is, nothing is ever written to the arena.
 *
 * Before there is a VM the kernel is told to read the frames of the working set. They are the first ones of the image's own
 * pack, back to back, so that is one long read.
 */
#include "source/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/err.h"
#include "source/arena.h"

struct image_source {
    struct image *image;      /* owned */
    const struct manifest *m; /* its manifest */
    struct arena *arena;      /* owned */
    uint64_t *hot;            /* owned: a bit a frame: it has pages of the working set */
    uint64_t *advised;        /* owned: a bit a frame: the kernel has been told to read it */
};

static uint64_t run_end(const struct manifest_run *run)
{
    return run->first + run->n;
}

static bool has_bit(const uint64_t *words, uint32_t i)
{
    return (words[i / 64] >> (i % 64)) & 1;
}

static void set_bit(uint64_t *words, uint32_t i)
{
    words[i / 64] |= 1ull << (i % 64);
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

/* locate_away() - a page whose bit is not set */
static void locate_away(const struct image_source *s, struct thaw_extent *out, uint64_t page,
                        uint64_t lo, uint64_t hi)
{
    const struct manifest_run *runs = s->m->runs;
    uint64_t i = manifest_find(s->m, page);
    uint64_t n = s->m->n_runs;
    uint64_t begin = i;

    if (i == n || runs[i].first > page) {
        uint64_t before = i > 0 ? run_end(&runs[i - 1]) : 0;

        out->where = THAW_WHERE_ZERO;
        out->first = max_u64(lo, before) * IMAGE_PAGE;
        out->end = (i < n ? min_u64(hi, runs[i].first) : hi) * IMAGE_PAGE;
        return;
    }
    while (begin > 0 && runs[begin].first > lo && runs[begin - 1].frame == runs[begin].frame &&
           run_end(&runs[begin - 1]) == runs[begin].first)
        begin--;
    while (i + 1 < n && run_end(&runs[i]) < hi && runs[i + 1].frame == runs[i].frame &&
           run_end(&runs[i]) == runs[i + 1].first)
        i++;
    out->where = THAW_WHERE_ELSEWHERE;
    out->first = max_u64(lo, runs[begin].first) * IMAGE_PAGE;
    out->end = min_u64(hi, run_end(&runs[i])) * IMAGE_PAGE;
}

/* locate_large() - a page of the guest that is several of the image's, without its neighbours */
static void locate_large(const struct image_source *s, struct thaw_extent *out, uint64_t first,
                         uint64_t end)
{
    const struct manifest_run *runs = s->m->runs;

    arena_stand_alone(s->arena);
    out->where = THAW_WHERE_ZERO;
    for (uint64_t i = manifest_find(s->m, first); i < s->m->n_runs && runs[i].first < end; i++) {
        uint64_t page = max_u64(first, runs[i].first);
        uint64_t last = min_u64(end, run_end(&runs[i]));
        uint64_t there_end;

        out->where = THAW_WHERE_MEMORY;
        if (!arena_find(s->arena, page, page, last, &page, &there_end) || there_end < last) {
            out->where = THAW_WHERE_ELSEWHERE;
            return;
        }
    }
    if (out->where == THAW_WHERE_MEMORY) {
        out->bytes = arena_page(s->arena, first);
        out->lasting = 1;
    }
}

static int image_locate(void *self, struct thaw_extent *out, uint64_t off, uint64_t lo, uint64_t hi,
                        uint64_t page_bytes)
{
    const struct image_source *s = self;
    uint64_t page = off / IMAGE_PAGE;
    uint64_t first;
    uint64_t end;

    *out = (struct thaw_extent){.first = off, .end = off + page_bytes};
    if (page_bytes > IMAGE_PAGE) {
        locate_large(s, out, page, (off + page_bytes) / IMAGE_PAGE);
        return 0;
    }
    lo /= IMAGE_PAGE;
    hi /= IMAGE_PAGE;
    out->bytes = arena_find(s->arena, page, lo, hi, &first, &end);
    if (!out->bytes) {
        locate_away(s, out, page, lo, hi);
        return 0;
    }
    out->where = THAW_WHERE_MEMORY;
    out->first = first * IMAGE_PAGE;
    out->end = end * IMAGE_PAGE;
    out->lasting = 1;
    return 0;
}

/* ---- hints ------------------------------------------------------------------------------------------------------ */

/* advise() - have the kernel read frame @f, and with it those of the working set that come right behind it in the pack */
/* #syscalls:start fadvise64 */
static void advise(struct image_source *s, uint32_t f)
{
    const struct manifest_frame *frames = s->m->frames;
    uint64_t end = frames[f].off + frames[f].stored_bytes;
    uint32_t next = f + 1;

    set_bit(s->advised, f);
    while (next < s->m->n_frames && frames[next].pack == frames[f].pack &&
           frames[next].off == end && has_bit(s->hot, next)) {
        set_bit(s->advised, next);
        end += frames[next].stored_bytes;
        next++;
    }
    (void)posix_fadvise(s->image->pack_fds[frames[f].pack], (off_t)frames[f].off,
                        (off_t)(end - frames[f].off), POSIX_FADV_WILLNEED);
}

static void image_expect(void *self, uint64_t lo, uint64_t hi)
{
    struct image_source *s = self;
    const struct manifest *m = s->m;

    for (uint64_t i = manifest_find(m, lo / IMAGE_PAGE);
         i < m->n_runs && m->runs[i].first * IMAGE_PAGE < hi; i++) {
        uint64_t page = m->runs[i].first;
        uint64_t end;

        if (!has_bit(s->advised, m->runs[i].frame) &&
            !arena_find(s->arena, page, page, page + 1, &page, &end))
            advise(s, m->runs[i].frame);
    }
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static struct image_source *image_source_free(struct image_source *s)
{
    if (!s)
        return NULL;
    s->arena = arena_free(s->arena);
    s->image = image_close(s->image);
    free(s->hot);
    free(s->advised);
    free(s);
    return NULL;
}

DEFINE_CLEANUP(struct image_source *, image_source_free);

static int image_fetch(void *self, uint64_t lo, uint64_t hi)
{
    const struct image_source *s = self;

    return arena_fetch(s->arena, lo / IMAGE_PAGE, hi / IMAGE_PAGE);
}

static void image_trim(void *self)
{
    const struct image_source *s = self;

    arena_trim(s->arena);
}

static void image_free(void *self)
{
    (void)image_source_free(self);
}

static const struct thaw_source_ops image_ops = {
    .name = "image",
    .locate = image_locate,
    .fetch = image_fetch,
    .expect = image_expect,
    .trim = image_trim,
    .free = image_free,
};

static void mark_hot(struct image_source *s)
{
    const struct manifest *m = s->m;

    for (uint64_t h = 0; h < m->n_hot; h++) {
        uint64_t end = m->hot[h].first + m->hot[h].n;

        for (uint64_t i = manifest_find(m, m->hot[h].first);
             i < m->n_runs && m->runs[i].first < end; i++)
            set_bit(s->hot, m->runs[i].frame);
    }
}

int source_open_image(struct source **out, struct image *image, uint64_t cache_bytes,
                      struct share *share)
{
    _cleanup_(share_freep) struct share *shared = share;
    struct arena_options o = {.cache_bytes = cache_bytes, .share = share};

    _cleanup_(image_source_freep) struct image_source *s = calloc(1, sizeof(*s));
    const struct manifest *m = image->manifest;
    int r;

    if (!s)
        return err_origin_errno(-ENOMEM, "cannot serve image %s", image->name);
    s->m = m;
    s->hot = calloc(m->n_frames / 64 + 1, sizeof(*s->hot));
    s->advised = calloc(m->n_frames / 64 + 1, sizeof(*s->advised));
    if (!s->hot || !s->advised)
        return err_origin_errno(-ENOMEM, "cannot serve image %s", image->name);
    mark_hot(s);
    r = arena_new(&s->arena, image, &o);
    if (r < 0)
        return r;
    (void)TAKE(shared);
    r = source_new(out, &image_ops, s, m->image_bytes);
    if (r < 0)
        return r;
    TAKE(s)->image = image; /* taken on success */
    return 0;
}
