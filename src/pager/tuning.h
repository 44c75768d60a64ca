/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_TUNING_H
#define PAGER_TUNING_H

/*
 * tuning.h - constants of the pager that a benchmark may change, to see whether they are right; no part of the library
 */

#include <thaw/thaw.h>

/** pager_tune_ahead() - before thaw_pager_run(): how many bytes are installed ahead between two looks at the messages */
void pager_tune_ahead(struct thaw_pager *p, uint64_t slice_bytes);

#endif
