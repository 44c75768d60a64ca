/* SPDX-License-Identifier: Apache-2.0 */

/*
 * unpack.c - from an image back to a raw memory file
 *
 * Frame by frame: each is read, decompressed and checked once, by any thread, and its pages written where they belong. No two
 * runs have a page in common, so nobody waits for anybody.
 */

#include "image/unpack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/err.h"
#include "image/frame.h"
#include "image/frame_runs.h"

struct unpack_thread {
    struct frame_coder *coder;
    char *pages;
};

struct unpack {
    const struct image *img;
    int fd;
    const char *path;
    struct frame_runs runs;
    struct unpack_thread *threads;
    struct image_part part;
};

static int write_at(const struct unpack *u, const char *bytes, size_t len, uint64_t off)
{
    while (len > 0) {
        ssize_t n = pwrite(u->fd, bytes, len, (off_t)off);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_origin_errno(-errno, "cannot write %s", u->path);
        bytes += n;
        len -= (size_t)n;
        off += (uint64_t)n;
    }
    return 0;
}

static int unpack_frame(void *ctx, unsigned thread, uint64_t unit)
{
    struct unpack *u = ctx;
    struct unpack_thread *t = &u->threads[thread];
    const struct manifest *m = u->img->manifest;
    const struct manifest_frame *frame = &m->frames[unit];
    int r = 0;

    if (u->runs.first[unit] == u->runs.first[unit + 1])
        return 0;
    r = frame_read(t->coder, frame, u->img->pack_fds[frame->pack], u->img->pack_names[frame->pack],
                   t->pages);
    for (uint64_t i = u->runs.first[unit]; i < u->runs.first[unit + 1] && r == 0; i++) {
        const struct manifest_run *run = &m->runs[u->runs.numbers[i]];

        r = write_at(u, t->pages + (uint64_t)run->index * IMAGE_PAGE, run->n * IMAGE_PAGE,
                     run->first * IMAGE_PAGE);
        (void)atomic_fetch_add(&u->part.done, run->n * IMAGE_PAGE);
    }
    return r;
}

static int tick(void *ctx)
{
    return image_part_tell(&((struct unpack *)ctx)->part);
}

static int start_threads(struct unpack *u, unsigned n)
{
    bool ok;

    u->threads = calloc(n, sizeof(*u->threads));
    ok = u->threads != NULL;
    for (unsigned i = 0; ok && i < n; i++) {
        u->threads[i].pages = malloc(FRAME_PAGES_MAX * IMAGE_PAGE);
        ok = u->threads[i].pages && frame_coder_new(&u->threads[i].coder) == 0;
    }
    return ok ? 0 : err_origin_errno(-ENOMEM, "no memory for %u threads", n);
}

static void end_threads(struct unpack *u, unsigned n)
{
    for (unsigned i = 0; u->threads && i < n; i++) {
        (void)frame_coder_free(u->threads[i].coder);
        free(u->threads[i].pages);
    }
    free(u->threads);
}

int unpack_image(const struct image *img, int fd, const char *path, const struct image_job *job)
{
    const struct manifest *m = img->manifest;
    struct unpack u = {
        .img = img, .fd = fd, .path = path, .part = {.job = job, .what = "unpacking"}};
    struct parallel work = {
        .n_threads = job->n_threads,
        .n_units = m->n_frames,
        .work = unpack_frame,
        .tick = tick,
        .ctx = &u,
    };
    int r;

    for (uint64_t i = 0; i < m->n_runs; i++)
        u.part.all += m->runs[i].n * IMAGE_PAGE;
    if (ftruncate(fd, (off_t)m->image_bytes) < 0)
        return err_origin_errno(-errno, "cannot make %s %" PRIu64 " bytes long", path,
                                m->image_bytes);
    r = frame_runs_init(&u.runs, m);
    if (r == 0)
        r = start_threads(&u, job->n_threads);
    if (r == 0)
        r = image_part_tell(&u.part);
    if (r == 0)
        r = parallel_run(&work);
    if (r == 0)
        r = image_part_tell(&u.part);
    end_threads(&u, job->n_threads);
    frame_runs_deinit(&u.runs);
    return r;
}
