/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_CPU_LIST_H
#define PAGER_CPU_LIST_H

/* cpu_list.h - processors by number, such as "0-3,7" */

#include <sched.h>

#include "base/base.h"

/** cpu_list_parse() - Return: 0, or -EINVAL (no text): not a list, or a number of CPU_SETSIZE or more */
int cpu_list_parse(const char *text, cpu_set_t *out);

#endif
