/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arena.c - pages that are compressed in frames, put back in the order of the guest's memory
 *
 * The arena is as large as the guest's memory and costs nothing where nothing is in it. A frame is read, decompressed and
 * checked by a worker, and its pages are put where they are in the guest, whatever their order in the frame; then a bit for
 * each says that it is there.
 *
 * Why nothing wrong can be installed. Bytes are written where no bit is set, by the one worker that has the frame, and the
 * bits are set after the bytes, when the checksum was right. From then on nobody writes there. Bits are cleared on the pager
 * thread only, in arena_trim(), when it uses no extent; so an extent lasts until then, and several can be used at once. What
 * was cleared reads as zeroes, and would be wrong: but nobody gets its address before it is there again.
 *
 * Why a fetch is not in vain. What the last ARENA_KEEPS fetches asked for is not dropped, and a fetch that has returned is
 * looked at before so many others can have: their number is bounded by the pager's tables. What is dropped although it was
 * not used yet was read for nobody who waits, and is read again.
 *
 * What is shared (source/share.h). Before a worker reads a frame it looks whether others have it. If not, and if there are
 * others, it has the filler read it; else, or when that cannot be had, it reads for itself. What is shared stays, and is not counted.
 *
 * A frame that cannot be read, or whose checksum is wrong, is tried again after a pause, and not from the page cache: a disk
 * or a network may do better the next time. Then it is an error, and the pager stops the VM.
 */
#include "source/arena.h"

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

#define N_CODERS 9u /* frames that are decompressed at once; as many as there are workers */
static_assert(N_CODERS <= SHARE_CONNECTIONS, "each has a connection");

#define NO_FRAME      UINT32_MAX
#define TRIES         4u
#define PAUSE_NS      (5 * NS_PER_MS) /* before the second try; three times as long before each other */
#define SCRATCH_BYTES (FRAME_PAGES_MAX * IMAGE_PAGE)

/* enum frame_place - of a frame's pages */
enum frame_place {
    FRAME_AWAY,
    FRAME_COMING, /* a worker has it */
    FRAME_THERE,
    FRAME_SHARED, /* with others, for good */
};

/* struct frame_state - see the theory; guarded by the mutex */
struct frame_state {
    uint64_t asked; /* the number of the fetch that asked for it last */
    uint32_t older; /* its neighbours among those that are there, by that number; NO_FRAME: none */
    uint32_t newer;
    uint32_t n_used; /* pages of the image in it; constant */
    enum frame_place place;
};

/* struct coder - what a thread needs to bring a frame */
struct coder {
    unsigned number;                 /* of its connection to the filler */
    struct frame_coder *frame_coder; /* owned */
    char *scratch;                   /* owned: SCRATCH_BYTES */
};

struct arena {
    const struct image *image; /* (borrow) */
    const struct manifest *m;  /* its manifest */
    char *memory;              /* owned; m->image_bytes long */
    uint64_t *there;        /* owned: a bit a page; set by workers, cleared by the pager thread */
    uint32_t *runs;         /* owned: numbers of m->runs, those of a frame together */
    uint32_t *runs_end;     /* owned: where those of a frame end, and the next one's begin */
    uint64_t cache_bytes;   /* the bound; constant */
    uint64_t there_bytes;   /* of all frames that are there; written with the mutex, read without */
    struct share *share;    /* owned; NULL: nothing is shared */
    bool alone;             /* what is shared is not used; atomic */
    bool own_memory;        /* memory and there are owned */
    pthread_mutex_t mutex;  /* guards what follows, never held around a read */
    pthread_cond_t changed; /* a frame is there or will not be, or a coder is free */
    struct frame_state *frames; /* owned */
    uint32_t oldest;
    uint32_t newest;
    uint64_t n_fetches;
    struct coder coders[N_CODERS];
    unsigned n_free; /* coders that nobody uses: the first ones */
};

/* ---- bits ------------------------------------------------------------------------------------------------------ */

/* has_own() - is it in our memory? */
static bool has_own(const struct arena *a, uint64_t page)
{
    return (__atomic_load_n(&a->there[page / 64], __ATOMIC_ACQUIRE) >> (page % 64)) & 1;
}

/* uses_share() - may pages be others' too? */
static bool uses_share(const struct arena *a)
{
    return a->share && !__atomic_load_n(&a->alone, __ATOMIC_RELAXED);
}

const void *arena_page(const struct arena *a, uint64_t page)
{
    return a->memory + page * IMAGE_PAGE;
}

void arena_stand_alone(struct arena *a)
{
    __atomic_store_n(&a->alone, true, __ATOMIC_RELAXED);
}

const void *arena_find(const struct arena *a, uint64_t page, uint64_t lo, uint64_t hi,
                       uint64_t *first, uint64_t *end)
{
    bool own = has_own(a, page);

    if (!own && !(uses_share(a) && share_has(a->share, page)))
        return NULL;
    *first = page;
    *end = page + 1;
    while (*first > lo && (own ? has_own(a, *first - 1) : share_has(a->share, *first - 1)))
        --*first;
    while (*end < hi && (own ? has_own(a, *end) : share_has(a->share, *end)))
        ++*end;
    return own ? a->memory + *first * IMAGE_PAGE : share_page(a->share, *first);
}

/* bits_of_run() - the bits of [first, end) in the word of @first. Return: the end of what they are about */
static uint64_t bits_of_run(uint64_t first, uint64_t end, uint64_t *bits)
{
    uint64_t n = min_u64(end - first, 64 - first % 64);

    *bits = (n == 64 ? UINT64_MAX : (1ull << n) - 1) << (first % 64);
    return first + n;
}

static void set_there(struct arena *a, uint64_t first, uint64_t end)
{
    while (first < end) {
        uint64_t bits;
        uint64_t next = bits_of_run(first, end, &bits);

        __atomic_fetch_or(&a->there[first / 64], bits, __ATOMIC_RELEASE);
        first = next;
    }
}

static void clear_there(struct arena *a, uint64_t first, uint64_t end)
{
    while (first < end) {
        uint64_t bits;
        uint64_t next = bits_of_run(first, end, &bits);

        __atomic_fetch_and(&a->there[first / 64], ~bits, __ATOMIC_RELAXED);
        first = next;
    }
}

/* ---- runs ------------------------------------------------------------------------------------------------------ */

static uint64_t run_end(const struct manifest_run *run)
{
    return run->first + run->n;
}

/* runs_of() - the numbers of the runs of frame @f. Return: how many */
static uint32_t runs_of(const struct arena *a, uint32_t f, const uint32_t **runs)
{
    uint32_t begin = f > 0 ? a->runs_end[f - 1] : 0;

    *runs = a->runs + begin;
    return a->runs_end[f] - begin;
}

/* is_in_place() - are the frame's pages one run of the guest's memory, in their order and all of them? */
static bool is_in_place(const struct arena *a, uint32_t f, const struct manifest_run **run)
{
    const uint32_t *runs;

    if (runs_of(a, f, &runs) != 1)
        return false;
    *run = &a->m->runs[runs[0]];
    return (*run)->index == 0 && (*run)->n == a->m->frames[f].n_pages;
}

/* ---- one frame ------------------------------------------------------------------------------------------------- */

static struct coder take_coder(struct arena *a)
{
    struct coder coder;

    pthread_mutex_lock(&a->mutex);
    while (a->n_free == 0)
        pthread_cond_wait(&a->changed, &a->mutex);
    coder = a->coders[--a->n_free]; /* the one that was used last: the others take no memory */
    pthread_mutex_unlock(&a->mutex);
    return coder;
}

/* read_frame() - read, decompress and check, again if need be. Return: 0 or -EIO with a text */
/* #syscalls:all clock_nanosleep fadvise64 */
static int read_frame(const struct arena *a, struct coder *coder, uint32_t f, void *into)
{
    const struct manifest_frame *frame = &a->m->frames[f];
    const char *name = a->image->pack_names[frame->pack];
    int fd = a->image->pack_fds[frame->pack];
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
static void drop(struct arena *a, const struct manifest_run *run)
{
    (void)madvise(a->memory + run->first * IMAGE_PAGE, run->n * IMAGE_PAGE, MADV_DONTNEED);
}

/* bring() - put a frame's pages where they belong, and say so; nobody else does anything there meanwhile */
static int bring(struct arena *a, struct coder *coder, uint32_t f)
{
    const struct manifest_run *run;
    const uint32_t *runs;
    uint32_t n = runs_of(a, f, &runs);
    bool in_place = is_in_place(a, f, &run);
    int r =
        read_frame(a, coder, f, in_place ? a->memory + run->first * IMAGE_PAGE : coder->scratch);

    if (r < 0) {
        if (in_place)
            drop(a, run);
        return r;
    }
    for (uint32_t i = 0; i < n; i++) {
        run = &a->m->runs[runs[i]];
        if (!in_place)
            memcpy(a->memory + run->first * IMAGE_PAGE, coder->scratch + run->index * IMAGE_PAGE,
                   run->n * IMAGE_PAGE);
        set_there(a, run->first, run_end(run));
    }
    return 0;
}

/* ---- all frames, with the mutex held ---------------------------------------------------------------------------- */

static void count_there(struct arena *a, uint64_t bytes)
{
    __atomic_store_n(&a->there_bytes, a->there_bytes + bytes, __ATOMIC_RELAXED);
}

/* append() - as the one that was asked for last */
static void append(struct arena *a, uint32_t f)
{
    struct frame_state *state = &a->frames[f];

    state->older = a->newest;
    state->newer = NO_FRAME;
    if (a->newest != NO_FRAME)
        a->frames[a->newest].newer = f;
    else
        a->oldest = f;
    a->newest = f;
}

static void unlink_frame(struct arena *a, uint32_t f)
{
    struct frame_state *state = &a->frames[f];

    if (state->older != NO_FRAME)
        a->frames[state->older].newer = state->newer;
    else
        a->oldest = state->newer;
    if (state->newer != NO_FRAME)
        a->frames[state->newer].older = state->older;
    else
        a->newest = state->older;
}

/* ask_for() - a fetch wants it */
static void ask_for(struct arena *a, uint32_t f)
{
    a->frames[f].asked = a->n_fetches;
    unlink_frame(a, f);
    append(a, f);
}

static void drop_frame(struct arena *a, uint32_t f)
{
    const uint32_t *runs;
    uint32_t n = runs_of(a, f, &runs);

    for (uint32_t i = 0; i < n; i++) {
        const struct manifest_run *run = &a->m->runs[runs[i]];

        clear_there(a, run->first, run_end(run));
        drop(a, run);
    }
    unlink_frame(a, f);
    a->frames[f].place = FRAME_AWAY;
    count_there(a, 0 - a->frames[f].n_used * IMAGE_PAGE);
}

/* ---- fetching --------------------------------------------------------------------------------------------------- */

/* all_shared() - are all pages of frame @f with others? A filler that is at work, or died over it, has said so of some only */
static bool all_shared(const struct arena *a, uint32_t f)
{
    const uint32_t *runs;
    uint32_t n = runs_of(a, f, &runs);

    for (uint32_t i = 0; i < n; i++) {
        const struct manifest_run *run = &a->m->runs[runs[i]];

        for (uint64_t page = run->first; page < run_end(run); page++) {
            if (!share_has(a->share, page))
                return false;
        }
    }
    return n > 0;
}

/* is_shared() - do others have it, or can they? */
static bool is_shared(struct arena *a, const struct coder *coder, uint32_t f)
{
    if (!uses_share(a))
        return false;
    if (all_shared(a, f))
        return true;
    return share_is_worth_it(a->share) && share_ask(a->share, coder->number, f) && all_shared(a, f);
}

/* begin() - is it for this thread to bring the frame? Then nobody else does. If not it is there */
static bool begin(struct arena *a, uint32_t f)
{
    struct frame_state *state = &a->frames[f];
    bool ours;

    pthread_mutex_lock(&a->mutex);
    while (state->place == FRAME_COMING)
        pthread_cond_wait(&a->changed, &a->mutex);
    ours = state->place == FRAME_AWAY || (state->place == FRAME_SHARED && !uses_share(a));
    if (ours)
        state->place = FRAME_COMING;
    pthread_mutex_unlock(&a->mutex);
    return ours;
}

/* end() - what became of it */
static void end(struct arena *a, uint32_t f, const struct coder *coder, enum frame_place place)
{
    struct frame_state *state = &a->frames[f];

    pthread_mutex_lock(&a->mutex);
    a->coders[a->n_free++] = *coder;
    state->place = place;
    if (place == FRAME_THERE) {
        state->asked = a->n_fetches;
        append(a, f);
        count_there(a, state->n_used * IMAGE_PAGE);
    }
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->mutex);
}

/* ensure() - one frame is there. Return: 0 or a negative errno with a text */
static int ensure(struct arena *a, uint32_t f)
{
    struct coder coder;
    int r;

    if (!begin(a, f))
        return 0;
    coder = take_coder(a);
    if (is_shared(a, &coder, f)) {
        end(a, f, &coder, FRAME_SHARED);
        return 0;
    }
    r = bring(a, &coder, f);
    end(a, f, &coder, r == 0 ? FRAME_THERE : FRAME_AWAY);
    return r;
}

int arena_bring(struct arena *a, uint32_t frame, uint64_t bytes_max)
{
    bool room;

    pthread_mutex_lock(&a->mutex);
    room = a->frames[frame].place == FRAME_THERE ||
           a->there_bytes + a->frames[frame].n_used * IMAGE_PAGE <= bytes_max;
    pthread_mutex_unlock(&a->mutex);
    return room ? ensure(a, frame) : 1;
}

/* claim_all() - are all frames of these pages there? Then this fetch has asked for them, and they stay */
static bool claim_all(struct arena *a, uint64_t first, uint64_t end)
{
    const struct manifest *m = a->m;
    bool all = true;

    pthread_mutex_lock(&a->mutex);
    a->n_fetches++;
    for (uint64_t i = manifest_find(m, first); i < m->n_runs && m->runs[i].first < end; i++) {
        enum frame_place place = a->frames[m->runs[i].frame].place;

        if (place == FRAME_THERE)
            ask_for(a, m->runs[i].frame);
        else
            all &= place == FRAME_SHARED && uses_share(a);
    }
    pthread_mutex_unlock(&a->mutex);
    return all;
}

int arena_fetch(struct arena *a, uint64_t first, uint64_t end)
{
    const struct manifest *m = a->m;

    do {
        uint32_t last = NO_FRAME;

        for (uint64_t i = manifest_find(m, first); i < m->n_runs && m->runs[i].first < end; i++) {
            int r = m->runs[i].frame == last ? 0 : ensure(a, m->runs[i].frame);

            if (r < 0)
                return r;
            last = m->runs[i].frame;
        }
    } while (
        !claim_all(a, first, end)); /* what came first may have been dropped before the last came */
    return 0;
}

/* When a worker has the mutex just now, the next time will do */
void arena_trim(struct arena *a)
{
    if (__atomic_load_n(&a->there_bytes, __ATOMIC_RELAXED) <= a->cache_bytes ||
        pthread_mutex_trylock(&a->mutex) != 0)
        return;
    while (a->there_bytes > a->cache_bytes && a->oldest != NO_FRAME &&
           a->frames[a->oldest].asked + ARENA_KEEPS <= a->n_fetches)
        drop_frame(a, a->oldest);
    pthread_mutex_unlock(&a->mutex);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

/* count_runs() - how many runs and pages each frame has. Return: 0 or -EINVAL with a text */
static int count_runs(struct arena *a)
{
    const struct manifest *m = a->m;

    for (uint64_t i = 0; i < m->n_runs; i++) {
        uint32_t f = m->runs[i].frame;

        a->runs_end[f]++;
        a->frames[f].n_used += m->runs[i].n;
        /* A frame is brought as a whole: so few bytes must not become any number of pages. */
        if (a->frames[f].n_used > FRAME_PAGES_MAX)
            return err_origin(-EINVAL, "image %s has frame %u in more than %u pages of its memory",
                              a->image->name, f, FRAME_PAGES_MAX);
    }
    return 0;
}

/* sort_runs() - by frame, those of a frame in the order of the guest's memory */
static void sort_runs(struct arena *a)
{
    const struct manifest *m = a->m;
    uint32_t begin = 0;

    /* First each entry says where its frame's runs begin; each run that is entered moves it on, to where they end. */
    for (uint32_t f = 0; f < m->n_frames; f++) {
        uint32_t n = a->runs_end[f];

        a->runs_end[f] = begin;
        begin += n;
    }
    for (uint64_t i = 0; i < m->n_runs; i++)
        a->runs[a->runs_end[m->runs[i].frame]++] = (uint32_t)i;
}

/* map() - in small pages: a huge one would take memory for what nobody asked for. Return: NULL and errno: it cannot be had */
static void *map(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        return NULL;
    (void)madvise(memory, bytes, MADV_NOHUGEPAGE);
    return memory;
}

static int make_coders(struct arena *a)
{
    for (unsigned i = 0; i < N_CODERS; i++) {
        int r = frame_coder_new(&a->coders[i].frame_coder);

        a->coders[i].number = i;
        if (r < 0)
            return r;
        a->coders[i].scratch = map(SCRATCH_BYTES);
        if (!a->coders[i].scratch)
            return err_origin_errno(-errno, "no memory to read frames");
    }
    a->n_free = N_CODERS;
    return 0;
}

static bool make_tables(struct arena *a)
{
    const struct manifest *m = a->m;

    if (a->own_memory)
        a->there = calloc(share_bits_words(m->image_bytes), sizeof(*a->there));
    a->runs = calloc(m->n_runs + 1, sizeof(*a->runs));
    a->runs_end = calloc((size_t)m->n_frames + 1, sizeof(*a->runs_end));
    a->frames = calloc((size_t)m->n_frames + 1, sizeof(*a->frames));
    return a->there && a->runs && a->runs_end && a->frames;
}

int arena_new(struct arena **out, const struct image *image, const struct arena_options *o)
{
    _cleanup_(arena_freep) struct arena *a = calloc(1, sizeof(*a));
    int r;

    if (!a)
        return err_origin_errno(-ENOMEM, "cannot serve image %s", image->name);
    pthread_mutex_init(&a->mutex, NULL);
    pthread_cond_init(&a->changed, NULL);
    a->image = image;
    a->m = image->manifest;
    a->oldest = a->newest = NO_FRAME;
    a->cache_bytes = o->cache_bytes;
    a->own_memory = !o->memory;
    a->memory = o->memory;
    a->there = o->there;
    if (!make_tables(a) || a->m->n_runs > UINT32_MAX)
        return err_origin_errno(-ENOMEM, "cannot serve image %s", image->name);
    r = count_runs(a);
    if (r == 0) {
        sort_runs(a);
        r = make_coders(a);
    }
    if (r < 0)
        return r;
    if (a->own_memory)
        a->memory = map(a->m->image_bytes);
    if (!a->memory)
        return err_origin_errno(-errno, "cannot map %ju bytes for the pages of image %s",
                                (uintmax_t)a->m->image_bytes, image->name);
    a->share = o->share;
    *out = TAKE(a);
    return 0;
}

struct arena *arena_free(struct arena *a)
{
    if (!a)
        return NULL;
    for (unsigned i = 0; i < N_CODERS; i++) {
        a->coders[i].frame_coder = frame_coder_free(a->coders[i].frame_coder);
        if (a->coders[i].scratch)
            (void)munmap(a->coders[i].scratch, SCRATCH_BYTES);
    }
    if (a->own_memory && a->memory)
        (void)munmap(a->memory, a->m->image_bytes);
    if (a->own_memory)
        free(a->there);
    a->share = share_free(a->share);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->mutex);
    free(a->runs);
    free(a->runs_end);
    free(a->frames);
    free(a);
    return NULL;
}
