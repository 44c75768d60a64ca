/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_FETCH_TABLE_H
#define CORE_FETCH_TABLE_H

/*
 * fetch_table.h - runs of pages whose bytes are on their way
 *
 * Bounded and unordered: there are never more than a few dozen, and a page is looked up only when it is missing. Not in the
 * state file: a new pager reads the bytes again.
 */

#include "base/base.h"

#define FETCH_TABLE_MAX 64u

/** struct fetch_table - zeroed memory is an empty one */
struct fetch_table {
    unsigned n;
    struct {
        pgno_t first;
        pgno_t end;
        bool write; /* somebody wants to write there */
    } runs[FETCH_TABLE_MAX];
};

/** fetch_table_add() - [@first, @end) is on its way. Return: false when the table is full */
bool fetch_table_add(struct fetch_table *t, pgno_t first, pgno_t end, bool write);

/** fetch_table_join() - is page @p on its way? Then one more waits for it, to write or not */
bool fetch_table_join(struct fetch_table *t, pgno_t p, bool write);

/** fetch_table_drop() - [@first, @end) has come. *write: as gathered. Return: false when it was not in the table */
bool fetch_table_drop(struct fetch_table *t, pgno_t first, pgno_t end, bool *write);

#endif
