/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox_end.c - a sandbox's VMM is killed; nothing is left of a sandbox */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/fd.h"
#include "node/places.h"
#include "node/sandbox_private.h"
#include "node/tree.h"

int sandbox_kill(struct sandbox *s)
{
    struct instance none = {0};
    int r;

    if (s->record.state == SANDBOX_STARTING)
        return sandbox_erase(s);
    r = sandbox_end_instance(s);
    if (r < 0)
        return r;
    switch (s->record.state) {
    case SANDBOX_DEAD:
        return 0;
    case SANDBOX_RESUMING:
        return sandbox_back_to_paused(s, &none);
    case SANDBOX_PAUSED:
        return sandbox_require(s, SANDBOX_RUNNING, "kill it");
    default:
        return sandbox_commit_dead(s, "killed by thaw kill");
    }
}

int sandbox_sweep(const char *store)
{
    char parent[PATH_MAX];
    int r = tree_path(parent, sizeof(parent), store, SANDBOXES_FOLDER);

    return r == 0 ? folder_sweep(parent, NULL, NULL) : r;
}

/* drop_images() - the names that may be there: a pause that was cut short leaves its neighbours' */
static int drop_images(struct sandbox *s)
{
    unsigned g = s->record.generation;
    int r = sandbox_drop_image(s, g + 1);

    if (r == 0 && g > 0)
        r = sandbox_drop_image(s, g);
    if (r == 0 && g > 1)
        r = sandbox_drop_image(s, g - 1);
    return r;
}

/* remove_folder() - the last step: without it the sandbox is still there, and can be removed again */
static int remove_folder(const char *store, const char *name, int lock_fd)
{
    char parent[PATH_MAX];
    int r = tree_path(parent, sizeof(parent), store, SANDBOXES_FOLDER);

    if (r == 0)
        r = folder_remove(parent, name, lock_fd);
    return r == 0 ? sandbox_sweep(store) : r;
}

int sandbox_erase(struct sandbox *s)
{
    int r = sandbox_end_instance(s);

    if (r == 0)
        r = sandbox_drop_vm(s); /* what a keeper still has to write has a place until then */
    if (r == 0)
        r = drop_images(s);
    return r == 0 ? remove_folder(s->store, s->record.name, s->lock_fd) : r;
}

int sandbox_remove(struct sandbox *s, bool force)
{
    bool had_image = s->record.generation > 0;
    int r;

    if (s->record.state == SANDBOX_RUNNING && !force)
        return err_origin(-EBUSY, "the sandbox %s runs: kill it first, or use --force",
                          s->record.name);
    r = sandbox_erase(s);
    if (r == 0 && had_image)
        sandbox_collect(s);
    return r;
}

/* ---- one whose record is broken ------------------------------------------------------------------------------- */

/* is_image_of() - "sandbox.NAME.1" */
static bool is_image_of(const char *image, const char *name)
{
    size_t len = strlen(name);

    return strncmp(image, "sandbox.", 8) == 0 && strncmp(image + 8, name, len) == 0 &&
           image[8 + len] == '.';
}

static int forget_images(const char *path, const char *name)
{
    _cleanup_(store_closep) struct store *store = NULL;
    struct store_list list = {0};
    int r = store_open(&store, path, false);

    if (r == 0)
        r = store_list(store, &list);
    for (size_t i = 0; r == 0 && i < list.n; i++) {
        if (list.entries[i].name && is_image_of(list.entries[i].name, name))
            r = store_forget_name(store, list.entries[i].name);
    }
    store_list_deinit(&list);
    return r;
}

int sandbox_remove_broken(const char *store, const char *name)
{
    _cleanup_(sandbox_closep) struct sandbox *s = NULL;
    char vm[PATH_MAX];
    int lock_fd = -1;
    int r = sandbox_lock(store, name, SANDBOX_LOCK_MS, &lock_fd);

    if (r < 0)
        return r;
    s = sandbox_new(store, name, lock_fd);
    r = s ? sandbox_path(s, vm, sizeof(vm), SANDBOX_VM) : -ENOMEM;
    if (r == 0)
        r = instance_end_by_files(vm, 0, SANDBOX_DEADLINE_MS);
    if (r == 0)
        r = sandbox_leave_jail(s);
    if (r == 0)
        r = forget_images(store, name);
    return r == 0 ? remove_folder(store, name, s->lock_fd) : r;
}
