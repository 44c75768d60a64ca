/* SPDX-License-Identifier: Apache-2.0 */

/*
 * pack_frames.c - pages into frames, frames into a pack
 *
 * The order of the pages is fixed before anything is compressed: those of the working set as they were touched first, then the
 * others by address. They are cut into jobs, and those into frames; a frame has pages of one of the two parts only.
 *
 * Threads take jobs in that order, read and compress them. A job that is done waits in its slot until all before it are
 * written; whoever ends the one that is next writes it, and all that wait behind it. So there is one writer at any time, no
 * thread of its own for it, and the pack is the same for any number of threads. There are a few slots for each thread: that
 * bounds the memory, and the job that is next always has a slot, because all before it have left theirs.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/thread.h"
#include "image/pack_private.h"

#define JOB_PAGES        128u /* at least, but for the last one of a part */
#define SLOTS_PER_THREAD 3u

/* struct slot - a job on its way */
struct slot {
    bool taken;
    bool done; /* compressed: waits to be written */
    uint32_t n_pages;
    uint32_t n_frames;
    uint64_t *pages; /* page numbers */
    struct manifest_frame *frames;
    char *raw;
    char *stored; /* the frames, back to back */
    size_t stored_bytes;
};

struct pack_work {
    const struct page_source *src;
    const struct pack_options *o;
    struct page_kinds *kinds;
    struct packed *out;
    int fd;
    uint32_t job_pages; /* a multiple of the frame's pages */
    uint64_t *hot;      /* pages of the working set that are stored, in its order */
    uint64_t n_hot;
    struct frame_coder **coders; /* one for each thread */
    struct image_part part;

    pthread_mutex_t
        mutex; /* of all that follows; what is in a slot is its thread's, and then the writer's */
    pthread_cond_t moved; /* a slot was filled or became free, or somebody failed */
    struct slot *slots;
    unsigned n_slots;
    uint64_t next_job;
    uint64_t next_filled;
    uint64_t next_written;
    uint64_t next_hot;
    uint64_t next_page; /* where to look for further pages to be stored */
    bool writing;
    bool failed;
};

/* ---- which pages, in which order ------------------------------------------------------------------------------ */

/* mark_hot() - take the working set's pages out of the others, in their order */
static int mark_hot(struct pack_work *w, const struct workingset *ws)
{
    uint64_t unit_pages = ws ? (1ull << ws->unit_shift) / IMAGE_PAGE : 0;

    w->hot = calloc(ws ? ws->n * unit_pages + 1 : 1, sizeof(*w->hot));
    if (!w->hot)
        return err_origin_errno(-ENOMEM, "no memory for the order of a working set");
    for (size_t i = 0; ws && i < ws->n; i++) {
        uint64_t first = ws->entries[i].unit * unit_pages;

        for (uint64_t p = first; p < first + unit_pages; p++) {
            if (w->kinds->of[p] != KIND_OWN)
                continue;
            w->kinds->of[p] = KIND_HOT;
            w->hot[w->n_hot++] = p;
        }
    }
    w->out->n_hot = w->n_hot;
    return 0;
}

/* fill_locked() - the next job's pages */
static void fill_locked(struct pack_work *w, struct slot *slot)
{
    slot->n_pages = 0;
    while (slot->n_pages < w->job_pages && w->next_hot < w->n_hot)
        slot->pages[slot->n_pages++] = w->hot[w->next_hot++];
    if (slot->n_pages > 0)
        return;
    while (slot->n_pages < w->job_pages && w->next_page < w->kinds->n) {
        const uint8_t *from = w->kinds->of + w->next_page;
        const uint8_t *own = memchr(from, KIND_OWN, w->kinds->n - w->next_page);

        if (!own) {
            w->next_page = w->kinds->n;
            break;
        }
        w->next_page = (uint64_t)(own - w->kinds->of);
        slot->pages[slot->n_pages++] = w->next_page++;
    }
}

/* ---- a job ---------------------------------------------------------------------------------------------------- */

/* gather() - read a job's pages, neighbours together */
static int gather(const struct pack_work *w, struct slot *slot)
{
    int r = 0;

    for (uint32_t i = 0, n; i < slot->n_pages && r == 0; i += n) {
        n = 1;
        while (i + n < slot->n_pages && slot->pages[i + n] == slot->pages[i] + n)
            n++;
        r = w->src->read(w->src->ctx, slot->raw + i * IMAGE_PAGE, n * IMAGE_PAGE,
                         slot->pages[i] * IMAGE_PAGE);
    }
    return r;
}

static int encode(const struct pack_work *w, struct slot *slot, struct frame_coder *coder)
{
    uint32_t step = w->o->frame_pages;
    int r = 0;

    slot->stored_bytes = 0;
    slot->n_frames = 0;
    for (uint32_t i = 0; i < slot->n_pages && r == 0; i += step) {
        struct manifest_frame *frame = &slot->frames[slot->n_frames++];

        *frame = (struct manifest_frame){.n_pages = (uint16_t)min_u64(step, slot->n_pages - i)};
        r = frame_encode(coder, frame, slot->raw + i * IMAGE_PAGE,
                         slot->stored + slot->stored_bytes, w->o->codec, w->o->level);
        slot->stored_bytes += frame->stored_bytes;
    }
    return r;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

/* room_for() - for @more entries of @size behind @n in an array */
static int room_for(void **array, size_t *room, size_t n, size_t more, size_t size)
{
    size_t wanted = *room ? *room : 1024;
    void *grown;

    if (n + more <= *room)
        return 0;
    while (wanted < n + more)
        wanted *= 2;
    grown = reallocarray(*array, wanted, size);
    if (!grown)
        return err_origin_errno(-ENOMEM, "no memory for a manifest of %zu entries", wanted);
    *array = grown;
    *room = wanted;
    return 0;
}

/* note_runs() - where the pages of a frame are: the job's pages from @at on */
static int note_runs(struct packed *out, const struct slot *slot, uint32_t at, uint32_t n,
                     uint32_t frame)
{
    void *runs = out->runs;
    int r = room_for(&runs, &out->runs_room, out->n_runs, n, sizeof(*out->runs));

    if (r < 0)
        return r;
    out->runs = runs;
    for (uint32_t i = 0; i < n; i++) {
        struct manifest_run *run = &out->runs[out->n_runs];

        if (i > 0 && slot->pages[at + i] == run[-1].first + run[-1].n)
            run[-1].n++;
        else
            out->runs[out->n_runs++] = (struct manifest_run){
                .first = slot->pages[at + i], .n = 1, .frame = frame, .index = i};
    }
    return 0;
}

static int note_frames(struct pack_work *w, const struct slot *slot)
{
    struct packed *out = w->out;
    void *frames = out->frames;
    uint32_t at = 0;
    int r =
        room_for(&frames, &out->frames_room, out->n_frames, slot->n_frames, sizeof(*out->frames));

    if (r < 0)
        return r;
    out->frames = frames;
    if (out->n_frames + slot->n_frames > UINT32_MAX)
        return err_origin(-EFBIG, "more than %u frames in a pack: larger frames are needed",
                          UINT32_MAX);
    for (uint32_t i = 0; i < slot->n_frames && r == 0; i++) {
        struct manifest_frame *frame = &out->frames[out->n_frames];

        *frame = slot->frames[i];
        frame->off = out->bytes;
        out->bytes += frame->stored_bytes;
        r = note_runs(out, slot, at, frame->n_pages, (uint32_t)out->n_frames);
        at += frame->n_pages;
        out->n_frames++;
    }
    return r;
}

static int append(struct pack_work *w, const void *bytes, size_t len)
{
    int r = fd_write_all(w->fd, bytes, len);

    if (r < 0)
        return err_origin_errno(r, "cannot write the pack of image %s", w->o->name);
    digest_add(&w->out->digest, bytes, len);
    return 0;
}

static int write_job(struct pack_work *w, const struct slot *slot)
{
    int r = append(w, slot->stored, slot->stored_bytes);

    if (r == 0)
        r = note_frames(w, slot);
    (void)atomic_fetch_add(&w->part.done, slot->n_pages * IMAGE_PAGE);
    return r;
}

/* write_ready_locked() - all jobs that are next. Somebody who is at it already does it */
static int write_ready_locked(struct pack_work *w)
{
    int r = 0;

    while (!w->writing && !w->failed && r == 0) {
        struct slot *slot = &w->slots[w->next_written % w->n_slots];

        if (!slot->taken || !slot->done)
            break;
        w->writing = true;
        pthread_mutex_unlock(&w->mutex);
        r = write_job(w, slot);
        pthread_mutex_lock(&w->mutex);
        w->writing = false;
        w->next_written++;
        slot->taken = slot->done = false;
        pthread_cond_broadcast(&w->moved);
    }
    return r;
}

/* take_slot_locked() - of the next job, filled; in the order of the jobs. Return: NULL: another thread failed */
static struct slot *take_slot_locked(struct pack_work *w)
{
    uint64_t job = w->next_job++;
    struct slot *slot = &w->slots[job % w->n_slots];

    while ((slot->taken || w->next_filled != job) && !w->failed)
        pthread_cond_wait(&w->moved, &w->mutex);
    if (w->failed)
        return NULL;
    slot->taken = true;
    fill_locked(w, slot);
    w->next_filled++;
    pthread_cond_broadcast(&w->moved);
    return slot;
}

static int do_job(void *ctx, unsigned thread, uint64_t unit)
{
    struct pack_work *w = ctx;
    struct slot *slot;
    int r = 0;

    (void)unit; /* units are begun in their order, but here they may arrive in another one */
    pthread_mutex_lock(&w->mutex);
    slot = take_slot_locked(w);
    if (slot) {
        pthread_mutex_unlock(&w->mutex);
        r = gather(w, slot);
        if (r == 0)
            r = encode(w, slot, w->coders[thread]);
        pthread_mutex_lock(&w->mutex);
        slot->done = r == 0;
        if (r == 0)
            r = write_ready_locked(w);
    }
    if (r < 0) {
        w->failed = true;
        pthread_cond_broadcast(&w->moved);
    }
    pthread_mutex_unlock(&w->mutex);
    return r;
}

/* tick() - a watcher who wants it to end is heard by those who wait for a slot, too */
static int tick(void *ctx)
{
    struct pack_work *w = ctx;
    int r = image_part_tell(&w->part);

    if (r < 0) {
        pthread_mutex_lock(&w->mutex);
        w->failed = true;
        pthread_cond_broadcast(&w->moved);
        pthread_mutex_unlock(&w->mutex);
    }
    return r;
}

/* ---- the pack ------------------------------------------------------------------------------------------------- */

static bool slot_init(struct slot *slot, uint32_t n_pages, uint32_t n_frames)
{
    *slot = (struct slot){
        .pages = calloc(n_pages, sizeof(*slot->pages)),
        .frames = calloc(n_frames, sizeof(*slot->frames)),
        .raw = malloc(n_pages * IMAGE_PAGE),
        .stored = malloc(n_pages * IMAGE_PAGE),
    };
    return slot->pages && slot->frames && slot->raw && slot->stored;
}

static int work_init(struct pack_work *w)
{
    uint32_t step = w->o->frame_pages;
    bool ok;

    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->moved, NULL);
    w->job_pages = step * (uint32_t)max_u64(1, JOB_PAGES / step);
    w->coders = calloc(w->o->job.n_threads, sizeof(struct frame_coder *));
    w->slots = calloc((size_t)w->o->job.n_threads * SLOTS_PER_THREAD, sizeof(*w->slots));
    ok = w->coders && w->slots;
    for (unsigned i = 0; ok && i < w->o->job.n_threads; i++)
        ok = frame_coder_new(&w->coders[i]) == 0;
    w->n_slots = ok ? w->o->job.n_threads * SLOTS_PER_THREAD : 0;
    for (unsigned i = 0; ok && i < w->n_slots; i++)
        ok = slot_init(&w->slots[i], w->job_pages, w->job_pages / step);
    return ok ? 0 : err_origin_errno(-ENOMEM, "no memory for %u threads", w->o->job.n_threads);
}

static void work_deinit(struct pack_work *w)
{
    for (unsigned i = 0; i < w->n_slots; i++) {
        free(w->slots[i].pages);
        free(w->slots[i].frames);
        free(w->slots[i].raw);
        free(w->slots[i].stored);
    }
    for (unsigned i = 0; w->coders && i < w->o->job.n_threads; i++)
        (void)frame_coder_free(w->coders[i]);
    free(w->slots);
    free((void *)w->coders);
    free(w->hot);
    pthread_cond_destroy(&w->moved);
    pthread_mutex_destroy(&w->mutex);
}

static uint64_t count_own(const struct page_kinds *kinds)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < kinds->n; i++)
        n += kinds->of[i] == KIND_OWN;
    return n;
}

static int write_all(struct pack_work *w)
{
    struct pack_header h = {
        .magic = PACK_MAGIC, .version = PACK_VERSION, .header_bytes = sizeof(h)};
    uint64_t n_own = count_own(w->kinds);
    struct parallel work = {
        .n_threads = w->o->job.n_threads,
        .n_units = (w->n_hot + w->job_pages - 1) / w->job_pages +
                   (n_own + w->job_pages - 1) / w->job_pages,
        .work = do_job,
        .tick = tick,
        .ctx = w,
    };
    int r;

    w->part.all = (w->n_hot + n_own) * IMAGE_PAGE;
    r = image_part_tell(&w->part);
    if (r == 0)
        r = append(w, &h, sizeof(h));
    w->out->bytes = sizeof(h);
    if (r == 0)
        r = parallel_run(&work);
    assert(r < 0 || w->next_written == work.n_units);
    return r == 0 ? image_part_tell(&w->part) : r;
}

int pack_frames(struct packed *out, int fd, const struct page_source *src, struct page_kinds *kinds,
                const struct pack_options *o)
{
    struct pack_work w = {
        .src = src,
        .o = o,
        .kinds = kinds,
        .out = out,
        .fd = fd,
        .part = {.job = &o->job, .what = "packing"},
    };
    int r;

    *out = (struct packed){0};
    digest_init(&out->digest);
    r = work_init(&w);
    if (r == 0)
        r = mark_hot(&w, o->hot);
    if (r == 0)
        r = write_all(&w);
    work_deinit(&w);
    if (r < 0)
        packed_deinit(out);
    return r;
}

void packed_deinit(struct packed *p)
{
    free(p->frames);
    free(p->runs);
    p->frames = NULL;
    p->runs = NULL;
}
