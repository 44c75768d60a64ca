/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/recorder.h"

#include <errno.h>
#include <stdlib.h>

#include "base/err.h"
#include "image/workingset.h"

/* struct touch - a fault that was read */
struct touch {
    pgno_t page;
    uint8_t time_class;
    bool write;
    bool answered;
};

struct recorder {
    const char *path; /* (borrow) */
    int folder;       /* (borrow) that of path */
    const struct geom *g;
    uint64_t image_bytes;
    uint64_t window_ns;
    uint64_t began_ns; /* the first fault; 0: none yet */
    uint64_t lasted_ns;
    bool closed;
    bool complete;
    bool short_of_memory;  /* what is here is not all */
    struct touch *touches; /* owned */
    size_t n;
    size_t room;
    uint32_t *index; /* owned: a page's place in touches, plus one */
};

int recorder_new(struct recorder **out, const char *path, int folder, const struct geom *g,
                 uint64_t image_bytes, uint64_t window_ns)
{
    _cleanup_(recorder_freep) struct recorder *r = calloc(1, sizeof(*r));

    if (!r)
        return err_origin_errno(-ENOMEM, "cannot record a working set");
    r->path = path;
    r->g = g;
    r->image_bytes = image_bytes;
    r->window_ns = window_ns;
    r->folder = folder;
    r->index = calloc(g->n_pages, sizeof(*r->index)); /* takes memory where it is used */
    if (!r->index)
        return err_origin_errno(-ENOMEM, "cannot record a working set");
    *out = TAKE(r);
    return 0;
}

struct recorder *recorder_free(struct recorder *r)
{
    if (!r)
        return NULL;
    free(r->touches);
    free(r->index);
    free(r);
    return NULL;
}

/* make_room() - for one more. Without memory the record ends: the VM goes on */
static bool make_room(struct recorder *r)
{
    size_t room = r->room ? r->room * 2 : 1024;
    void *more;

    if (r->n < r->room)
        return true;
    more = r->n < UINT32_MAX / 2 ? realloc(r->touches, room * sizeof(*r->touches)) : NULL;
    if (!more) {
        r->short_of_memory = true;
        return false;
    }
    r->touches = more;
    r->room = room;
    return true;
}

void recorder_fault(struct recorder *r, pgno_t p, bool write, uint64_t now_ns)
{
    if (r->closed || r->short_of_memory)
        return;
    if (r->began_ns == 0)
        r->began_ns = now_ns;
    if (r->index[p] != 0) {
        struct touch *t = &r->touches[r->index[p] - 1];

        /* Another thread waits too. What happens after the answer is not the first touch. */
        if (!t->answered)
            t->write |= write;
        return;
    }
    if (!make_room(r))
        return;
    r->touches[r->n] = (struct touch){
        .page = p,
        .write = write,
        .time_class = workingset_time_class(now_ns - r->began_ns),
    };
    r->index[p] = (uint32_t)++r->n;
}

void recorder_answered(struct recorder *r, pgno_t p)
{
    if (!r->closed && r->index[p] != 0)
        r->touches[r->index[p] - 1].answered = true;
}

void recorder_along(struct recorder *r, pgno_t p, uint64_t now_ns)
{
    if (r->closed || r->index[p] != 0)
        return;
    recorder_fault(r, p, false, now_ns);
    recorder_answered(r, p);
}

uint64_t recorder_deadline_ns(const struct recorder *r)
{
    if (r->closed || r->window_ns == 0 || r->began_ns == 0)
        return UINT64_MAX;
    return r->began_ns + r->window_ns;
}

bool recorder_close(struct recorder *r, bool complete, uint64_t now_ns)
{
    if (r->closed)
        return false;
    r->closed = true;
    r->complete = complete && !r->short_of_memory;
    r->lasted_ns = r->began_ns != 0 ? now_ns - r->began_ns : 0;
    return true;
}

size_t recorder_count(const struct recorder *r)
{
    size_t n = 0;

    for (size_t i = 0; i < r->n; i++)
        n += r->touches[i].answered;
    return n;
}

int recorder_write(struct recorder *r)
{
    _cleanup_(workingset_freep) struct workingset *ws = NULL;
    int result = workingset_new(&ws, r->g->page_shift, r->image_bytes);

    assert(r->closed);
    for (size_t i = 0; i < r->n && result == 0; i++) {
        const struct touch *t = &r->touches[i];
        const struct geom_region *region = geom_find_page(r->g, t->page);
        struct workingset_entry e = {
            .unit = geom_imgoff_of(r->g, region, t->page) >> r->g->page_shift,
            .time_class = t->time_class,
            .write = t->write,
        };

        if (t->answered)
            result = workingset_add(ws, &e);
    }
    if (result < 0)
        return result;
    ws->window_ns = r->lasted_ns;
    ws->complete = r->complete;
    return workingset_write_in(ws, r->path, r->folder);
}
