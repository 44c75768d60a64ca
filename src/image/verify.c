/* SPDX-License-Identifier: Apache-2.0 */

/*
 * verify.c - are all bytes of some images what they were?
 *
 * Images share packs, and frames of them. So first all packs of all manifests are collected, each once, and then all frames,
 * in the order in which they are in the packs.
 *
 * For each pack the work is cut into units in this order: first the SHA-256 of the whole, which only one thread can compute;
 * then its frames, some at a time, which all others decompress and compare while the first one is at it. Both go through the
 * pack from its beginning to its end, so that what one of them has read the other one finds in memory.
 *
 * What is wrong is noted and the work goes on. A pack that cannot be opened is one defect, whatever frames it has; of one that
 * is too short, the frames that it has no bytes of are not defects of their own.
 *
 * Before all that come the manifests: those of the parents are not needed to read an image, but nothing in a store removes them
 * while a child is there (store_gc.c), so one that is gone or cannot be read has been lost. Each is looked at once, too.
 */

#include "image/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/thread.h"
#include "image/digest.h"
#include "image/frame.h"

#define READ_BYTES (256 * KIB)
#define UNIT_BYTES (1 * MIB) /* stored bytes of the frames of a unit, about */

/* struct unit - a piece of the work */
struct unit {
    uint32_t pack;
    uint32_t n_frames; /* 0: the whole pack's SHA-256 */
    uint64_t first_frame;
};

#define NO_PACK UINT32_MAX

/* struct defect - something that is wrong, and where: to be sorted */
struct defect {
    uint32_t pack; /* NO_PACK: of a manifest */
    uint64_t off;
    char *text;
};

struct verify {
    struct store *store;
    struct manifest_pack *packs; /* distinct, by SHA-256 */
    uint64_t n_packs;
    struct manifest_frame
        *frames; /* distinct, by pack and offset; their `pack` is a number of packs[] */
    uint64_t n_frames;
    struct unit *units;
    uint64_t n_units;
    struct frame_coder **coders; /* one for each thread, as buffers */
    char **buffers;
    unsigned n_threads;
    struct image_part part;
    uint64_t n_parents; /* that are not among the images */

    pthread_mutex_t mutex; /* of what follows */
    struct defect *defects;
    uint64_t n_defects;
    uint64_t room;
};

static int no_memory(void)
{
    return err_origin_errno(-ENOMEM, "no memory to verify images");
}

/* ---- what there is to look at ----------------------------------------------------------------------------------- */

static int compare_packs(const void *a, const void *b)
{
    const struct manifest_pack *x = a;
    const struct manifest_pack *y = b;
    int order = memcmp(x->sha256, y->sha256, IMAGE_ID_BYTES);

    return order != 0 ? order : compare_u64(&x->bytes, &y->bytes);
}

/* compare_frames() - by all that is said of them: two images may not agree */
static int compare_frames(const void *a, const void *b)
{
    const struct manifest_frame *x = a;
    const struct manifest_frame *y = b;

    if (x->pack != y->pack)
        return x->pack < y->pack ? -1 : 1;
    if (x->off != y->off)
        return x->off < y->off ? -1 : 1;
    return memcmp(x, y, sizeof(*x));
}

/* distinct() - sort @n entries; of several that are the same one is left. Return: how many there are then */
static uint64_t distinct(void *entries, uint64_t n, size_t size,
                         int (*compare)(const void *, const void *))
{
    char *e = entries;
    uint64_t kept = 0;

    if (n > 1)
        qsort(e, n, size, compare);
    for (uint64_t i = 0; i < n; i++) {
        if (kept > 0 && compare(e + (kept - 1) * size, e + i * size) == 0)
            continue;
        if (kept != i)
            memcpy(e + kept * size, e + i * size, size);
        kept++;
    }
    return kept;
}

/* find_pack() - the number of a pack that is there */
static uint32_t find_pack(const struct verify *v, const struct manifest_pack *pack)
{
    const struct manifest_pack *found =
        bsearch(pack, v->packs, v->n_packs, sizeof(*pack), compare_packs);

    assert(found);
    return (uint32_t)(found - v->packs);
}

static int collect_packs(struct verify *v, struct manifest *const *manifests, size_t n)
{
    uint64_t n_all = 0;

    for (size_t i = 0; i < n; i++)
        n_all += manifests[i]->n_packs;
    v->packs = calloc(n_all + 1, sizeof(*v->packs));
    if (!v->packs)
        return no_memory();
    for (size_t i = 0; i < n; i++) {
        if (manifests[i]->n_packs > 0)
            memcpy(v->packs + v->n_packs, manifests[i]->packs,
                   manifests[i]->n_packs * sizeof(*v->packs));
        v->n_packs += manifests[i]->n_packs;
    }
    v->n_packs = distinct(v->packs, v->n_packs, sizeof(*v->packs), compare_packs);
    return v->n_packs <= UINT32_MAX ? 0 : err_origin(-EFBIG, "more than %u packs", UINT32_MAX);
}

static int collect_frames(struct verify *v, struct manifest *const *manifests, size_t n)
{
    uint64_t n_all = 0;

    for (size_t i = 0; i < n; i++)
        n_all += manifests[i]->n_frames;
    v->frames = calloc(n_all + 1, sizeof(*v->frames));
    if (!v->frames)
        return no_memory();
    for (size_t i = 0; i < n; i++) {
        const struct manifest *m = manifests[i];

        for (uint32_t k = 0; k < m->n_frames; k++) {
            v->frames[v->n_frames] = m->frames[k];
            v->frames[v->n_frames++].pack = find_pack(v, &m->packs[m->frames[k].pack]);
        }
    }
    v->n_frames = distinct(v->frames, v->n_frames, sizeof(*v->frames), compare_frames);
    return 0;
}

/* cut() - the units of the work, in their order */
static int cut(struct verify *v)
{
    uint64_t next = 0;

    v->units = calloc(v->n_packs + v->n_frames + 1, sizeof(*v->units));
    if (!v->units)
        return no_memory();
    for (uint32_t pack = 0; pack < v->n_packs; pack++) {
        v->units[v->n_units++] = (struct unit){.pack = pack};
        v->part.all += v->packs[pack].bytes;
        while (next < v->n_frames && v->frames[next].pack == pack) {
            struct unit *u = &v->units[v->n_units++];
            uint64_t bytes = 0;

            *u = (struct unit){.pack = pack, .first_frame = next};
            for (; next < v->n_frames && v->frames[next].pack == pack && bytes < UNIT_BYTES;
                 next++) {
                bytes += v->frames[next].stored_bytes;
                u->n_frames++;
            }
            v->part.all += bytes;
        }
    }
    return 0;
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

/* note() - the text of this thread's last error is a defect. Return: 0 or -ENOMEM with a text */
static int note(struct verify *v, uint32_t pack, uint64_t off)
{
    struct defect d = {.pack = pack, .off = off, .text = strdup(err_text())};
    int r = d.text ? 0 : no_memory();

    pthread_mutex_lock(&v->mutex);
    if (r == 0 && v->n_defects == v->room) {
        uint64_t room = v->room ? v->room * 2 : 64;
        void *more = reallocarray(v->defects, room, sizeof(*v->defects));

        if (more) {
            v->defects = more;
            v->room = room;
        } else {
            r = no_memory();
        }
    }
    if (r == 0)
        v->defects[v->n_defects++] = d;
    pthread_mutex_unlock(&v->mutex);
    if (r < 0)
        free(d.text);
    return r;
}

/* struct parent - that an image names */
struct parent {
    uint8_t id[IMAGE_ID_BYTES];
    const struct manifest *child; /* NULL: it was looked at already */
};

/* compare_parents() - by their ids; what was looked at comes first */
static int compare_parents(const void *a, const void *b)
{
    const struct parent *x = a;
    const struct parent *y = b;
    int order = memcmp(x->id, y->id, IMAGE_ID_BYTES);

    return order != 0 ? order : (x->child != NULL) - (y->child != NULL);
}

/* note_parent() - this thread's last error is about one that cannot be read */
static int note_parent(struct verify *v, const struct parent *parent)
{
    char child[IMAGE_ID_TEXT];

    (void)err_origin(-EIO, "%s (a parent of image %.12s)", err_text(),
                     image_id_text(parent->child->id, child));
    return note(v, NO_PACK, v->n_parents);
}

/* list_parents() - @parents: (give) all that are named, and what was looked at; sorted */
static int list_parents(struct parent **parents, uint64_t *out_n, const struct verify_subject *what)
{
    uint64_t room = what->n + what->n_told;
    uint64_t k = 0;

    for (size_t i = 0; i < what->n; i++)
        room += what->manifests[i]->n_parents;
    *parents = calloc(room, sizeof(**parents));
    if (!*parents)
        return no_memory();
    for (size_t i = 0; i < what->n_told; i++)
        memcpy((*parents)[k++].id, what->told[i], IMAGE_ID_BYTES);
    for (size_t i = 0; i < what->n; i++) {
        const struct manifest *m = what->manifests[i];

        memcpy((*parents)[k++].id, m->id, IMAGE_ID_BYTES);
        for (uint32_t p = 0; p < m->n_parents; p++) {
            (*parents)[k].child = m;
            memcpy((*parents)[k++].id, m->parents[p], IMAGE_ID_BYTES);
        }
    }
    qsort(*parents, k, sizeof(**parents), compare_parents);
    *out_n = k;
    return 0;
}

/* check_parents() - the manifests of all parents are there and whole. Return: 0 or a negative errno with a text */
static int check_parents(struct verify *v, const struct verify_subject *what)
{
    struct parent *parents = NULL;
    uint64_t n_all = 0;
    int r = list_parents(&parents, &n_all, what);

    for (uint64_t i = 0; i < n_all && r == 0; i++) {
        _cleanup_(manifest_freep) struct manifest *m = NULL;

        if (!parents[i].child ||
            (i > 0 && memcmp(parents[i - 1].id, parents[i].id, IMAGE_ID_BYTES) == 0))
            continue;
        r = store_read_manifest(v->store, parents[i].id, &m, NULL);
        if (r < 0 && r != -ENOMEM)
            r = note_parent(v, &parents[i]);
        v->n_parents++;
        if (r == 0)
            r = image_part_tell(&v->part);
    }
    free(parents);
    return r;
}

/* check_uses() - is a frame in more pages of the memory than a pager takes (source/arena.c)? */
static int check_uses(struct verify *v, const struct manifest *m)
{
    uint64_t *n_used = calloc((size_t)m->n_frames + 1, sizeof(*n_used));
    char id[IMAGE_ID_TEXT];
    int r = 0;

    if (!n_used)
        return no_memory();
    for (uint64_t i = 0; i < m->n_runs; i++)
        n_used[m->runs[i].frame] += m->runs[i].n;
    for (uint32_t f = 0; f < m->n_frames && r == 0; f++) {
        if (n_used[f] <= FRAME_PAGES_MAX)
            continue;
        (void)err_origin(-EINVAL,
                         "image %.12s cannot be served: frame %u is in %ju pages of its memory, "
                         "expected at most %u",
                         image_id_text(m->id, id), f, (uintmax_t)n_used[f], FRAME_PAGES_MAX);
        r = note(v, NO_PACK, UINT64_MAX);
    }
    free(n_used);
    return r;
}

/* read_digest() - of an open pack, up to the length that it should have. Return: 0; -EIO and others with a text */
static int read_digest(struct verify *v, const struct manifest_pack *pack, int fd, const char *name,
                       uint8_t sha256[IMAGE_ID_BYTES])
{
    char *buffer = malloc(READ_BYTES);
    struct digest d;
    uint64_t off = 0;

    if (!buffer)
        return no_memory();
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    digest_init(&d);
    while (off < pack->bytes) {
        ssize_t n = pread(fd, buffer, min_u64(READ_BYTES, pack->bytes - off), (off_t)off);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int r = err_origin(-EIO, "cannot read pack %s at offset %" PRIu64 ": %s", name, off,
                               n < 0 ? strerrordesc_np(errno) : "it ends there");

            free(buffer);
            return r;
        }
        digest_add(&d, buffer, (size_t)n);
        off += (uint64_t)n;
        (void)atomic_fetch_add(&v->part.done, (uint64_t)n);
    }
    free(buffer);
    digest_end(&d, sha256);
    return 0;
}

/* check_pack() - its length, its beginning, its SHA-256 */
static int check_pack(struct verify *v, uint32_t number)
{
    const struct manifest_pack *pack = &v->packs[number];
    uint8_t sha256[IMAGE_ID_BYTES];
    _cleanup_fd_ int fd = -1;
    char found[IMAGE_ID_TEXT];
    char *name = NULL;
    int r = store_open_pack(v->store, pack, &fd, &name);

    if (r == 0)
        r = read_digest(v, pack, fd, name, sha256);
    if (r == 0 && memcmp(sha256, pack->sha256, IMAGE_ID_BYTES) != 0)
        r = err_origin(-EIO, "pack %s is damaged: its sha256 is %s (offset 0)", name,
                       image_id_text(sha256, found));
    free(name);
    if (r < 0 && r != -ENOMEM)
        r = note(v, number, 0);
    return r;
}

static int check_frames(struct verify *v, unsigned thread, const struct unit *u)
{
    _cleanup_fd_ int fd = -1;
    char *name = NULL;
    struct stat st;
    int r = 0;

    /* That it cannot be opened, or is not as it should be, is told by the unit of the whole pack. */
    (void)store_open_pack(v->store, &v->packs[u->pack], &fd, &name);
    if (!name)
        return no_memory();
    for (uint32_t i = 0; i < u->n_frames && r == 0 && fd >= 0 && fstat(fd, &st) == 0; i++) {
        const struct manifest_frame *f = &v->frames[u->first_frame + i];

        if (f->off + f->stored_bytes <= (uint64_t)st.st_size &&
            frame_read(v->coders[thread], f, fd, name, v->buffers[thread]) < 0)
            r = note(v, u->pack, f->off);
        (void)atomic_fetch_add(&v->part.done, f->stored_bytes);
    }
    free(name);
    return r;
}

static int do_unit(void *ctx, unsigned thread, uint64_t number)
{
    struct verify *v = ctx;
    const struct unit *u = &v->units[number];

    return u->n_frames == 0 ? check_pack(v, u->pack) : check_frames(v, thread, u);
}

static int tick(void *ctx)
{
    return image_part_tell(&((struct verify *)ctx)->part);
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static int start_threads(struct verify *v)
{
    bool ok;

    v->coders = calloc(v->n_threads, sizeof(struct frame_coder *));
    v->buffers = calloc(v->n_threads, sizeof(*v->buffers));
    ok = v->coders && v->buffers;
    for (unsigned i = 0; ok && i < v->n_threads; i++) {
        v->buffers[i] = malloc(FRAME_PAGES_MAX * IMAGE_PAGE);
        ok = v->buffers[i] && frame_coder_new(&v->coders[i]) == 0;
    }
    return ok ? 0 : no_memory();
}

static void verify_deinit(struct verify *v)
{
    for (unsigned i = 0; i < v->n_threads; i++) {
        if (v->coders)
            (void)frame_coder_free(v->coders[i]);
        if (v->buffers)
            free(v->buffers[i]);
    }
    for (uint64_t i = 0; i < v->n_defects; i++)
        free(v->defects[i].text);
    free((void *)v->coders);
    free((void *)v->buffers);
    free(v->packs);
    free(v->frames);
    free(v->units);
    free(v->defects);
    pthread_mutex_destroy(&v->mutex);
}

static int compare_defects(const void *a, const void *b)
{
    const struct defect *x = a;
    const struct defect *y = b;

    if (x->pack != y->pack) /* NO_PACK first */
        return x->pack + 1 < y->pack + 1 ? -1 : 1;
    return x->off != y->off ? compare_u64(&x->off, &y->off) : strcmp(x->text, y->text);
}

int verify_images(struct store *s, const struct verify_subject *what, const struct image_job *job,
                  void (*defect)(void *ctx, const char *text), void *ctx, struct verify_result *out)
{
    struct verify v = {
        .store = s, .n_threads = job->n_threads, .part = {.job = job, .what = "verifying"}};
    struct parallel work = {.n_threads = job->n_threads, .work = do_unit, .tick = tick, .ctx = &v};
    int r;

    pthread_mutex_init(&v.mutex, NULL);
    r = check_parents(&v, what);
    for (size_t i = 0; i < what->n && r == 0; i++)
        r = check_uses(&v, what->manifests[i]);
    if (r == 0)
        r = collect_packs(&v, what->manifests, what->n);
    if (r == 0)
        r = collect_frames(&v, what->manifests, what->n);
    if (r == 0)
        r = cut(&v);
    if (r == 0)
        r = start_threads(&v);
    if (r == 0)
        r = image_part_tell(&v.part);
    work.n_units = v.n_units;
    if (r == 0)
        r = parallel_run(&work);
    if (v.n_defects > 1)
        qsort(v.defects, v.n_defects, sizeof(*v.defects), compare_defects);
    *out = (struct verify_result){.n_parents = v.n_parents,
                                  .n_packs = v.n_packs,
                                  .n_frames = v.n_frames,
                                  .n_defects = v.n_defects};
    for (uint64_t i = 0; i < v.n_packs; i++)
        out->pack_bytes += v.packs[i].bytes;
    for (uint64_t i = 0; i < v.n_defects; i++)
        defect(ctx, v.defects[i].text);
    verify_deinit(&v);
    return r;
}
