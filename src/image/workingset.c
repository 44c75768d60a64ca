/* SPDX-License-Identifier: Apache-2.0 */

/*
 * workingset.c - working sets in memory: growing, becoming one of several, counted
 *
 * What is in one has been checked or was made here: units are distinct and inside the memory file, so the sums below do
 * not overflow, and two sets are joined with one table that is large enough for both.
 */

#include "image/workingset.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/err.h"

#define ROOM_MIN 1024u

int workingset_new(struct workingset **out, unsigned unit_shift, uint64_t image_bytes)
{
    struct workingset *ws = calloc(1, sizeof(*ws));

    assert(unit_shift == 12 || unit_shift == 21);
    assert(image_bytes > 0 && image_bytes <= INT64_MAX &&
           image_bytes == align_down(image_bytes, 1ull << unit_shift));
    if (!ws)
        return err_origin_errno(-ENOMEM, "cannot make a working set");
    ws->unit_shift = unit_shift;
    ws->image_bytes = image_bytes;
    *out = ws;
    return 0;
}

struct workingset *workingset_free(struct workingset *ws)
{
    if (ws)
        free(ws->entries);
    free(ws);
    return NULL;
}

int workingset_reserve(struct workingset *ws, size_t n)
{
    void *more;

    if (n <= ws->room)
        return 0;
    more = reallocarray(ws->entries, n, sizeof(*ws->entries));
    if (!more)
        return err_origin_errno(-ENOMEM, "no memory for a working set of %zu entries", n);
    ws->entries = more;
    ws->room = n;
    return 0;
}

int workingset_add(struct workingset *ws, const struct workingset_entry *entry)
{
    assert(entry->unit < ws->image_bytes >> ws->unit_shift);
    assert(entry->time_class < WORKINGSET_TIME_CLASSES);
    if (ws->n == ws->room) {
        int r = workingset_reserve(ws, ws->room ? ws->room * 2 : ROOM_MIN);

        if (r < 0)
            return r;
    }
    assert(ws->entries);
    ws->entries[ws->n++] = *entry;
    return 0;
}

uint8_t workingset_time_class(uint64_t since_start_ns)
{
    uint64_t ms = since_start_ns / NS_PER_MS;

    return ms == 0 ? 0 : (uint8_t)(64 - __builtin_clzll(ms));
}

/* ---- several become one --------------------------------------------------------------------------------------- */

/* struct place - where a unit is: a table of all units, looked up by number. Open addressing, half empty at least */
struct place {
    uint64_t unit_and_one; /* 0: free */
    size_t at;             /* in the entries of the set that is made */
    unsigned n_sets;       /* how many of the sets have it */
};

struct places {
    struct place *table; /* owned */
    size_t mask;
};

static int places_init(struct places *p, size_t n)
{
    size_t room = 16;

    while (room < n * 2)
        room *= 2;
    p->mask = room - 1;
    p->table = calloc(room, sizeof(*p->table));
    return p->table ? 0 : err_origin_errno(-ENOMEM, "no memory to compare working sets");
}

static struct place *places_find(const struct places *p, uint64_t unit)
{
    size_t i = (size_t)(unit * 0x9e3779b97f4a7c15ull >> 20) & p->mask;

    while (p->table[i].unit_and_one != 0 && p->table[i].unit_and_one != unit + 1)
        i = (i + 1) & p->mask;
    return &p->table[i];
}

/* join() - the entries of one set: known ones are counted and made stricter, others are appended */
static int join(struct workingset *all, struct places *places, const struct workingset *ws)
{
    for (size_t i = 0; i < ws->n; i++) {
        const struct workingset_entry *e = &ws->entries[i];
        struct place *place = places_find(places, e->unit);

        if (place->unit_and_one == 0) {
            int r = workingset_add(all, e);

            if (r < 0)
                return r;
            *place = (struct place){.unit_and_one = e->unit + 1, .at = all->n - 1};
        }
        assert(all->entries);
        place->n_sets++;
        all->entries[place->at].write |= e->write;
        if (e->time_class < all->entries[place->at].time_class)
            all->entries[place->at].time_class = e->time_class;
    }
    return 0;
}

static void keep_common(struct workingset *all, const struct places *places, unsigned n_sets)
{
    size_t n = 0;

    for (size_t i = 0; i < all->n; i++) {
        if (places_find(places, all->entries[i].unit)->n_sets == n_sets)
            all->entries[n++] = all->entries[i];
    }
    all->n = n;
}

static int check_alike(const struct workingset *const *sets, unsigned n_sets)
{
    for (unsigned i = 1; i < n_sets; i++) {
        if (sets[i]->unit_shift != sets[0]->unit_shift)
            return err_origin(
                -EINVAL, "working set %u of those is in units of %llu bytes, the first one of %llu",
                i + 1, 1ull << sets[i]->unit_shift, 1ull << sets[0]->unit_shift);
        if (sets[i]->image_bytes != sets[0]->image_bytes)
            return err_origin(-EINVAL,
                              "working set %u of those is of a memory file of %" PRIu64
                              " bytes, the first one of %" PRIu64,
                              i + 1, sets[i]->image_bytes, sets[0]->image_bytes);
    }
    return 0;
}

int workingset_merge(struct workingset **out, const struct workingset *const *sets, unsigned n_sets,
                     enum workingset_rule rule)
{
    _cleanup_(workingset_freep) struct workingset *all = NULL;
    struct places places = {0};
    size_t n = 0;
    int r;

    assert(n_sets > 0);
    r = check_alike(sets, n_sets);
    for (unsigned i = 0; i < n_sets; i++)
        n += sets[i]->n;
    if (r == 0)
        r = workingset_new(&all, sets[0]->unit_shift, sets[0]->image_bytes);
    if (r == 0)
        r = places_init(&places, n);
    if (r < 0)
        return r;
    assert(all);
    all->complete = true;
    for (unsigned i = 0; i < n_sets && r == 0; i++) {
        r = join(all, &places, sets[i]);
        all->complete &= sets[i]->complete;
        all->window_ns = max_u64(all->window_ns, sets[i]->window_ns);
    }
    if (r == 0 && rule == WORKINGSET_INTERSECTION)
        keep_common(all, &places, n_sets);
    free(places.table);
    if (r == 0)
        *out = TAKE(all);
    return r;
}

/* ---- numbers -------------------------------------------------------------------------------------------------- */

/* count_runs() - @units sorted; they are overwritten with the lengths of the runs. Return: how many */
static size_t count_runs(uint64_t *units, size_t n)
{
    size_t n_runs = 0;
    size_t begin = 0;

    for (size_t i = 1; i <= n; i++) {
        if (i < n && units[i] == units[i - 1] + 1)
            continue;
        units[n_runs++] = i - begin;
        begin = i;
    }
    return n_runs;
}

int workingset_stat(const struct workingset *ws, struct workingset_stat *out)
{
    uint64_t *units = malloc((ws->n + 1) * sizeof(*units));

    if (!units)
        return err_origin_errno(-ENOMEM, "no memory to count a working set");
    *out = (struct workingset_stat){.bytes = (uint64_t)ws->n << ws->unit_shift};
    for (size_t i = 0; i < ws->n; i++) {
        const struct workingset_entry *e = &ws->entries[i];

        units[i] = e->unit;
        out->n_writes += e->write;
        out->n_ordered += i > 0 && e->unit == ws->entries[i - 1].unit + 1;
        out->by_time_class[e->time_class]++;
    }
    if (ws->n > 0) {
        qsort(units, ws->n, sizeof(*units), compare_u64);
        out->n_runs = count_runs(units, ws->n);
        qsort(units, out->n_runs, sizeof(*units), compare_u64);
        out->median_run = units[out->n_runs / 2];
        out->longest_run = units[out->n_runs - 1];
    }
    free(units);
    return 0;
}
