/* SPDX-License-Identifier: Apache-2.0 */
#include "core/fetch_table.h"

bool fetch_table_add(struct fetch_table *t, pgno_t first, pgno_t end, bool write)
{
    if (t->n == FETCH_TABLE_MAX)
        return false;
    t->runs[t->n].first = first;
    t->runs[t->n].end = end;
    t->runs[t->n].write = write;
    t->n++;
    return true;
}

bool fetch_table_join(struct fetch_table *t, pgno_t p, bool write)
{
    for (unsigned i = 0; i < t->n; i++) {
        if (t->runs[i].first <= p && p < t->runs[i].end) {
            t->runs[i].write |= write;
            return true;
        }
    }
    return false;
}

bool fetch_table_drop(struct fetch_table *t, pgno_t first, pgno_t end, bool *write)
{
    for (unsigned i = 0; i < t->n; i++) {
        if (t->runs[i].first == first && t->runs[i].end == end) {
            *write = t->runs[i].write;
            t->runs[i] = t->runs[--t->n];
            return true;
        }
    }
    return false;
}
