/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_REASONS_H
#define NODE_REASONS_H

/* reasons.h - why something cannot be done: sentences, in the order in which they were found */

#include "base/base.h"

#define REASONS_MAX 16u

/** struct reasons - a zeroed one has none */
struct reasons {
    char *lines[REASONS_MAX];
    unsigned n;
};

/** reasons_add() - one more; beyond REASONS_MAX, or without memory, the last one is kept */
void reasons_add(struct reasons *r, const char *fmt, ...) PRINTF_LIKE(2, 3);

/** reasons_deinit() - forget them */
void reasons_deinit(struct reasons *r);

#endif
