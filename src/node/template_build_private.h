/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_TEMPLATE_BUILD_PRIVATE_H
#define NODE_TEMPLATE_BUILD_PRIVATE_H

/* template_build_private.h - what the parts of a build share: template_build.c, and template_{plan,guest,restore}.c */

#include <limits.h>

#include "image/pack.h"
#include "node/console.h"
#include "node/folder.h"
#include "node/template_build.h"

#define BUILD_FOLDER_BOOT    "boot"   /* in the folder that is made: the VM that is booted */
#define BUILD_FOLDER_RESTORE "record" /* one that is restored */
#define BUILD_FOLDER_STORE   "store"  /* a store for the image that is recorded from */
#define BUILD_IMAGE          "memory" /* its name there */
#define BUILD_RECORDS        2u

/** struct build - one on its way */
struct build {
    const struct template_recipe *recipe;
    const struct template_watch *watch;
    const char *name;
    char store[PATH_MAX]; /* absolute */
    const struct vmm_driver *driver;
    struct template t;    /* as far as it is known */
    struct vmm_spec spec; /* of it */
    unsigned timeout_ms;
    struct folder_new folder;
    char boot[PATH_MAX];
    struct vmm *vm; /* the one that was booted */
    bool stuck;     /* a process could not be ended: its folder must stay */
};

/** build_step() - say what comes now. Return: 0, or a negative errno with a text if it is to stop */
int build_step(const struct build *b, const char *what);

/** build_wait() - for console.h */
struct console_wait build_wait(const struct build *b, unsigned timeout_ms);

/** build_nap() - a moment. Return: 0, or a negative errno with a text if it is to stop */
int build_nap(const struct build *b);

/** build_path() - of a file in the folder that is made. Return: 0 or -ENAMETOOLONG with a text */
int build_path(const struct build *b, const char *name, char path[PATH_MAX]);

/** build_plan() - all that can be known before anything is started (template_plan.c). Return: 0 or a negative errno with a text */
int build_plan(struct build *b);

/** build_guest() - wait until the guest that was booted is what is wanted of it (template_guest.c) */
int build_guest(struct build *b);

/** build_record() - restore it BUILD_RECORDS times; what it touches each time (template_restore.c). @out: (give) */
int build_record(struct build *b, struct workingset **out);

/** build_end_leftovers() - for folder_sweep(): the processes of a build that died end, VMM first; its image loses its name */
int build_end_leftovers(void *store, const char *path);

#endif
