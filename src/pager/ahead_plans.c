/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/ahead_plans.h"

#include <errno.h>
#include <inttypes.h>

#include "base/err.h"

int ahead_plans_read(struct ahead_plans *a, const char *path)
{
    return path ? workingset_read(&a->ws, path) : 0;
}

int ahead_plans_check(const struct ahead_plans *a, uint64_t image_bytes)
{
    return a->ws ? plan_check(a->ws, image_bytes) : 0;
}

void ahead_plans_expect(const struct ahead_plans *a, struct source *source)
{
    if (a->ws)
        plan_expect(a->ws, source);
}

int ahead_plans_make(struct ahead_plans *a, const struct geom *g, uint64_t image_bytes, bool fill)
{
    int r = 0;

    if (a->ws)
        r = plan_make(&a->first, a->ws, g, image_bytes);
    a->ws = workingset_free(a->ws);
    if (r == 0 && fill)
        r = plan_rest(&a->rest, g);
    return r;
}

void ahead_plans_deinit(struct ahead_plans *a)
{
    a->ws = workingset_free(a->ws);
    plan_deinit(&a->first);
    plan_deinit(&a->rest);
}
