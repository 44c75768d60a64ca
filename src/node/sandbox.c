/* SPDX-License-Identifier: Apache-2.0 */
#include "node/sandbox.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "node/places.h"
#include "node/sandbox_private.h"
#include "node/tree.h"

/* For a process that decompressed an image of ours to end: it does, a moment after the last pager has. */
#define COLLECT_TRIES  3u
#define COLLECT_NAP_NS (10 * NS_PER_MS)

/* ---- names ---------------------------------------------------------------------------------------------------- */

int sandbox_path(const struct sandbox *s, char *buf, size_t len, const char *name)
{
    return tree_path(buf, len, s->folder, name);
}

int sandbox_paused_path(const struct sandbox *s, char *buf, size_t len, unsigned generation,
                        bool unfinished)
{
    char name[40];

    (void)snprintf(name, sizeof(name), "paused.%u%s", generation, unfinished ? ".new" : "");
    return sandbox_path(s, buf, len, name);
}

const char *sandbox_image_name(const struct sandbox *s, unsigned generation,
                               char buf[STORE_NAME_MAX])
{
    (void)snprintf(buf, STORE_NAME_MAX, "sandbox.%s.%u", s->record.name, generation);
    return buf;
}

int sandbox_list(const char *store, struct folder_list *out)
{
    char path[PATH_MAX];
    int r = tree_path(path, sizeof(path), store, SANDBOXES_FOLDER);

    return r == 0 ? folder_list(path, out) : r;
}

/* ---- one that is open ----------------------------------------------------------------------------------------- */

struct sandbox *sandbox_new(const char *store, const char *name, int lock_fd)
{
    _cleanup_(sandbox_closep) struct sandbox *s = calloc(1, sizeof(*s));

    if (s) {
        s->lock_fd = lock_fd;
        s->store = realpath(store, NULL);
    } else {
        (void)fd_close(lock_fd);
    }
    if (!s || !s->store || asprintf(&s->folder, "%s/" SANDBOXES_FOLDER "/%s", s->store, name) < 0) {
        (void)err_origin(-ENOMEM, "no memory for the sandbox %s", name);
        return NULL;
    }
    return TAKE(s);
}

struct sandbox *sandbox_close(struct sandbox *s)
{
    if (!s)
        return NULL;
    template_deinit(&s->origin);
    sandbox_record_deinit(&s->record);
    s->lock_fd = fd_close(s->lock_fd);
    free(s->folder);
    free(s->store);
    free(s);
    return NULL;
}

int sandbox_read(struct sandbox *s, const char *name)
{
    char path[PATH_MAX];
    int r = sandbox_record_read(&s->record, s->folder, name);

    if (r == 0)
        r = sandbox_path(s, path, sizeof(path), TEMPLATE_RECORD);
    if (r == 0)
        r = record_read(&template_form, path, &s->origin);
    if (r == 0 && !sandbox_driver(s))
        r = err_origin(-EINVAL, "%s: there is no driver for %s", path,
                       template_vmm_words[s->origin.vmm]);
    /* The folder is there, and so the sandbox: without a record it is a broken one. */
    return r == -ENOENT ? err_origin(-EINVAL, "%s", err_text()) : r;
}

int sandbox_lock(const char *store, const char *name, unsigned lock_ms, int *fd)
{
    char path[PATH_MAX];
    int r = sandbox_name_check(name);

    if (r == 0 && snprintf(path, sizeof(path), "%s/" SANDBOXES_FOLDER "/%s", store, name) >=
                      (int)sizeof(path))
        r = err_origin(-ENAMETOOLONG, "the folder name %s is too long", store);
    if (r == 0)
        r = folder_lock(path, FOLDER_ALONE, lock_ms, fd);
    if (r == -ENOENT)
        r = err_origin(-ENOENT, "no sandbox %s in the store %s", name, store);
    if (r == -EBUSY)
        r = err_origin(-EBUSY, "somebody else is at work on the sandbox %s", name);
    return r;
}

int sandbox_open(struct sandbox **out, const char *store, const char *name, enum sandbox_how how,
                 unsigned lock_ms)
{
    _cleanup_(sandbox_closep) struct sandbox *s = NULL;
    int lock_fd = -1;
    int r = sandbox_lock(store, name, lock_ms, &lock_fd);

    if (r < 0)
        return r;
    s = sandbox_new(store, name, lock_fd);
    if (!s)
        return -ENOMEM;
    r = sandbox_read(s, name);
    if (r == 0 && how == SANDBOX_RECONCILED)
        r = sandbox_reconcile(s);
    if (r == -ENOENT && s->record.state != SANDBOX_STARTING)
        r = err_origin(-EIO, "%s", err_text()); /* it is there, and some file of it is not */
    if (r == 0)
        *out = TAKE(s);
    return r;
}

int sandbox_require(const struct sandbox *s, enum sandbox_state state, const char *to)
{
    if (s->record.state == state)
        return 0;
    return err_origin(-EINVAL, "the sandbox %s is %s, expected it to be %s to %s", s->record.name,
                      sandbox_state_name(s->record.state), sandbox_state_name(state), to);
}

/* ---- its record ----------------------------------------------------------------------------------------------- */

int sandbox_commit(struct sandbox *s, enum sandbox_state to)
{
    unsigned from = s->record.state;
    int r;

    sandbox_record_step(&s->record, to);
    r = sandbox_record_write(&s->record, s->folder);
    if (r < 0)
        s->record.state = from;
    return r;
}

int sandbox_commit_dead(struct sandbox *s, const char *why)
{
    char text[256];
    int r;

    (void)snprintf(text, sizeof(text), "%s", why);
    for (char *c = text; *c != '\0'; c++) { /* it may be out of a log */
        if (!isprint((unsigned char)*c))
            *c = '?';
    }
    r = sandbox_record_set_text(&s->record.end, text);
    return r == 0 ? sandbox_commit(s, SANDBOX_DEAD) : r;
}

/* ---- its images ----------------------------------------------------------------------------------------------- */

int sandbox_drop_image(struct sandbox *s, unsigned generation)
{
    _cleanup_(store_closep) struct store *store = NULL;
    char name[STORE_NAME_MAX];
    int r = store_open(&store, s->store, false);

    return r == 0 ? store_forget_name(store, sandbox_image_name(s, generation, name)) : r;
}

void sandbox_collect(const struct sandbox *s)
{
    _cleanup_(store_closep) struct store *store = NULL;
    struct store_freed freed = {0};

    if (store_open(&store, s->store, false) < 0)
        return;
    for (unsigned i = 0; i < COLLECT_TRIES; i++) {
        freed.n_in_use = 0;
        if (store_gc(store, false, &freed) < 0 || freed.n_in_use == 0)
            return;
        clock_sleep_ns(COLLECT_NAP_NS);
    }
}

/* ---- its processes -------------------------------------------------------------------------------------------- */

struct instance_spec sandbox_serve_spec(const struct sandbox *s)
{
    return (struct instance_spec){
        .store = s->store,
        .image = s->record.image,
        .state_dir = s->record.state_dir,
    };
}

int sandbox_instance(struct sandbox *s, struct instance *out)
{
    struct sandbox_spec spec;
    char path[PATH_MAX];
    bool of_this_boot = false;
    int r = sandbox_path(s, path, sizeof(path), SANDBOX_VM);

    *out = (struct instance){0};
    if (r == 0)
        r = sandbox_record_is_of_this_boot(&s->record, &of_this_boot);
    if (r < 0 || !of_this_boot || !tree_exists(path))
        return r;
    r = sandbox_spec(s, &spec);
    return r == 0 ? instance_find(out, sandbox_driver(s), &spec.vmm, path, s->record.state_dir) : r;
}

int sandbox_end_instance(struct sandbox *s)
{
    struct instance in;
    int r = sandbox_instance(s, &in);

    if (r == 0)
        r = instance_end(&in, SANDBOX_DEADLINE_MS);
    instance_forget(&in);
    return r == 0 ? sandbox_leave_jail(s) : r;
}

const struct vmm_driver *sandbox_driver(const struct sandbox *s)
{
    return vmm_driver_find(template_vmm_words[s->origin.vmm]);
}

int sandbox_vm(struct sandbox *s, struct vmm **out)
{
    struct instance in = {0};
    int r = sandbox_require(s, SANDBOX_RUNNING, "ask it anything");

    if (r == 0)
        r = sandbox_instance(s, &in);
    if (r < 0)
        return r;
    *out = TAKE(in.vmm);
    instance_forget(&in);
    return *out ? 0 : err_origin(-ESRCH, "the VMM of the sandbox %s has ended", s->record.name);
}

/* ---- files that are left behind ------------------------------------------------------------------------------- */

int sandbox_drop_paused(struct sandbox *s, unsigned generation)
{
    char path[PATH_MAX];
    int r = sandbox_paused_path(s, path, sizeof(path), generation, true);

    if (r == 0)
        r = tree_remove(path);
    if (r == 0)
        r = sandbox_paused_path(s, path, sizeof(path), generation, false);
    return r == 0 ? tree_remove(path) : r;
}

/* keep_log() - @name goes from vm/ to logs/; one that is not there is no loss */
static void keep_log(const char *vm, const char *logs, const char *name)
{
    char from[PATH_MAX];
    char to[PATH_MAX];

    if (tree_path(from, sizeof(from), vm, name) == 0 && tree_path(to, sizeof(to), logs, name) == 0)
        (void)rename(from, to);
}

int sandbox_drop_vm(struct sandbox *s)
{
    static const char *const kept[] = {VMM_FILE_CONSOLE, VMM_FILE_LOG, INSTANCE_FILE_PAGER_LOG};
    char vm[PATH_MAX];
    char logs[PATH_MAX];
    int r = sandbox_path(s, vm, sizeof(vm), SANDBOX_VM);

    if (r == 0)
        r = sandbox_path(s, logs, sizeof(logs), SANDBOX_LOGS);
    if (r < 0 || !tree_exists(vm))
        return r;
    if (folder_make(s->folder, SANDBOX_LOGS) == 0) {
        for (size_t i = 0; i < ARRAY_LEN(kept); i++)
            keep_log(vm, logs, kept[i]);
    }
    r = sandbox_leave_jail(s);
    return r == 0 ? tree_remove(vm) : r;
}
