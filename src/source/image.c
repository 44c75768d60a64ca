/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.c - an image: pages that are compressed in frames, put back in the order of the guest's memory
 *
 * The arena is as large as the guest's memory and costs nothing where nothing is in it. A frame is read, decompressed and
 * checked by a worker, and its pages are put where they are in the guest, whatever their order in the frame; then a bit for
 * each says that it is there. So what is there is contiguous in the arena as it is in the guest, and one install takes a run
 * of pages out of several frames, as with a raw file.
 *
 *     locate()   the bit is set         in memory, with its neighbours whose bits are set
 *                no run has the page    zero, up to the next run
 *                else                   elsewhere, as far as its frame has the neighbours too
 *     fetch()    the frames of the range that are not there, each by one worker at a time; who wants the same one waits for it
 *     trim()     the frames that were asked for longest ago are dropped until the bound is kept
 *
 * Why nothing wrong can be installed. Bytes are written where no bit is set, by the one worker that has the frame, and the
 * bits are set after the bytes, when the checksum was right. From then on nobody writes there. Bits are cleared on the pager
 * thread only, in trim(), when it uses no extent; so an extent lasts until then, and several can be used at once. What was
 * cleared reads as zeroes, and would be wrong: but nobody gets its address before it is there again.
 *
 * Why a fetch is not in vain. What the last IMAGE_SOURCE_KEEPS fetches asked for is not dropped, and a fetch that has
 * returned is looked at before so many others can have: their number is bounded by the pager's tables. What is dropped
 * although it was not used yet was read for nobody who waits, and is read again.
 *
 * A frame that cannot be read, or whose checksum is wrong, is tried again after a pause, and not from the page cache: a disk
 * or a network may do better the next time. Then it is an error, and the pager stops the VM.
 *
 * A page of the guest that is larger than one of the image's is in memory if all of its parts are there or are zero: where no
 * run is, nothing was ever written to the arena.
 */
#include "source/image.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/err.h"
#include "image/frame.h"

#define N_CODERS    9u /* frames that are decompressed at once; as many as there are workers */
#define NO_FRAME    UINT32_MAX
#define TRIES       4u
#define PAUSE_NS    (5 * NS_PER_MS) /* before the second try; three times as long before each other */
#define SCRATCH_LEN (FRAME_PAGES_MAX * IMAGE_PAGE)

/* enum frame_place - of a frame's pages */
enum frame_place {
    FRAME_AWAY,
    FRAME_COMING, /* a worker has it */
    FRAME_THERE,
};

/* struct frame_state - see the theory; guarded by the mutex */
struct frame_state {
    uint64_t asked;  /* the number of the fetch that asked for it last */
    uint32_t older;  /* its neighbours among those that are there, by that number; NO_FRAME: none */
    uint32_t newer;
    uint32_t n_used; /* pages of the image in it; constant */
    enum frame_place place;
};

/* struct coder - what a thread needs to bring a frame */
struct coder {
    struct frame_coder *frame_coder; /* owned */
    char *scratch;                   /* owned: SCRATCH_LEN bytes */
};

struct image_source {
    struct image *image;         /* owned */
    const struct manifest *m;    /* its manifest */
    char *arena;                 /* owned; m->image_bytes long */
    uint64_t *there;             /* owned: a bit a page; set by workers, cleared by the pager thread */
    uint32_t *runs;              /* owned: numbers of m->runs, those of a frame together */
    uint32_t *runs_end;          /* owned: where those of a frame end, and the next one's begin */
    uint64_t *hot;               /* owned: a bit a frame: it has pages of the working set */
    uint64_t *advised;           /* owned: a bit a frame: the kernel has been told to read it */
    uint64_t cache_bytes;        /* the bound; constant */
    uint64_t there_bytes;        /* of all frames that are there; written with the mutex, read without */
    pthread_mutex_t mutex;       /* guards what follows, never held around a read */
    pthread_cond_t changed;      /* a frame is there or will not be, or a coder is free */
    struct frame_state *frames;  /* owned */
    uint32_t oldest;
    uint32_t newest;
    uint64_t n_fetches;
    struct coder coders[N_CODERS];
    unsigned n_free;             /* coders that nobody uses: the first ones */
};

/* ---- bits ------------------------------------------------------------------------------------------------------ */

static bool has_page(const struct image_source *s, uint64_t page)
{
    return (__atomic_load_n(&s->there[page / 64], __ATOMIC_ACQUIRE) >> (page % 64)) & 1;
}

/* bits_of_run() - the bits of [first, end) in the word of @first. Return: the end of what they are about */
static uint64_t bits_of_run(uint64_t first, uint64_t end, uint64_t *bits)
{
    uint64_t n = min_u64(end - first, 64 - first % 64);

    *bits = (n == 64 ? UINT64_MAX : (1ull << n) - 1) << (first % 64);
    return first + n;
}

static void set_there(struct image_source *s, uint64_t first, uint64_t end)
{
    while (first < end) {
        uint64_t bits;
        uint64_t next = bits_of_run(first, end, &bits);

        __atomic_fetch_or(&s->there[first / 64], bits, __ATOMIC_RELEASE);
        first = next;
    }
}

static void clear_there(struct image_source *s, uint64_t first, uint64_t end)
{
    while (first < end) {
        uint64_t bits;
        uint64_t next = bits_of_run(first, end, &bits);

        __atomic_fetch_and(&s->there[first / 64], ~bits, __ATOMIC_RELAXED);
        first = next;
    }
}

static bool has_bit(const uint64_t *words, uint32_t i)
{
    return (words[i / 64] >> (i % 64)) & 1;
}

static void set_bit(uint64_t *words, uint32_t i)
{
    words[i / 64] |= 1ull << (i % 64);
}

/* ---- runs ------------------------------------------------------------------------------------------------------ */

static uint64_t run_end(const struct manifest_run *run)
{
    return run->first + run->n;
}

/* runs_of() - the numbers of the runs of frame @f. Return: how many */
static uint32_t runs_of(const struct image_source *s, uint32_t f, const uint32_t **runs)
{
    uint32_t begin = f > 0 ? s->runs_end[f - 1] : 0;

    *runs = s->runs + begin;
    return s->runs_end[f] - begin;
}

/* is_in_place() - are the frame's pages one run of the guest's memory, in their order and all of them? */
static bool is_in_place(const struct image_source *s, uint32_t f, const struct manifest_run **run)
{
    const uint32_t *runs;

    if (runs_of(s, f, &runs) != 1)
        return false;
    *run = &s->m->runs[runs[0]];
    return (*run)->index == 0 && (*run)->n == s->m->frames[f].n_pages;
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

static void locate_there(const struct image_source *s, struct thaw_extent *out, uint64_t page,
                         uint64_t lo, uint64_t hi)
{
    uint64_t first = page;
    uint64_t end = page + 1;

    while (first > lo && has_page(s, first - 1))
        first--;
    while (end < hi && has_page(s, end))
        end++;
    *out = (struct thaw_extent){
        .where = THAW_WHERE_MEMORY,
        .first = first * IMAGE_PAGE,
        .end = end * IMAGE_PAGE,
        .bytes = s->arena + first * IMAGE_PAGE,
        .lasting = 1,
    };
}

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

    out->where = THAW_WHERE_ZERO;
    for (uint64_t i = manifest_find(s->m, first); i < s->m->n_runs && runs[i].first < end; i++) {
        uint64_t last = min_u64(end, run_end(&runs[i]));

        out->where = THAW_WHERE_MEMORY;
        for (uint64_t page = max_u64(first, runs[i].first); page < last; page++) {
            if (!has_page(s, page)) {
                out->where = THAW_WHERE_ELSEWHERE;
                return;
            }
        }
    }
    if (out->where == THAW_WHERE_MEMORY) {
        out->bytes = s->arena + first * IMAGE_PAGE;
        out->lasting = 1;
    }
}

static int image_locate(void *self, struct thaw_extent *out, uint64_t off, uint64_t lo, uint64_t hi,
                        uint64_t page_bytes)
{
    const struct image_source *s = self;
    uint64_t page = off / IMAGE_PAGE;

    *out = (struct thaw_extent){.first = off, .end = off + page_bytes};
    if (page_bytes > IMAGE_PAGE)
        locate_large(s, out, page, (off + page_bytes) / IMAGE_PAGE);
    else if (has_page(s, page))
        locate_there(s, out, page, lo / IMAGE_PAGE, hi / IMAGE_PAGE);
    else
        locate_away(s, out, page, lo / IMAGE_PAGE, hi / IMAGE_PAGE);
    return 0;
}

/* ---- one frame ------------------------------------------------------------------------------------------------- */

static struct coder take_coder(struct image_source *s)
{
    struct coder coder;

    pthread_mutex_lock(&s->mutex);
    while (s->n_free == 0)
        pthread_cond_wait(&s->changed, &s->mutex);
    coder = s->coders[--s->n_free]; /* the one that was used last: the others take no memory */
    pthread_mutex_unlock(&s->mutex);
    return coder;
}

/* read_frame() - read, decompress and check, again if need be. Return: 0 or -EIO with a text */
/* #syscalls clock_nanosleep fadvise64 */
static int read_frame(const struct image_source *s, struct coder *coder, uint32_t f, void *into)
{
    const struct manifest_frame *frame = &s->m->frames[f];
    const char *name = s->image->pack_names[frame->pack];
    int fd = s->image->pack_fds[frame->pack];
    uint64_t pause_ns = PAUSE_NS;
    int r = frame_read(coder->frame_coder, frame, fd, name, into);

    for (unsigned i = 1; i < TRIES && r < 0; i++) {
        const struct timespec pause = timespec_from_ns(pause_ns);

        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        pause_ns *= 3;
        (void)posix_fadvise(fd, (off_t)frame->off, frame->stored_bytes, POSIX_FADV_DONTNEED);
        r = frame_read(coder->frame_coder, frame, fd, name, into);
    }
    return r;
}

/* drop() - the memory that a run has in the arena */
static void drop(struct image_source *s, const struct manifest_run *run)
{
    (void)madvise(s->arena + run->first * IMAGE_PAGE, run->n * IMAGE_PAGE, MADV_DONTNEED);
}

/* bring() - put a frame's pages where they belong, and say so; nobody else does anything there meanwhile */
static int bring(struct image_source *s, struct coder *coder, uint32_t f)
{
    const struct manifest_run *run;
    const uint32_t *runs;
    uint32_t n = runs_of(s, f, &runs);
    bool in_place = is_in_place(s, f, &run);
    int r = read_frame(s, coder, f, in_place ? s->arena + run->first * IMAGE_PAGE : coder->scratch);

    if (r < 0) {
        if (in_place)
            drop(s, run);
        return r;
    }
    for (uint32_t i = 0; i < n; i++) {
        run = &s->m->runs[runs[i]];
        if (!in_place)
            memcpy(s->arena + run->first * IMAGE_PAGE, coder->scratch + run->index * IMAGE_PAGE,
                   run->n * IMAGE_PAGE);
        set_there(s, run->first, run_end(run));
    }
    return 0;
}

/* ---- all frames, with the mutex held ---------------------------------------------------------------------------- */

static void count_there(struct image_source *s, uint64_t bytes)
{
    __atomic_store_n(&s->there_bytes, s->there_bytes + bytes, __ATOMIC_RELAXED);
}

/* append() - as the one that was asked for last */
static void append(struct image_source *s, uint32_t f)
{
    struct frame_state *state = &s->frames[f];

    state->older = s->newest;
    state->newer = NO_FRAME;
    if (s->newest != NO_FRAME)
        s->frames[s->newest].newer = f;
    else
        s->oldest = f;
    s->newest = f;
}

static void unlink_frame(struct image_source *s, uint32_t f)
{
    struct frame_state *state = &s->frames[f];

    if (state->older != NO_FRAME)
        s->frames[state->older].newer = state->newer;
    else
        s->oldest = state->newer;
    if (state->newer != NO_FRAME)
        s->frames[state->newer].older = state->older;
    else
        s->newest = state->older;
}

/* ask_for() - a fetch wants it */
static void ask_for(struct image_source *s, uint32_t f)
{
    s->frames[f].asked = s->n_fetches;
    unlink_frame(s, f);
    append(s, f);
}

static void drop_frame(struct image_source *s, uint32_t f)
{
    const uint32_t *runs;
    uint32_t n = runs_of(s, f, &runs);

    for (uint32_t i = 0; i < n; i++) {
        const struct manifest_run *run = &s->m->runs[runs[i]];

        clear_there(s, run->first, run_end(run));
        drop(s, run);
    }
    unlink_frame(s, f);
    s->frames[f].place = FRAME_AWAY;
    count_there(s, 0 - s->frames[f].n_used * IMAGE_PAGE);
}

/* ---- fetching --------------------------------------------------------------------------------------------------- */

/* ensure() - one frame is there. Return: 0 or a negative errno with a text */
static int ensure(struct image_source *s, uint32_t f)
{
    struct frame_state *state = &s->frames[f];
    struct coder coder;
    bool ours;
    int r = 0;

    pthread_mutex_lock(&s->mutex);
    while (state->place == FRAME_COMING)
        pthread_cond_wait(&s->changed, &s->mutex);
    ours = state->place == FRAME_AWAY;
    if (ours)
        state->place = FRAME_COMING;
    pthread_mutex_unlock(&s->mutex);
    if (!ours)
        return 0;
    coder = take_coder(s);
    r = bring(s, &coder, f);
    pthread_mutex_lock(&s->mutex);
    s->coders[s->n_free++] = coder;
    state->place = r == 0 ? FRAME_THERE : FRAME_AWAY;
    if (r == 0) {
        state->asked = s->n_fetches;
        append(s, f);
        count_there(s, state->n_used * IMAGE_PAGE);
    }
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
    return r;
}

/* claim_all() - are all frames of these pages there? Then this fetch has asked for them, and they stay */
static bool claim_all(struct image_source *s, uint64_t first, uint64_t end)
{
    const struct manifest *m = s->m;
    bool all = true;

    pthread_mutex_lock(&s->mutex);
    s->n_fetches++;
    for (uint64_t i = manifest_find(m, first); i < m->n_runs && m->runs[i].first < end; i++) {
        if (s->frames[m->runs[i].frame].place == FRAME_THERE)
            ask_for(s, m->runs[i].frame);
        else
            all = false;
    }
    pthread_mutex_unlock(&s->mutex);
    return all;
}

static int image_fetch(void *self, uint64_t lo, uint64_t hi)
{
    struct image_source *s = self;
    const struct manifest *m = s->m;
    uint64_t first = lo / IMAGE_PAGE;
    uint64_t end = hi / IMAGE_PAGE;

    do {
        uint32_t last = NO_FRAME;

        for (uint64_t i = manifest_find(m, first); i < m->n_runs && m->runs[i].first < end; i++) {
            int r = m->runs[i].frame == last ? 0 : ensure(s, m->runs[i].frame);

            if (r < 0)
                return r;
            last = m->runs[i].frame;
        }
    } while (!claim_all(s, first, end)); /* what came first may have been dropped before the last came */
    return 0;
}

/* image_trim() - when a worker has the mutex just now, the next time will do */
static void image_trim(void *self)
{
    struct image_source *s = self;

    if (__atomic_load_n(&s->there_bytes, __ATOMIC_RELAXED) <= s->cache_bytes ||
        pthread_mutex_trylock(&s->mutex) != 0)
        return;
    while (s->there_bytes > s->cache_bytes && s->oldest != NO_FRAME &&
           s->frames[s->oldest].asked + IMAGE_SOURCE_KEEPS <= s->n_fetches)
        drop_frame(s, s->oldest);
    pthread_mutex_unlock(&s->mutex);
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
        if (!has_bit(s->advised, m->runs[i].frame))
            advise(s, m->runs[i].frame);
    }
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static struct image_source *image_source_free(struct image_source *s)
{
    if (!s)
        return NULL;
    for (unsigned i = 0; i < N_CODERS; i++) {
        s->coders[i].frame_coder = frame_coder_free(s->coders[i].frame_coder);
        free(s->coders[i].scratch);
    }
    if (s->arena)
        (void)munmap(s->arena, s->m->image_bytes);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->mutex);
    free(s->there);
    free(s->runs);
    free(s->runs_end);
    free(s->hot);
    free(s->advised);
    free(s->frames);
    s->image = image_close(s->image);
    free(s);
    return NULL;
}

DEFINE_CLEANUP(struct image_source *, image_source_free);

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

/* count_runs() - how many runs and pages each frame has. Return: 0 or -EINVAL with a text */
static int count_runs(struct image_source *s)
{
    const struct manifest *m = s->m;

    for (uint64_t i = 0; i < m->n_runs; i++) {
        uint32_t f = m->runs[i].frame;

        s->runs_end[f]++;
        s->frames[f].n_used += m->runs[i].n;
        /* A frame is brought as a whole: so few bytes must not become any number of pages. */
        if (s->frames[f].n_used > FRAME_PAGES_MAX)
            return err_origin(-EINVAL,
                              "image %s has frame %u in more than %u pages of its memory",
                              s->image->name, f, FRAME_PAGES_MAX);
    }
    return 0;
}

/* sort_runs() - by frame, those of a frame in the order of the guest's memory */
static void sort_runs(struct image_source *s)
{
    const struct manifest *m = s->m;
    uint32_t begin = 0;

    /* First each entry says where its frame's runs begin; each run that is entered moves it on, to where they end. */
    for (uint32_t f = 0; f < m->n_frames; f++) {
        uint32_t n = s->runs_end[f];

        s->runs_end[f] = begin;
        begin += n;
    }
    for (uint64_t i = 0; i < m->n_runs; i++)
        s->runs[s->runs_end[m->runs[i].frame]++] = (uint32_t)i;
}

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

static bool make_tables(struct image_source *s)
{
    const struct manifest *m = s->m;

    s->there = calloc(m->image_bytes / IMAGE_PAGE / 64 + 1, sizeof(*s->there));
    s->runs = calloc(m->n_runs + 1, sizeof(*s->runs));
    s->runs_end = calloc((size_t)m->n_frames + 1, sizeof(*s->runs_end));
    s->frames = calloc((size_t)m->n_frames + 1, sizeof(*s->frames));
    s->hot = calloc(m->n_frames / 64 + 1, sizeof(*s->hot));
    s->advised = calloc(m->n_frames / 64 + 1, sizeof(*s->advised));
    return s->there && s->runs && s->runs_end && s->frames && s->hot && s->advised;
}

static int make_coders(struct image_source *s)
{
    for (unsigned i = 0; i < N_CODERS; i++) {
        int r = frame_coder_new(&s->coders[i].frame_coder);

        if (r < 0)
            return r;
        s->coders[i].scratch = malloc(SCRATCH_LEN);
        if (!s->coders[i].scratch)
            return err_origin_errno(-ENOMEM, "no memory to read frames");
    }
    s->n_free = N_CODERS;
    return 0;
}

/* make_arena() - in small pages: a huge one would take memory for pages that nobody asked for */
static int make_arena(struct image_source *s)
{
    void *arena = mmap(NULL, s->m->image_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (arena == MAP_FAILED)
        return err_origin_errno(-errno, "cannot map %ju bytes for the pages of image %s",
                                (uintmax_t)s->m->image_bytes, s->image->name);
    s->arena = arena;
    (void)madvise(arena, s->m->image_bytes, MADV_NOHUGEPAGE);
    return 0;
}

int source_open_image(struct source **out, struct image *image, uint64_t cache_bytes)
{
    _cleanup_(image_source_freep) struct image_source *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return err_origin_errno(-ENOMEM, "cannot serve image %s", image->name);
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->m = image->manifest;
    s->oldest = s->newest = NO_FRAME;
    s->cache_bytes = cache_bytes;
    if (!make_tables(s) || s->m->n_runs > UINT32_MAX)
        return err_origin_errno(-ENOMEM, "cannot serve image %s", image->name);
    s->image = image; /* taken on success only: see below */
    r = count_runs(s);
    if (r == 0) {
        sort_runs(s);
        mark_hot(s);
        r = make_coders(s);
    }
    if (r == 0)
        r = make_arena(s);
    if (r == 0)
        r = source_new(out, &image_ops, s, s->m->image_bytes);
    if (r < 0) {
        s->image = NULL;
        return r;
    }
    (void)TAKE(s);
    return 0;
}
