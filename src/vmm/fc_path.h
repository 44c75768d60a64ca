/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_FC_PATH_H
#define VMM_FC_PATH_H

/* fc_path.h - where in a JSON body something is: "cpuid_modifiers[2].leaf", for errors. What is too long is cut off */

#include <stdio.h>
#include <string.h>

#include "base/base.h"

struct fc_path {
    char text[120];
};

/** fc_path_field() - one step into an object. Return: what fc_path_back() wants */
static inline size_t fc_path_field(struct fc_path *p, const char *name)
{
    size_t n = strlen(p->text);

    (void)snprintf(p->text + n, sizeof(p->text) - n, "%s%s", n > 0 && name[0] != '\0' ? "." : "",
                   name);
    return n;
}

/** fc_path_index() - one step into a list */
static inline size_t fc_path_index(struct fc_path *p, size_t i)
{
    size_t n = strlen(p->text);

    (void)snprintf(p->text + n, sizeof(p->text) - n, "[%zu]", i);
    return n;
}

/** fc_path_back() - to where the path was before a step */
static inline void fc_path_back(struct fc_path *p, size_t before)
{
    p->text[before] = '\0';
}

#endif
