/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_SETS_H
#define UNIT_SETS_H

/* sets.h - working sets for tests: made by hand, made at random, compared */

#include "testing.h"

#include "image/workingset.h"

/** sets_new() - an empty one, of a memory file of @n_units units */
static inline struct workingset *sets_new(unsigned unit_shift, uint64_t n_units)
{
    struct workingset *ws = NULL;

    assert_int_equal(workingset_new(&ws, unit_shift, n_units << unit_shift), 0);
    return ws;
}

/** sets_add() - one more unit */
static inline void sets_add(struct workingset *ws, uint64_t unit, unsigned time_class, bool write)
{
    struct workingset_entry e = {.unit = unit, .time_class = (uint8_t)time_class, .write = write};

    assert_int_equal(workingset_add(ws, &e), 0);
}

/** sets_find() - the entry of a unit, or NULL */
static inline const struct workingset_entry *sets_find(const struct workingset *ws, uint64_t unit)
{
    for (size_t i = 0; i < ws->n; i++) {
        if (ws->entries[i].unit == unit)
            return &ws->entries[i];
    }
    return NULL;
}

/** sets_random() - up to @n distinct units of @n_units, many of them neighbours */
static inline struct workingset *sets_random(struct rng *r, unsigned unit_shift, uint64_t n_units,
                                             size_t n)
{
    struct workingset *ws = sets_new(unit_shift, n_units);
    uint64_t unit = 0;

    for (size_t i = 0; i < n; i++) {
        unit = rng_below(r, 2) ? rng_below(r, n_units) : (unit + 1) % n_units;
        if (!sets_find(ws, unit))
            sets_add(ws, unit, (unsigned)rng_below(r, WORKINGSET_TIME_CLASSES), rng_below(r, 2));
    }
    ws->window_ns = rng_next(r);
    ws->complete = rng_below(r, 2);
    return ws;
}

/** assert_same_set() - entry by entry, in the same order */
static inline void assert_same_set(const struct workingset *a, const struct workingset *b)
{
    assert_int_equal(a->unit_shift, b->unit_shift);
    assert_int_equal(a->image_bytes, b->image_bytes);
    assert_int_equal(a->window_ns, b->window_ns);
    assert_int_equal(a->complete, b->complete);
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        assert_int_equal(a->entries[i].unit, b->entries[i].unit);
        assert_int_equal(a->entries[i].time_class, b->entries[i].time_class);
        assert_int_equal(a->entries[i].write, b->entries[i].write);
    }
}

/** sets_small() - of 100 units, three of them touched */
static inline struct workingset *sets_small(void)
{
    struct workingset *ws = sets_new(12, 100);

    sets_add(ws, 7, 0, false);
    sets_add(ws, 99, 3, true);
    sets_add(ws, 0, 63, false);
    ws->window_ns = 5 * NS_PER_S;
    ws->complete = true;
    return ws;
}

#endif
