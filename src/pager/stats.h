/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_STATS_H
#define PAGER_STATS_H

/* stats.h - what a block says of its VM, as one JSON object on one line; the keys are in thaw-serve(1) */

#include <thaw/thaw.h>

#include "core/block.h"
#include "core/event.h"

/** stats_prepare() - what the first statistics want of the system: before this process gives that away */
void stats_prepare(void);

/**
 * stats_json() - the statistics
 * @out: (give) free() it
 * @end: why the session ended, STOP_NONE while it runs
 * @ahead: (borrow for the call) how far it is with what it installs ahead
 *
 * Return: 0 or -ENOMEM with a text.
 */
int stats_json(char **out, const struct block *b, enum stop_reason end,
               const struct thaw_progress *ahead);

#endif
