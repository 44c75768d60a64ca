/* SPDX-License-Identifier: Apache-2.0 */
#include "node/reasons.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void reasons_add(struct reasons *r, const char *fmt, ...)
{
    va_list args;
    char *line = NULL;
    int n;

    if (r->n == REASONS_MAX)
        return;
    va_start(args, fmt);
    n = vasprintf(&line, fmt, args);
    va_end(args);
    if (n >= 0)
        r->lines[r->n++] = line;
}

void reasons_deinit(struct reasons *r)
{
    for (unsigned i = 0; i < r->n; i++)
        free(r->lines[i]);
    *r = (struct reasons){0};
}
