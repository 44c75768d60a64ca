/* SPDX-License-Identifier: Apache-2.0 */
#include "image_rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "testing.h"

#include "base/fd.h"
#include "source/image.h"

/* word_of() - each word of page @p */
static uint64_t word_of(uint64_t p)
{
    return p * 0x9e3779b97f4a7c15ull | 1;
}

void rig_fill_page(void *page, uint64_t p)
{
    uint64_t *words = page;

    for (unsigned i = 0; i < PAGE / 8; i++)
        words[i] = word_of(p);
}

bool rig_is_page(const void *page, uint64_t p)
{
    const uint64_t *words = page;

    for (unsigned i = 0; i < PAGE / 8; i++) {
        if (words[i] != word_of(p))
            return false;
    }
    return true;
}

#define FRAMES_MAX 1024u
#define RUNS_MAX   4096u

int rig_pack = -1;

struct rig rig_begin(uint64_t n_pages)
{
    struct rig m = {.off = sizeof(struct pack_header)};

    m.image = calloc(1, sizeof(*m.image));
    assert_non_null(m.image);
    m.image->name = strdup("test");
    m.image->manifest_fd = -1;
    assert_int_equal(manifest_new(&m.image->manifest, n_pages * PAGE), 0);
    m.image->manifest->frames = calloc(FRAMES_MAX, sizeof(struct manifest_frame));
    m.image->manifest->runs = calloc(RUNS_MAX, sizeof(struct manifest_run));
    m.image->manifest->packs = calloc(1, sizeof(struct manifest_pack));
    m.image->manifest->n_packs = 1;
    m.image->pack_fds = calloc(1, sizeof(int));
    m.image->pack_names = calloc(1, sizeof(char *));
    m.image->pack_names[0] = strdup("/store/packs/feed");
    rig_pack = memfd_create("thaw-test", MFD_CLOEXEC);
    assert_true(rig_pack >= 0);
    assert_int_equal(frame_coder_new(&m.coder), 0);
    return m;
}

void rig_add_run(struct rig *m, uint64_t first, uint32_t n, uint32_t frame, uint32_t index)
{
    struct manifest *man = m->image->manifest;

    assert_true(man->n_runs < RUNS_MAX);
    man->runs[man->n_runs++] =
        (struct manifest_run){.first = first, .n = n, .frame = frame, .index = index};
}

/* rig_add_frame() - of these pages of the guest in this order, without runs. Return: its number */
uint32_t rig_add_frame(struct rig *m, const uint64_t *pages, unsigned n, enum frame_codec codec)
{
    struct manifest *man = m->image->manifest;
    struct manifest_frame *frame = &man->frames[man->n_frames];
    char *bytes = malloc(n * PAGE);
    char *stored = malloc(n * PAGE);

    assert_true(man->n_frames < FRAMES_MAX && bytes && stored);
    for (unsigned i = 0; i < n; i++)
        rig_fill_page(bytes + i * PAGE, pages[i]);
    *frame = (struct manifest_frame){.off = m->off, .n_pages = (uint16_t)n};
    assert_int_equal(frame_encode(m->coder, frame, bytes, stored, codec, 0), 0);
    assert_int_equal(pwrite(rig_pack, stored, frame->stored_bytes, (off_t)m->off),
                     frame->stored_bytes);
    m->off += frame->stored_bytes;
    free(bytes);
    free(stored);
    return man->n_frames++;
}

/* rig_add_pages() - a frame of pages that follow each other, and its run */
void rig_add_pages(struct rig *m, uint64_t first, unsigned n, enum frame_codec codec)
{
    uint64_t pages[FRAME_PAGES_MAX];

    for (unsigned i = 0; i < n; i++)
        pages[i] = first + i;
    rig_add_run(m, first, n, rig_add_frame(m, pages, n, codec), 0);
}

static int compare_runs(const void *a, const void *b)
{
    const struct manifest_run *x = a;
    const struct manifest_run *y = b;

    return compare_u64(&x->first, &y->first);
}

/* rig_open() - what source_open_image() says of it. Return: its result; the image is closed if it failed */
struct image *rig_image(struct rig *m)
{
    struct manifest *man = m->image->manifest;
    char path[64];

    qsort(man->runs, man->n_runs, sizeof(*man->runs), compare_runs);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", rig_pack);
    m->image->pack_fds[0] = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(m->image->pack_fds[0] >= 0);
    m->coder = frame_coder_free(m->coder);
    return m->image;
}

int rig_open(struct rig *m, struct source **out, uint64_t cache_bytes)
{
    int r = source_open_image(out, rig_image(m), cache_bytes, NULL);

    if (r < 0)
        m->image = image_close(m->image);
    return r;
}

struct source *rig_end(struct rig *m, uint64_t cache_bytes)
{
    struct source *s = NULL;

    assert_int_equal(rig_open(m, &s, cache_bytes), 0);
    assert_int_equal(source_size_bytes(s), m->image->manifest->image_bytes);
    return s;
}

void rig_close(struct source *s)
{
    (void)source_free(s);
    rig_pack = fd_close(rig_pack);
}

/* rig_look() - locate page @p within pages [lo, hi) */
struct thaw_extent rig_look(struct source *s, uint64_t p, uint64_t lo, uint64_t hi)
{
    struct thaw_extent x;

    assert_int_equal(source_locate(s, &x, p * PAGE, lo * PAGE, hi * PAGE, PAGE), 0);
    return x;
}

void rig_check(struct source *s, uint64_t p, uint64_t lo, uint64_t hi, enum thaw_where where,
               uint64_t first, uint64_t last)
{
    struct thaw_extent x = rig_look(s, p, lo, hi);

    assert_int_equal(x.where, where);
    assert_int_equal(x.first, first * PAGE);
    assert_int_equal(x.end, last * PAGE);
    if (where == THAW_WHERE_MEMORY) {
        assert_true(x.lasting);
        for (uint64_t i = first; i < last; i++)
            assert_true(rig_is_page((const char *)x.bytes + (i - first) * PAGE, i));
    }
}

void rig_fetch(struct source *s, uint64_t first, uint64_t last)
{
    assert_int_equal(source_fetch(s, first * PAGE, last * PAGE), 0);
}
