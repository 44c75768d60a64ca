/* SPDX-License-Identifier: Apache-2.0 */
/*
 * frame_times.c - how long one frame of an image takes: read, decompressed, checked
 *
 *     frame_times STORE IMAGE N       N frames at random; a line of JSON with nanoseconds
 *
 * All frames are read once before, so that their packs are in the page cache: what is measured is what a page fault costs, not
 * the disk. tools/bench_image.py runs it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "image/frame.h"
#include "image/store.h"

static int read_one(const struct image *img, struct frame_coder *coder, uint32_t i, void *pages)
{
    const struct manifest_frame *frame = &img->manifest->frames[i];

    return frame_read(coder, frame, img->pack_fds[frame->pack], img->pack_names[frame->pack],
                      pages);
}

static int measure(const struct image *img, size_t n)
{
    _cleanup_(frame_coder_freep) struct frame_coder *coder = NULL;
    uint32_t n_frames = img->manifest->n_frames;
    uint64_t *times_ns = calloc(n, sizeof(*times_ns));
    void *pages = malloc(FRAME_PAGES_MAX * IMAGE_PAGE);
    uint64_t sum_ns = 0;
    int r = times_ns && pages && n_frames > 0 ? frame_coder_new(&coder) : -1;

    for (uint32_t i = 0; i < n_frames && r == 0; i++)
        r = read_one(img, coder, i, pages);
    srandom(1);
    for (size_t i = 0; i < n && r == 0; i++) {
        uint32_t frame = (uint32_t)random() % n_frames;
        uint64_t begin_ns = clock_now_ns();

        r = read_one(img, coder, frame, pages);
        times_ns[i] = clock_now_ns() - begin_ns;
        sum_ns += times_ns[i];
    }
    if (r == 0) {
        qsort(times_ns, n, sizeof(*times_ns), compare_u64);
        (void)printf("{\"frames\":%u,\"mean_ns\":%" PRIu64 ",\"p50_ns\":%" PRIu64
                     ",\"p99_ns\":%" PRIu64 "}\n",
                     n_frames, sum_ns / n, times_ns[n / 2], times_ns[n * 99 / 100]);
    }
    free(times_ns);
    free(pages);
    return r;
}

int main(int argc, char **argv)
{
    _cleanup_(store_closep) struct store *store = NULL;
    _cleanup_(image_closep) struct image *img = NULL;
    size_t n = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;

    if (n == 0) {
        (void)fprintf(stderr, "usage: frame_times STORE IMAGE N\n");
        return 2;
    }
    if (store_open(&store, argv[1], false) < 0 || image_open(&img, store, argv[2]) < 0 ||
        measure(img, n) < 0) {
        (void)fprintf(stderr, "frame_times: %s\n", err_text());
        return 1;
    }
    return 0;
}
