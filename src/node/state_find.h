/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_STATE_FIND_H
#define NODE_STATE_FIND_H

/* state_find.h - the state file of a process that is known by its number only */

#include "base/base.h"

/**
 * state_find() - of the pager that made it, of the one that serves now, or of the VMM
 * @dir:  where state files are; NULL: the default
 * @path: set on success; if there is no such file, to the name that it would have had
 *
 * Return: 0 or a negative errno with a text
 */
int state_find(const char *dir, int pid, char *path, size_t len);

#endif
