/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_LANDLOCK_H
#define PAGER_LANDLOCK_H

/* landlock.h - no access to files but for what a pager does by name until its end */

#include "base/base.h"

/** landlock_version() - Return: the version of Landlock that this kernel has, 1 or more; or a negative errno (no text) */
int landlock_version(void);

/**
 * landlock_restrict() - take access to files away from this thread and those that it starts; TCP, too, from version 4 on
 * @version:    what landlock_version() said
 * @remove_dir: (borrow for the call) beneath it files may be removed; NULL: nowhere
 * @write_dirs: (borrow for the call) beneath them files may be made, replaced and removed; it and each may be NULL: nowhere
 * @read_dir:   an open folder beneath which files may be read; -1: none
 *
 * Needs no_new_privs. Return: 0 or a negative errno with a text.
 */
int landlock_restrict(int version, const char *remove_dir, const char *const write_dirs[2],
                      int read_dir);

#endif
