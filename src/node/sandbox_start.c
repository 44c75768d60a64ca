/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox_start.c - a VM starts in a folder that is made for it
 *
 * vm/ is made anew each time, so what somebody may still have open of an earlier one is out of the way: a keeper that has not
 * heard of its starter's death finds no folder to write into, and gives up. It gets copies of what the VM writes to (rootfs,
 * vmstate) and links to what it only reads.
 */

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "node/sandbox_private.h"
#include "node/tree.h"

#define NAME_TRIES     64u
#define RECORD_SECONDS 2u /* after the first fault: what a guest touches to go on */

/* ---- the folder of a VM --------------------------------------------------------------------------------------- */

/* put_boot_files() - what a VM was booted with: some VMMs want it again */
static int put_boot_files(const struct template *t, const char *from, const char *to)
{
    int r = tree_put_file(tree_link_file, from, to, VMM_FILE_KERNEL);

    if (r == 0 && t->has_initrd)
        r = tree_put_file(tree_link_file, from, to, VMM_FILE_INITRD);
    return r;
}

/* put_copy() - of a file that is the VMM's own from now on */
static int put_copy(const char *from, const struct vmm *vmm, const char *name)
{
    int r = tree_put_file(tree_copy_file, from, vmm_root(vmm), name);

    return r == 0 ? vmm_give(vmm, name) : r;
}

/* may_link() - a disk that is only read is shared, if who reads it may: templates of old have disks that only their owner may read */
static bool may_link(const struct sandbox *s, const char *from)
{
    char path[PATH_MAX];
    struct stat st;

    if (!s->origin.rootfs_read_only || !s->record.jail.given)
        return s->origin.rootfs_read_only;
    return snprintf(path, sizeof(path), "%s/" VMM_FILE_ROOTFS, from) < (int)sizeof(path) &&
           stat(path, &st) == 0 && (st.st_mode & S_IROTH) != 0;
}

/* put_files() - what the VMM finds in its root; one in a jail boots nothing, so it needs nothing to boot */
static int put_files(struct sandbox *s, const char *from, const struct vmm *vmm)
{
    int r = 0;

    if (!s->record.jail.given)
        r = put_boot_files(&s->origin, s->folder, vmm_root(vmm));
    if (r == 0 && s->origin.has_rootfs)
        r = may_link(s, from) ? tree_put_file(tree_link_file, from, vmm_root(vmm), VMM_FILE_ROOTFS)
                              : put_copy(from, vmm, VMM_FILE_ROOTFS);
    return r == 0 ? put_copy(from, vmm, VMM_FILE_STATE) : r;
}

static int make_vm(struct sandbox *s, const struct sandbox_spec *spec, const char *from, char *vm,
                   size_t len)
{
    _cleanup_(vmm_freep) struct vmm *vmm = NULL;
    int r = sandbox_drop_vm(s);

    if (r == 0)
        r = sandbox_path(s, vm, len, SANDBOX_VM);
    if (r == 0 && mkdir(vm, 0700) < 0)
        r = err_origin_errno(-errno, "cannot make the folder %s", vm);
    if (r == 0)
        r = sandbox_make_jail(spec);
    if (r == 0)
        r = vmm_new(&vmm, sandbox_driver(s), &spec->vmm, vm);
    return r == 0 ? put_files(s, from, vmm) : r;
}

int sandbox_start(struct sandbox *s, const char *from, unsigned deadline_ms)
{
    struct instance_spec serve = sandbox_serve_spec(s);
    struct sandbox_spec spec;
    struct instance in = {0};
    char record[PATH_MAX];
    char vm[PATH_MAX];
    int r = sandbox_spec(s, &spec);

    if (r == 0)
        r = make_vm(s, &spec, from, vm, sizeof(vm));
    if (r == 0)
        r = sandbox_path(s, record, sizeof(record), SANDBOX_MISSED);
    serve.record = record;
    serve.record_missed = true;
    serve.record_seconds = RECORD_SECONDS;
    if (r == 0)
        r = instance_load(&in, sandbox_driver(s), &spec.vmm, vm, &serve, true, deadline_ms);
    instance_forget(&in);
    return r;
}

/* ---- a new one ------------------------------------------------------------------------------------------------ */

/* fill_folder() - the record and what it was made from */
static int fill_folder(const struct sandbox_record *record, const struct template *t,
                       const char *from, const char *folder)
{
    struct sandbox_record own = *record; /* boot_id is the only text that is written */
    int r;

    own.boot_id = NULL;
    r = tree_put_file(tree_link_file, from, folder, TEMPLATE_RECORD);
    if (r == 0)
        r = put_boot_files(t, from, folder);
    if (r == 0)
        r = sandbox_record_write(&own, folder);
    free(own.boot_id);
    return r;
}

/* create() - in its place, locked. Return: 0; -EEXIST with a text: there is one of that name; others; with a text */
static int create(struct sandbox **out, const char *store, struct sandbox_record *record,
                  const struct template *t, const char *from)
{
    _cleanup_(sandbox_closep) struct sandbox *s = NULL;
    struct folder_new folder = {.fd = -1};
    struct err_kept e;
    char parent[PATH_MAX];
    int lock_fd = -1;
    int r = tree_path(parent, sizeof(parent), store, SANDBOXES_FOLDER);

    if (r == 0 && record->jail.given)
        r = sandbox_jail_set_id(&record->jail, record->name);
    if (r == 0)
        r = folder_new_init(&folder, parent, record->name);
    if (r == -EEXIST)
        return err_origin(-EEXIST, "there is a sandbox %s in the store %s", record->name, store);
    if (r < 0)
        return r;
    r = fill_folder(record, t, from, folder.path);
    if (r == 0)
        r = folder_new_place(&folder);
    if (r == -EEXIST)
        r = err_origin(-EEXIST, "there is a sandbox %s in the store %s", record->name, store);
    if (r == 0)
        lock_fd = TAKE_FD(folder.fd);
    folder_new_deinit(&folder);
    if (r < 0)
        return r;
    s = sandbox_new(store, record->name, lock_fd);
    r = s ? sandbox_read(s, record->name) : -ENOMEM;
    if (r == 0) {
        *out = TAKE(s);
        return 0;
    }
    /* Nothing lives in it yet. Without memory for it it stays, for who looks at it next. */
    e = err_keep(r);
    return err_tell(&e, s ? folder_remove(parent, record->name, s->lock_fd) : 0);
}

/* invent_name() - TEMPLATE-1f3c, or with more digits after some tries. A template's name may have what a sandbox's may not */
static int invent_name(char **out, const char *of, unsigned tries)
{
    unsigned digits = tries < NAME_TRIES / 2 ? 4 : 8;
    uint32_t random = 0;
    char stem[SANDBOX_NAME_MAX - 8];
    char name[SANDBOX_NAME_MAX + 1];

    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return err_origin_errno(-errno, "cannot invent a name");
    while (*of != '\0' && !isalnum((unsigned char)*of))
        of++;
    (void)snprintf(stem, sizeof(stem), "%s", *of != '\0' ? of : "sandbox");
    for (char *c = stem; *c != '\0'; c++) {
        if (*c == '.')
            *c = '-';
    }
    (void)snprintf(name, sizeof(name), "%s-%0*x", stem, (int)digits,
                   digits == 4 ? random & 0xffffu : random);
    return sandbox_record_set_text(out, name);
}

int sandbox_create(struct sandbox **out, const char *store, struct sandbox_record *record,
                   const struct template *t, const char *from, const char *name)
{
    int r = folder_make(store, SANDBOXES_FOLDER);

    if (r == 0)
        r = sandbox_sweep(store);
    if (r == 0 && name)
        r = sandbox_name_check(name);
    if (r == 0 && name)
        r = sandbox_record_set_text(&record->name, name);
    if (r < 0)
        return r;
    record->state = SANDBOX_STARTING;
    record->created_ms = record->changed_ms = clock_wall_ns() / NS_PER_MS;
    if (name)
        return create(out, store, record, t, from);
    for (unsigned i = 0; i < NAME_TRIES; i++) {
        r = invent_name(&record->name, record->template_name, i);
        if (r == 0)
            r = create(out, store, record, t, from);
        if (r != -EEXIST)
            return r;
    }
    return r;
}

/* make_record() - of a sandbox of @t */
static int make_record(struct sandbox_record *record, const struct template *t,
                       const struct sandbox_wishes *wishes)
{
    char state_dir[PATH_MAX];
    int r = sandbox_record_set_text(&record->template_name, t->name);

    if (r == 0)
        r = sandbox_record_set_text(&record->image, t->image);
    if (r == 0)
        r = sandbox_record_set_text(&record->base, t->image);
    if (r == 0 && wishes->jail)
        r = sandbox_jail_copy(&record->jail, wishes->jail);
    if (r < 0 || !wishes->state_dir)
        return r;
    if (!realpath(wishes->state_dir, state_dir))
        return err_origin_errno(-errno, "cannot find the state directory %s", wishes->state_dir);
    return sandbox_record_set_text(&record->state_dir, state_dir);
}

/* ---- may it run here? ------------------------------------------------------------------------------------------- */

/* refuse() - all that is against it, in one line. @r: of looking for it. @why_not: (take) */
static int refuse(int r, struct reasons *why_not, const char *kind, const char *name)
{
    char text[400] = "";

    for (unsigned i = 0; i < why_not->n; i++) {
        size_t len = strlen(text);

        (void)snprintf(text + len, sizeof(text) - len, "%s%s", i > 0 ? "; " : "",
                       why_not->lines[i]);
    }
    if (r == 0 && why_not->n > 0)
        r = err_origin(-ENOTSUP, "%s %s cannot be resumed here: %s", kind, name, text);
    reasons_deinit(why_not);
    return r;
}

static int check_template(const struct template *t, const char *store)
{
    struct reasons why_not = {0};
    int r = template_check_here(t, store, &why_not);

    return refuse(r, &why_not, "the template", t->name);
}

/* check_sandbox() - it has all files itself; the host and the VMM may be other ones than when it was paused */
static int check_sandbox(const struct sandbox *s)
{
    struct reasons why_not = {0};
    int r = sandbox_check_jail(&s->record.jail, &s->origin);

    if (r == 0)
        r = template_check_host(&s->origin, &why_not);
    return refuse(r, &why_not, "the sandbox", s->record.name);
}

/* ---- run ------------------------------------------------------------------------------------------------------ */

/* run() - @t is held and can be resumed here */
static int run(struct sandbox **out, const char *store, const struct template *t, const char *from,
               const struct sandbox_wishes *wishes)
{
    struct sandbox_record record = {0};
    _cleanup_(sandbox_closep) struct sandbox *s = NULL;
    struct err_kept e;
    int r = make_record(&record, t, wishes);

    if (r == 0)
        r = sandbox_create(&s, store, &record, t, from, wishes->name);
    sandbox_record_deinit(&record);
    if (!s)
        return r;
    if (r == 0)
        r = sandbox_start(s, from, wishes->deadline_ms);
    if (r == 0)
        r = sandbox_commit(s, SANDBOX_RUNNING);
    if (r == 0) {
        *out = TAKE(s);
        return 0;
    }
    e = err_keep(r);
    return err_tell(&e, sandbox_erase(s));
}

int sandbox_run(struct sandbox **out, const char *store, const char *template_name,
                const struct sandbox_wishes *wishes)
{
    _cleanup_(template_deinit) struct template t = {0};
    char *folder = template_folder(store, template_name);
    _cleanup_fd_ int held = -1;
    int r = folder ? store_check_name(template_name)
                   : err_origin(-ENOMEM, "no memory for the template %s", template_name);

    if (r == 0)
        r = folder_lock(folder, FOLDER_SHARED, TEMPLATE_LOCK_MS, &held);
    if (r == -ENOENT)
        r = err_origin(-ENOENT, "no template %s in the store %s", template_name, store);
    if (r == 0) /* held before: another one may have come into its place */
        r = template_load(&t, store, template_name);
    if (r == 0)
        r = sandbox_check_jail(wishes->jail, &t);
    if (r == 0)
        r = check_template(&t, store);
    if (r == 0)
        r = run(out, store, &t, folder, wishes);
    free(folder);
    return r;
}

/* ---- resume --------------------------------------------------------------------------------------------------- */

/* resume() - the record says `resuming` */
static int resume(struct sandbox *s, unsigned deadline_ms)
{
    struct instance none = {0}; /* a VM that could not be loaded is gone, with its pager */
    char from[PATH_MAX];
    struct err_kept e;
    int r = sandbox_paused_path(s, from, sizeof(from), s->record.generation, false);

    if (r == 0)
        r = sandbox_start(s, from, deadline_ms);
    if (r == 0) {
        r = sandbox_commit(s, SANDBOX_RUNNING);
        if (r == 0)
            return 0;
        e = err_keep(r);
        r = sandbox_end_instance(s);
        if (r < 0)
            return err_tell(&e, r);
    } else {
        e = err_keep(r);
    }
    return err_tell(&e, sandbox_back_to_paused(s, &none));
}

int sandbox_resume(struct sandbox *s, unsigned deadline_ms)
{
    const struct sandbox_record *record = &s->record;
    int r;

    if (record->state == SANDBOX_DEAD && record->generation == 0)
        return err_origin(-EINVAL,
                          "the sandbox %s is dead and was never paused: there is nothing to go "
                          "back to",
                          record->name);
    if (record->state != SANDBOX_DEAD) {
        r = sandbox_require(s, SANDBOX_PAUSED, "resume it");
        if (r < 0)
            return r;
    }
    r = sandbox_end_instance(s); /* of a dead one its pager may be about to end */
    if (r == 0)
        r = check_sandbox(s);
    if (r == 0)
        r = sandbox_commit(s, SANDBOX_RESUMING);
    return r == 0 ? resume(s, deadline_ms) : r;
}
