/* SPDX-License-Identifier: Apache-2.0 */

/*
 * manifest.c - a manifest's file: manifest.h has the layout
 *
 * Nothing in a file is believed. The header is checked before all else, and that the tables it announces are just as long
 * as the file: from there on no count can overflow, and no more memory is needed than the file has bytes, and
 * four times that while the working set is checked. Then the sha256 at the end, then each table, in the order of the file, as each refers
 * only to those before it. An error names the offset of what is wrong.
 *
 * Most tables are in an order that must be kept, so one look at an entry and the one before it tells whether they overlap.
 * Parents, packs and the working set are in an order that means something else, and are sorted on the side.
 *
 * A manifest has one file: what was read and is written again is the same bytes, with the same id.
 */

#include "image/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "image/digest.h"

#define IMAGE_PAGE_SHIFT 12u

static_assert(IMAGE_PAGE == 1ull << IMAGE_PAGE_SHIFT, "pages");

/* struct layout - where the tables of a file begin; each ends where the next one begins */
struct layout {
    uint64_t parents;
    uint64_t packs;
    uint64_t frames;
    uint64_t runs;
    uint64_t hot;
    uint64_t id;
    uint64_t end; /* of the file */
};

/* layout_of() - Return: 0, or 1 if the counts are so large that no file has them */
static int layout_of(struct layout *l, const struct manifest_header *h)
{
    uint64_t runs_bytes;
    uint64_t hot_bytes;
    bool wrong = __builtin_mul_overflow(h->n_runs, sizeof(struct manifest_run), &runs_bytes);

    wrong |= __builtin_mul_overflow(h->n_hot, sizeof(struct manifest_hot), &hot_bytes);

    /* Each of the first three tables has less than 2^32 entries of at most 40 bytes. */
    l->parents = sizeof(*h);
    l->packs = l->parents + (uint64_t)h->n_parents * IMAGE_ID_BYTES;
    l->frames = l->packs + (uint64_t)h->n_packs * sizeof(struct manifest_pack);
    l->runs = l->frames + (uint64_t)h->n_frames * sizeof(struct manifest_frame);
    wrong |= __builtin_add_overflow(l->runs, runs_bytes, &l->hot);
    wrong |= __builtin_add_overflow(l->hot, hot_bytes, &l->id);
    wrong |= __builtin_add_overflow(l->id, IMAGE_ID_BYTES, &l->end);
    return wrong || l->end > INT64_MAX;
}

static struct manifest_header header_of(const struct manifest *m)
{
    return (struct manifest_header){
        .magic = MANIFEST_MAGIC,
        .version = MANIFEST_VERSION,
        .header_bytes = sizeof(struct manifest_header),
        .image_bytes = m->image_bytes,
        .created_s = m->created_s,
        .n_parents = m->n_parents,
        .n_packs = m->n_packs,
        .n_frames = m->n_frames,
        .has_own_pack = m->has_own_pack,
        .n_runs = m->n_runs,
        .n_hot = m->n_hot,
    };
}

/* ---- in memory ------------------------------------------------------------------------------------------------ */

int manifest_new(struct manifest **out, uint64_t image_bytes)
{
    struct manifest *m = calloc(1, sizeof(*m));

    assert(image_bytes > 0 && image_bytes <= IMAGE_BYTES_MAX && image_bytes % IMAGE_PAGE == 0);
    if (!m)
        return err_origin_errno(-ENOMEM, "cannot make a manifest");
    m->image_bytes = image_bytes;
    *out = m;
    return 0;
}

struct manifest *manifest_free(struct manifest *m)
{
    if (m) {
        free(m->parents);
        free(m->packs);
        free(m->frames);
        free(m->runs);
        free(m->hot);
    }
    free(m);
    return NULL;
}

uint64_t manifest_find(const struct manifest *m, uint64_t page)
{
    uint64_t lo = 0;
    uint64_t hi = m->n_runs;

    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;

        if (m->runs[mid].first + m->runs[mid].n > page)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

bool image_id_is_text(const char *text)
{
    return strlen(text) == IMAGE_ID_TEXT - 1 &&
           strspn(text, "0123456789abcdef") == IMAGE_ID_TEXT - 1;
}

const char *image_id_text(const uint8_t id[IMAGE_ID_BYTES], char buf[IMAGE_ID_TEXT])
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < IMAGE_ID_BYTES; i++) {
        buf[2 * i] = digits[id[i] >> 4];
        buf[2 * i + 1] = digits[id[i] & 15];
    }
    buf[IMAGE_ID_TEXT - 1] = '\0';
    return buf;
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static int damaged(const char *name, const char *what, uint64_t at)
{
    return err_origin(-EINVAL, "manifest %s is damaged: %s (offset %" PRIu64 ")", name, what, at);
}

#define HEADER_DAMAGED(name, what, member) \
    damaged(name, what, offsetof(struct manifest_header, member))

static bool is_zero(const uint8_t *bytes, size_t len)
{
    uint8_t any = 0;

    for (size_t i = 0; i < len; i++)
        any |= bytes[i];
    return any == 0;
}

static int check_header(const struct manifest_header *h, const char *name)
{
    if (h->magic != MANIFEST_MAGIC)
        return err_origin(-EINVAL, "%s is not a manifest", name);
    if (h->version != MANIFEST_VERSION)
        return err_origin(-EINVAL, "manifest %s is of version %u, this thaw reads version %u", name,
                          h->version, MANIFEST_VERSION);
    if (h->header_bytes != sizeof(*h))
        return HEADER_DAMAGED(name, "no such length of a header", header_bytes);
    if (h->image_bytes == 0 || h->image_bytes > IMAGE_BYTES_MAX || h->image_bytes % IMAGE_PAGE != 0)
        return HEADER_DAMAGED(name, "no such size of an image", image_bytes);
    if (h->created_s > INT64_MAX)
        return HEADER_DAMAGED(name, "no such time", created_s);
    if (h->n_parents > MANIFEST_PARENTS_MAX)
        return HEADER_DAMAGED(name, "too many parents", n_parents);
    if (h->n_packs > MANIFEST_PACKS_MAX)
        return HEADER_DAMAGED(name, "too many packs", n_packs);
    if (h->has_own_pack > 1)
        return HEADER_DAMAGED(name, "a pack of its own is 0 or 1", has_own_pack);
    if (h->has_own_pack > h->n_packs)
        return HEADER_DAMAGED(name, "it has no pack that could be its own", has_own_pack);
    if (h->n_runs > h->image_bytes >> IMAGE_PAGE_SHIFT)
        return HEADER_DAMAGED(name, "more runs than the image has pages", n_runs);
    if (h->n_hot > h->image_bytes >> IMAGE_PAGE_SHIFT)
        return HEADER_DAMAGED(name, "a working set of more runs than the image has pages", n_hot);
    if (!is_zero(h->reserved, sizeof(h->reserved)))
        return HEADER_DAMAGED(name, "what is reserved is not 0", reserved);
    return 0;
}

static int check_length(const struct manifest_header *h, struct layout *l, const char *name,
                        size_t len)
{
    if (layout_of(l, h) != 0 || l->end > len)
        return damaged(name, "it ends too early", len);
    if (l->end < len)
        return damaged(name, "it does not end behind its id", l->end);
    return 0;
}

static int check_id(struct manifest *m, const char *name, const uint8_t *bytes,
                    const struct layout *l)
{
    digest_of(bytes, l->id, m->id);
    if (memcmp(m->id, bytes + l->id, IMAGE_ID_BYTES) != 0)
        return damaged(name, "its sha256 is wrong", l->id);
    return 0;
}

/* copy() - a table of @n entries; of none as well. Return: 0 or -ENOMEM with a text */
static int copy(void *table, const uint8_t *from, uint64_t n, size_t entry_bytes, const char *name)
{
    void *mem = malloc(n * entry_bytes + (n == 0));

    if (!mem)
        return err_origin_errno(-ENOMEM, "cannot read manifest %s", name);
    memcpy(mem, from, n * entry_bytes);
    *(void **)table = mem;
    return 0;
}

/* copy_tables() - as they are: none of them has been looked at */
static int copy_tables(struct manifest *m, const char *name, const uint8_t *bytes,
                       const struct layout *l)
{
    int r = copy(&m->parents, bytes + l->parents, m->n_parents, sizeof(*m->parents), name);

    if (r == 0)
        r = copy(&m->packs, bytes + l->packs, m->n_packs, sizeof(*m->packs), name);
    if (r == 0)
        r = copy(&m->frames, bytes + l->frames, m->n_frames, sizeof(*m->frames), name);
    if (r == 0)
        r = copy(&m->runs, bytes + l->runs, m->n_runs, sizeof(*m->runs), name);
    if (r == 0)
        r = copy(&m->hot, bytes + l->hot, m->n_hot, sizeof(*m->hot), name);
    return r;
}

/* struct id_at - an id and where it was, to be sorted: equal ones are then neighbours, in the order of the file */
struct id_at {
    const uint8_t *id;
    uint64_t at; /* offset in the file */
};

static int compare_ids(const void *a, const void *b)
{
    const struct id_at *x = a;
    const struct id_at *y = b;
    int order = memcmp(x->id, y->id, IMAGE_ID_BYTES);

    return order != 0 ? order : compare_u64(&x->at, &y->at);
}

/* check_distinct() - of @n ids, @step bytes apart in memory from @ids on and in the file from @at on, no two are the same */
static int check_distinct(const char *name, const char *what, const uint8_t *ids, uint64_t n,
                          size_t step, uint64_t at)
{
    struct id_at *sorted = calloc(n + 1, sizeof(*sorted));
    uint64_t first_wrong = UINT64_MAX;

    if (!sorted)
        return err_origin_errno(-ENOMEM, "cannot read manifest %s", name);
    for (uint64_t i = 0; i < n; i++)
        sorted[i] = (struct id_at){.id = ids + i * step, .at = at + i * step};
    qsort(sorted, n, sizeof(*sorted), compare_ids);
    for (uint64_t i = 1; i < n; i++) {
        if (memcmp(sorted[i].id, sorted[i - 1].id, IMAGE_ID_BYTES) == 0)
            first_wrong = min_u64(first_wrong, sorted[i].at);
    }
    free(sorted);
    return first_wrong == UINT64_MAX ? 0 : damaged(name, what, first_wrong);
}

static int check_packs(const struct manifest *m, const char *name, const struct layout *l)
{
    for (uint32_t i = 0; i < m->n_packs; i++) {
        if (m->packs[i].bytes < sizeof(struct pack_header) || m->packs[i].bytes > INT64_MAX)
            return damaged(name, "no such length of a pack", l->packs + i * sizeof(*m->packs));
    }
    if (m->n_packs == 0)
        return 0;
    return check_distinct(name, "a pack occurs twice", m->packs[0].sha256, m->n_packs,
                          sizeof(*m->packs), l->packs);
}

/* frame_wrong() - what is wrong with @f, whose predecessor in the table is @before, if it has one. Return: NULL: nothing */
static const char *frame_wrong(const struct manifest *m, const struct manifest_frame *f,
                               const struct manifest_frame *before)
{
    uint64_t pages_bytes = f->n_pages * IMAGE_PAGE;

    if (f->pack >= m->n_packs)
        return "a frame in a pack that is not there";
    if (f->n_pages == 0 || f->n_pages > FRAME_PAGES_MAX)
        return "no such number of pages of a frame";
    if (f->codec > FRAME_ZSTD)
        return "no such codec of a frame";
    if (f->stored_bytes == 0 || f->stored_bytes > pages_bytes ||
        (f->codec == FRAME_STORED && f->stored_bytes != pages_bytes))
        return "no such stored length of a frame";
    if (!is_zero(f->reserved, sizeof(f->reserved)))
        return "what is reserved in a frame is not 0";
    if (f->off < sizeof(struct pack_header))
        return "a frame within its pack's header";
    if (f->off > m->packs[f->pack].bytes || f->stored_bytes > m->packs[f->pack].bytes - f->off)
        return "a frame beyond the end of its pack";
    if (before && (f->pack < before->pack || (f->pack == before->pack && f->off < before->off)))
        return "a frame out of order";
    if (before && f->pack == before->pack && f->off < before->off + before->stored_bytes)
        return "a frame that overlaps the one before it";
    return NULL;
}

static int check_frames(const struct manifest *m, const char *name, const struct layout *l)
{
    for (uint32_t i = 0; i < m->n_frames; i++) {
        const struct manifest_frame *before = i > 0 ? &m->frames[i - 1] : NULL;
        const char *what = frame_wrong(m, &m->frames[i], before);

        if (what)
            return damaged(name, what, l->frames + i * sizeof(*m->frames));
    }
    return 0;
}

/* within_image() - are @n pages from @first on, at least one, pages of the image? */
static bool within_image(const struct manifest *m, uint64_t first, uint64_t n)
{
    uint64_t n_pages = m->image_bytes >> IMAGE_PAGE_SHIFT;

    return first < n_pages && n <= n_pages - first;
}

/* run_wrong() - what is wrong with run @i; those before it are right. Return: NULL: nothing */
static const char *run_wrong(const struct manifest *m, uint64_t i)
{
    const struct manifest_run *run = &m->runs[i];
    const struct manifest_run *before = i > 0 ? run - 1 : NULL;

    if (run->n == 0)
        return "a run of no pages";
    if (!within_image(m, run->first, run->n))
        return "a run beyond the end of the image";
    if (run->frame >= m->n_frames)
        return "a run in a frame that is not there";
    if (run->index >= m->frames[run->frame].n_pages ||
        run->n > m->frames[run->frame].n_pages - run->index)
        return "a run beyond the end of its frame";
    if (run->reserved != 0)
        return "what is reserved in a run is not 0";
    if (before && run->first < before->first)
        return "a run out of order";
    if (before && run->first < before->first + before->n)
        return "a run that overlaps the one before it";
    return NULL;
}

static int check_runs(const struct manifest *m, const char *name, const struct layout *l)
{
    for (uint64_t i = 0; i < m->n_runs; i++) {
        const char *what = run_wrong(m, i);

        if (what)
            return damaged(name, what, l->runs + i * sizeof(*m->runs));
    }
    return 0;
}

/* struct hot_at - an entry of the working set and where it was, to be sorted by its pages */
struct hot_at {
    struct manifest_hot hot;
    uint64_t at; /* offset in the file */
};

static int compare_hot(const void *a, const void *b)
{
    const struct hot_at *x = a;
    const struct hot_at *y = b;

    return compare_u64(&x->hot.first, &y->hot.first);
}

/* check_hot_distinct() - no two overlap; each is within the image */
static int check_hot_distinct(const struct manifest *m, const char *name, const struct layout *l)
{
    struct hot_at *sorted = calloc(m->n_hot + 1, sizeof(*sorted));
    uint64_t first_wrong = UINT64_MAX;

    if (!sorted)
        return err_origin_errno(-ENOMEM, "cannot read manifest %s", name);
    for (uint64_t i = 0; i < m->n_hot; i++)
        sorted[i] = (struct hot_at){.hot = m->hot[i], .at = l->hot + i * sizeof(*m->hot)};
    qsort(sorted, m->n_hot, sizeof(*sorted), compare_hot);
    for (uint64_t i = 1; i < m->n_hot; i++) {
        if (sorted[i].hot.first < sorted[i - 1].hot.first + sorted[i - 1].hot.n)
            first_wrong = min_u64(first_wrong, max_u64(sorted[i].at, sorted[i - 1].at));
    }
    free(sorted);
    if (first_wrong == UINT64_MAX)
        return 0;
    return damaged(name, "a run of the working set that overlaps one before it", first_wrong);
}

static int check_hot(const struct manifest *m, const char *name, const struct layout *l)
{
    for (uint64_t i = 0; i < m->n_hot; i++) {
        const char *what = NULL;

        if (m->hot[i].n == 0)
            what = "a run of no pages in the working set";
        else if (!within_image(m, m->hot[i].first, m->hot[i].n))
            what = "a run of the working set beyond the end of the image";
        if (what)
            return damaged(name, what, l->hot + i * sizeof(*m->hot));
    }
    return m->n_hot > 0 ? check_hot_distinct(m, name, l) : 0;
}

static int check_tables(const struct manifest *m, const char *name, const struct layout *l)
{
    int r = 0;

    if (m->n_parents > 0)
        r = check_distinct(name, "a parent occurs twice", m->parents[0], m->n_parents,
                           IMAGE_ID_BYTES, l->parents);
    if (r == 0)
        r = check_packs(m, name, l);
    if (r == 0)
        r = check_frames(m, name, l);
    if (r == 0)
        r = check_runs(m, name, l);
    if (r == 0)
        r = check_hot(m, name, l);
    return r;
}

int manifest_parse(struct manifest **out, const char *name, const void *bytes, size_t len)
{
    _cleanup_(manifest_freep) struct manifest *m = NULL;
    struct manifest_header h;
    struct layout l;
    int r;

    if (len < sizeof(h))
        return err_origin(-EINVAL, "%s is not a manifest: it has %zu bytes", name, len);
    memcpy(&h, bytes, sizeof(h));
    r = check_header(&h, name);
    if (r == 0)
        r = check_length(&h, &l, name, len);
    if (r == 0)
        r = manifest_new(&m, h.image_bytes);
    if (r < 0)
        return r;
    assert(m);
    m->created_s = h.created_s;
    m->has_own_pack = h.has_own_pack != 0;
    m->n_parents = h.n_parents;
    m->n_packs = h.n_packs;
    m->n_frames = h.n_frames;
    m->n_runs = h.n_runs;
    m->n_hot = h.n_hot;
    r = check_id(m, name, bytes, &l);
    if (r == 0)
        r = copy_tables(m, name, bytes, &l);
    if (r == 0)
        r = check_tables(m, name, &l);
    if (r == 0)
        *out = TAKE(m);
    return r;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

/* put() - a table, which may be empty, at its place */
static void put(uint8_t *to, const void *table, uint64_t bytes)
{
    if (bytes > 0)
        memcpy(to, table, bytes);
}

int manifest_format(struct manifest *m, void **bytes, size_t *len)
{
    struct manifest_header h = header_of(m);
    struct layout l;
    uint8_t *mem = layout_of(&l, &h) == 0 ? malloc(l.end) : NULL;

    if (!mem)
        return err_origin_errno(-ENOMEM, "no memory to write a manifest of %" PRIu64 " runs",
                                m->n_runs);
    put(mem, &h, sizeof(h));
    put(mem + l.parents, m->parents, l.packs - l.parents);
    put(mem + l.packs, m->packs, l.frames - l.packs);
    put(mem + l.frames, m->frames, l.runs - l.frames);
    put(mem + l.runs, m->runs, l.hot - l.runs);
    put(mem + l.hot, m->hot, l.id - l.hot);
    digest_of(mem, l.id, m->id);
    put(mem + l.id, m->id, IMAGE_ID_BYTES);
    *bytes = mem;
    *len = l.end;
    return 0;
}
