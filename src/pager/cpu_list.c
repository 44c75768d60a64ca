/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/cpu_list.h"

#include <errno.h>

/* take_number() - at *@at, which moves behind it. Return: false if there is none below CPU_SETSIZE */
static bool take_number(const char **at, unsigned *out)
{
    const char *begin = *at;
    unsigned n = 0;

    for (; **at >= '0' && **at <= '9'; (*at)++) {
        n = n * 10 + (unsigned)(**at - '0');
        if (n >= CPU_SETSIZE)
            return false;
    }
    *out = n;
    return *at != begin;
}

int cpu_list_parse(const char *text, cpu_set_t *out)
{
    CPU_ZERO(out);
    for (const char *at = text;; at++) {
        unsigned first;
        unsigned last;

        if (!take_number(&at, &first))
            return -EINVAL;
        last = first;
        if (*at == '-') {
            at++;
            if (!take_number(&at, &last) || last < first)
                return -EINVAL;
        }
        for (size_t cpu = first; cpu <= last; cpu++)
            CPU_SET(cpu, out);
        if (*at == '\0')
            return 0;
        if (*at != ',')
            return -EINVAL;
    }
}
