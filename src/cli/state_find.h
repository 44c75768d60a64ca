/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_STATE_FIND_H
#define CLI_STATE_FIND_H

/*
 * state_find.h - which pager is meant, for verbs that look at one or speak to one
 *
 * A file's name, a pid, or the only one that runs. What a dead pager left behind is never the answer to the last.
 */

#include "base/base.h"

/**
 * cli_find_state() - the state file that is meant
 * @which: a state file, or the pid of a pager or of a VMM; NULL: the only pager that runs
 * @dir:   where state files are; NULL: the default
 *
 * Return: CLI_OK, or CLI_FAILED after an error was printed.
 */
int cli_find_state(const char *verb, const char *which, const char *dir, char *path, size_t len);

#endif
