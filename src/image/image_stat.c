/* SPDX-License-Identifier: Apache-2.0 */

/*
 * image_stat.c - an image in numbers, and page by page
 *
 * What a page is changes where a run begins or ends, or an entry of the working set. Both are walked along side by side, in
 * steps that end where the next change is: so an image costs what its tables cost, however large the guest is.
 */

#include "image/image_stat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

/* struct walk - through pages that follow each other */
struct walk {
    const struct image_pages *p;
    uint64_t page; /* the next one */
    uint64_t run;  /* that has it, or the first one after it; so with hot */
    uint64_t hot;
};

/* struct step - pages that are all the same */
struct step {
    uint64_t n;
    const struct manifest_run *run; /* NULL: zero */
    bool hot;
};

static int compare_hot(const void *a, const void *b)
{
    const struct manifest_hot *x = a;
    const struct manifest_hot *y = b;

    return compare_u64(&x->first, &y->first);
}

int image_pages_init(struct image_pages *p, const struct manifest *m)
{
    struct manifest_hot *hot = calloc(m->n_hot + 1, sizeof(*hot));

    if (!hot)
        return err_origin_errno(-ENOMEM, "no memory to look at an image");
    if (m->n_hot > 0)
        memcpy(hot, m->hot, m->n_hot * sizeof(*hot));
    qsort(hot, m->n_hot, sizeof(*hot), compare_hot);
    *p = (struct image_pages){.m = m, .hot = hot};
    return 0;
}

void image_pages_deinit(struct image_pages *p)
{
    free(p->hot);
    p->hot = NULL;
}

/* find_hot() - the entry that has a page, or the first one after it; as manifest_find() */
static uint64_t find_hot(const struct image_pages *p, uint64_t page)
{
    uint64_t lo = 0;
    uint64_t hi = p->m->n_hot;

    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;

        if (p->hot[mid].first + p->hot[mid].n > page)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

/* next_change() - where pages behind @page begin or cease to be among @n from @first on, which do not end before it */
static uint64_t next_change(uint64_t page, uint64_t first, uint64_t n)
{
    return page < first ? first : first + n;
}

static struct walk walk_from(const struct image_pages *p, uint64_t page)
{
    return (struct walk){
        .p = p, .page = page, .run = manifest_find(p->m, page), .hot = find_hot(p, page)};
}

/* walk_step() - on to the next change, up to @end at most, which is behind */
static struct step walk_step(struct walk *w, uint64_t end)
{
    const struct manifest *m = w->p->m;
    struct step step = {0};

    if (w->run < m->n_runs) {
        const struct manifest_run *run = &m->runs[w->run];

        step.run = run->first <= w->page ? run : NULL;
        end = min_u64(end, next_change(w->page, run->first, run->n));
    }
    if (w->hot < m->n_hot) {
        const struct manifest_hot *hot = &w->p->hot[w->hot];

        step.hot = hot->first <= w->page;
        end = min_u64(end, next_change(w->page, hot->first, hot->n));
    }
    step.n = end - w->page;
    w->page = end;
    w->run += w->run < m->n_runs && m->runs[w->run].first + m->runs[w->run].n == end;
    w->hot += w->hot < m->n_hot && w->p->hot[w->hot].first + w->p->hot[w->hot].n == end;
    return step;
}

static enum image_page page_of(const struct manifest *m, const struct step *step)
{
    enum image_page cold = IMAGE_PAGE_ZERO;

    if (step->run) {
        bool own = m->has_own_pack && m->frames[step->run->frame].pack == 0;

        cold = own ? IMAGE_PAGE_OWN : IMAGE_PAGE_PARENT;
    }
    return step->hot ? cold + IMAGE_PAGE_HOT_ZERO : cold;
}

void image_pages_count(const struct image_pages *p, uint64_t first, uint64_t end,
                       uint64_t counts[N_IMAGE_PAGES])
{
    struct walk w = walk_from(p, first);

    while (w.page < end) {
        struct step step = walk_step(&w, end);

        counts[page_of(p->m, &step)] += step.n;
    }
}

/* ---- numbers -------------------------------------------------------------------------------------------------- */

static void add_frame(struct image_frames *to, const struct manifest_frame *f)
{
    to->n++;
    to->n_pages += f->n_pages;
    to->stored_bytes += f->stored_bytes;
}

static void count_pages(struct image_stat *s, const struct image_pages *p)
{
    struct walk w = walk_from(p, 0);

    while (w.page < s->n_pages) {
        struct step step = walk_step(&w, s->n_pages);

        s->by_page[page_of(p->m, &step)] += step.n;
        if (step.run) {
            struct image_pack_stat *pack = &s->packs[p->m->frames[step.run->frame].pack];

            pack->n_pages += step.n;
            pack->n_hot += step.hot ? step.n : 0;
        }
    }
}

int image_stat_init(struct image_stat *out, const struct manifest *m)
{
    struct image_pages pages = {0};
    int r = image_pages_init(&pages, m);

    if (r < 0)
        return r;
    assert(pages.hot);
    *out = (struct image_stat){
        .n_pages = m->image_bytes / IMAGE_PAGE,
        .packs = calloc((size_t)m->n_packs + 1, sizeof(*out->packs)),
    };
    if (!out->packs) {
        image_pages_deinit(&pages);
        return err_origin_errno(-ENOMEM, "no memory to look at an image");
    }
    for (uint32_t i = 0; i < m->n_frames; i++) {
        add_frame(&out->frames, &m->frames[i]);
        add_frame(&out->by_codec[m->frames[i].codec], &m->frames[i]);
        add_frame(&out->packs[m->frames[i].pack].frames, &m->frames[i]);
    }
    count_pages(out, &pages);
    image_pages_deinit(&pages);
    return 0;
}

void image_stat_deinit(struct image_stat *s)
{
    free(s->packs);
    s->packs = NULL;
}
