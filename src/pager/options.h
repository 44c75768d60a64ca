/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_OPTIONS_H
#define PAGER_OPTIONS_H

/*
 * options.h - struct thaw_pager_options: what goes together, and a copy that the pager owns
 */

#include <thaw/thaw.h>

/** options_check() - Return: 0, or -EINVAL with a text */
int options_check(const struct thaw_pager_options *o);

/**
 * options_copy() - a copy with strings and lists of its own, and with defaults where 0 asks for them
 * @out: (give) options_deinit() it, also after a failure
 *
 * Return: 0 or -ENOMEM with a text.
 */
int options_copy(struct thaw_pager_options *out, const struct thaw_pager_options *o);

void options_deinit(struct thaw_pager_options *o);

#endif
