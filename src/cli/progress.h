/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

/* progress.h - a bar that draws over itself, for people only */

#include "base/base.h"

#define PROGRESS_CELLS     30u
#define PROGRESS_BAR_BYTES 48u

/** progress_bar() - "[#####.....]  50 %", into @buf. @all: 0 counts as done. Return: @buf */
const char *progress_bar(uint64_t done, uint64_t all, char buf[PROGRESS_BAR_BYTES]);

/** struct progress - of one piece of work, which may have parts; zeroed: nothing was drawn */
struct progress {
    bool drawn;
    const char *what;  /* the part that is at work */
    uint64_t since_ns; /* when it began */
};

/**
 * progress_show() - a line on stderr: bar, rate, time that is left
 * @done: bytes, of @all
 *
 * Only where stderr is a terminal.
 */
void progress_show(struct progress *p, const char *what, uint64_t done, uint64_t all);

/** progress_clear() - the line is empty again */
void progress_clear(struct progress *p);

#endif
