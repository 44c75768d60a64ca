/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_TEMPLATE_BUILD_H
#define NODE_TEMPLATE_BUILD_H

/*
 * template_build.h - from a recipe to a template
 *
 *     boot the guest, wait until it is ready, run its start command
 *     have it give back what it does not use: caches are dropped, free pages hinted or reported
 *     pause it, take a snapshot, kill the VMM
 *     pack the memory, restore the snapshot twice, each time until the guest answers, and record what it touched
 *     pack the memory again: what was touched both times comes first
 *     give all of it its name
 *
 * A template is there whole or not at all. What was begun is removed when anything fails or somebody wants it to stop; what
 * even that could not remove is removed by the next one who builds.
 */

#include "image/image_job.h"
#include "node/template.h"
#include "node/template_recipe.h"

/** struct template_watch - who looks on */
struct template_watch {
    void (*step)(void *ctx, const char *what); /* another step begins; may be NULL */
    int (*stopped)(
        void *ctx); /* asked all the time; not 0, a negative errno with a text, ends the work */
    void *ctx;
    struct image_job job; /* how the memory is packed; its watcher ends the work, too */
};

/**
 * template_build() - make a template, and its image of the same name
 * @store: its folder; made if it is not there
 *
 * Nothing is started and nothing made before all that can be checked was.
 *
 * Return: 0; -EEXIST: there is a template or an image of that name; -EOPNOTSUPP: the VMM does not have what is wanted; others;
 * with a text
 */
int template_build(const struct template_recipe *recipe, const char *store, const char *name,
                   const struct template_watch *watch);

#endif
