/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template_build.c - the order in which a template is made, and what becomes of it when it fails
 *
 * All files are made in one folder under a hidden name (folder.h), the VMs live in folders inside it. So one removal takes all
 * away, once no process lives there any more: a VMM is killed first, then its pager ends.
 *
 *     .NAME.PID.0/boot/      the VM that is booted; then the memory that is packed
 *     .NAME.PID.0/store/     a store with a first image, for the pagers of the restores
 *     .NAME.PID.0/record/    a VM that is restored
 *
 * In the end the record is written, the image gets its name in the store, and the folder its own, once these three are removed. If there
 * is an end between the two, the record in the hidden folder says which image it was.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "image/store.h"
#include "image/workingset.h"
#include "node/instance.h"
#include "node/places.h"
#include "node/template_build_private.h"
#include "node/tree.h"

#define END_MS 10000u
#define NAP_NS (20 * NS_PER_MS)

/* ---- what the parts share ------------------------------------------------------------------------------------- */

static int stopped(void *ctx)
{
    const struct template_watch *watch = ctx;

    return watch->stopped ? watch->stopped(watch->ctx) : 0;
}

int build_step(const struct build *b, const char *what)
{
    if (b->watch->step)
        b->watch->step(b->watch->ctx, what);
    return stopped((void *)b->watch);
}

struct console_wait build_wait(const struct build *b, unsigned timeout_ms)
{
    return (struct console_wait){
        .timeout_ms = timeout_ms, .stopped = stopped, .ctx = (void *)b->watch};
}

int build_nap(const struct build *b)
{
    clock_sleep_ns(NAP_NS);
    return stopped((void *)b->watch);
}

int build_path(const struct build *b, const char *name, char path[PATH_MAX])
{
    return tree_path(path, PATH_MAX, b->folder.path, name);
}

/* ---- what dead ones have left --------------------------------------------------------------------------------- */

/* drop_name() - the name of an image that was to be a template's */
static void drop_name(const char *path, const char *folder)
{
    _cleanup_(store_closep) struct store *store = NULL;
    const char *name = strrchr(folder, '/');
    char record[PATH_MAX];
    struct template t = {0};
    struct store_list list = {0};
    char id[IMAGE_ID_TEXT];

    if (!name || tree_path(record, sizeof(record), folder, TEMPLATE_RECORD) < 0 ||
        !tree_exists(record))
        return;
    name += 2; /* "/." */
    if (record_read(&template_form, record, &t) == 0 && store_open(&store, path, false) == 0 &&
        store_list(store, &list) == 0) {
        for (size_t i = 0; i < list.n; i++) {
            const char *entry = list.entries[i].name;

            if (entry && strncmp(entry, name, strlen(entry)) == 0 && name[strlen(entry)] == '.' &&
                strcmp(image_id_text(list.entries[i].id, id), t.image) == 0)
                (void)store_remove(store, entry);
        }
        store_list_deinit(&list);
    }
    template_deinit(&t);
}

int build_end_leftovers(void *store, const char *path)
{
    static const char *const folders[] = {BUILD_FOLDER_BOOT, BUILD_FOLDER_RESTORE};
    char folder[PATH_MAX];
    int r = 0;

    for (size_t i = 0; i < ARRAY_LEN(folders) && r == 0; i++) {
        r = tree_path(folder, sizeof(folder), path, folders[i]);
        if (r == 0)
            r = instance_end_by_files(folder, END_MS, END_MS);
    }
    if (r == 0)
        drop_name(store, path);
    return r;
}

/* ---- the steps ------------------------------------------------------------------------------------------------ */

/* sweep() - first of all: one of them may have the name that is wanted */
static int sweep(struct build *b)
{
    char parent[PATH_MAX];
    int r = tree_path(parent, sizeof(parent), b->store, TEMPLATES_FOLDER);

    return r == 0 ? folder_sweep(parent, build_end_leftovers, b->store) : r;
}

/* make_places() - the store and the folder in which it all happens */
static int make_places(struct build *b)
{
    _cleanup_(store_closep) struct store *store = NULL;
    char parent[PATH_MAX];
    char given[PATH_MAX];
    int r = store_open(&store, b->store, true);

    (void)snprintf(given, sizeof(given), "%s", b->store);
    if (r == 0 && !realpath(given, b->store))
        r = err_origin_errno(-errno, "cannot find the store %s", given);
    if (r == 0)
        r = tree_path(parent, sizeof(parent), b->store, TEMPLATES_FOLDER);
    if (r == 0)
        r = folder_make(b->store, TEMPLATES_FOLDER);
    if (r == 0)
        r = folder_new_init(&b->folder, parent, b->name);
    if (r == 0)
        r = build_path(b, BUILD_FOLDER_BOOT, b->boot);
    if (r == 0 && mkdir(b->boot, 0700) < 0)
        r = err_origin_errno(-errno, "cannot make %s", b->boot);
    return r;
}

/* bring() - a copy of a file of the user's, who may change it later */
static int bring(const struct build *b, const char *from, const char *name, mode_t mode)
{
    char *real = from ? realpath(from, NULL) : NULL; /* through links */
    char to[PATH_MAX];
    int r = from && !real ? err_origin_errno(-errno, "cannot find %s", from) : 0;

    if (r == 0 && real)
        r = tree_path(to, sizeof(to), b->boot, name);
    if (r == 0 && real)
        r = tree_copy_file(real, to);
    if (r == 0 && real && chmod(to, mode) < 0)
        r = err_origin_errno(-errno, "cannot make %s readable", to);
    free(real);
    return r;
}

/* end_vm() - the one that was booted */
static int end_vm(struct build *b)
{
    int r = b->vm ? vmm_kill(b->vm, END_MS) : 0;

    b->stuck |= r < 0;
    b->vm = vmm_free(b->vm);
    return r;
}

static int start(struct build *b)
{
    int r = vmm_new(&b->vm, b->driver, &b->spec, b->boot);

    return r == 0 ? vmm_start(b->vm, false, b->timeout_ms) : r;
}

/* kvm_was_our_idea() - nobody said what is to run the guest, and there is a /dev/kvm */
static bool kvm_was_our_idea(const struct build *b)
{
    return !b->recipe->accel && b->t.accel && strcmp(b->t.accel, "kvm") == 0;
}

/* start_emulated() - a /dev/kvm that can be opened need not be one that QEMU can use */
static int start_emulated(struct build *b)
{
    int r = end_vm(b);

    if (r == 0)
        r = build_step(b, "starting the VMM without KVM: with it, it ended");
    if (r < 0)
        return r;
    free(b->t.accel);
    b->t.accel = strdup("tcg");
    if (!b->t.accel)
        return err_origin_errno(-ENOMEM, "cannot start the VMM");
    b->spec = template_spec(&b->t);
    return start(b);
}

static int boot(struct build *b)
{
    /* One that is only read is shared by all sandboxes, and those in jails are of other users. The folder is ours alone. */
    mode_t disk = b->t.rootfs_read_only ? 0444 : 0600;
    int r = build_step(b, "copying its files");

    if (r == 0)
        r = bring(b, b->recipe->kernel, VMM_FILE_KERNEL, 0400);
    if (r == 0)
        r = bring(b, b->recipe->initrd, VMM_FILE_INITRD, 0400);
    if (r == 0)
        r = bring(b, b->recipe->rootfs, VMM_FILE_ROOTFS, disk);
    if (r == 0)
        r = build_step(b, "starting the VMM");
    if (r == 0)
        r = start(b);
    if (r < 0 && kvm_was_our_idea(b) && b->vm && vmm_has_ended(b->vm))
        r = start_emulated(b);
    return r == 0 ? vmm_boot(b->vm, b->timeout_ms) : r;
}

/* keep() - a file of the VM becomes one of the template's */
static int keep(const struct build *b, const char *name)
{
    char from[PATH_MAX];
    char to[PATH_MAX];
    int r = tree_path(from, sizeof(from), b->boot, name);

    if (r == 0)
        r = build_path(b, name, to);
    if (r == 0 && rename(from, to) < 0)
        r = err_origin_errno(-errno, "cannot move %s", from);
    return r;
}

static int take_snapshot(struct build *b)
{
    int r = build_step(b, "taking the snapshot");

    if (r == 0)
        r = vmm_pause(b->vm, b->timeout_ms);
    if (r == 0)
        r = vmm_snapshot(b->vm, true, b->timeout_ms);
    if (r == 0)
        r = end_vm(b);
    if (r == 0)
        r = keep(b, VMM_FILE_STATE);
    if (r == 0)
        r = keep(b, VMM_FILE_KERNEL);
    if (r == 0 && b->t.has_initrd)
        r = keep(b, VMM_FILE_INITRD);
    if (r == 0 && b->t.has_rootfs)
        r = keep(b, VMM_FILE_ROOTFS);
    return r;
}

/* pack() - the memory of the snapshot, into a store. @before_name: see struct pack_options; it gets @b */
static int pack(struct build *b, const char *path, const char *name, const struct workingset *hot,
                int (*before_name)(void *ctx, const struct pack_result *done))
{
    struct pack_result done = {0};
    _cleanup_(store_closep) struct store *store = NULL;
    struct pack_options options = pack_options_default();
    char memory[PATH_MAX];
    int r = tree_path(memory, sizeof(memory), b->boot, VMM_FILE_MEMORY);

    options.name = name;
    options.hot = hot;
    options.before_name = before_name;
    options.before_name_ctx = b;
    options.job = b->watch->job;
    if (r == 0)
        r = store_open(&store, path, true);
    if (r == 0)
        r = store_hold(store);
    return r == 0 ? pack_memory(store, memory, &options, &done) : r;
}

/* find_working_set() - by restores from an image of its own. @out: (give) */
static int find_working_set(struct build *b, struct workingset **out)
{
    char store[PATH_MAX];
    int r = build_step(b, "packing its memory");

    if (r == 0)
        r = build_path(b, BUILD_FOLDER_STORE, store);
    if (r == 0)
        r = pack(b, store, BUILD_IMAGE, NULL, NULL);
    if (r == 0)
        r = build_record(b, out);
    return r == 0 ? tree_remove(store) : r;
}

/* forget_image() - its name, if that leads to it; the first error is what is told */
static void forget_image(const struct build *b)
{
    _cleanup_(store_closep) struct store *store = NULL;
    const struct err_kept e = err_keep(-EIO);
    uint8_t id[IMAGE_ID_BYTES];
    char text[IMAGE_ID_TEXT];

    if (b->t.image && store_open(&store, b->store, false) == 0 &&
        store_find_name(store, b->name, id) == 0 &&
        strcmp(image_id_text(id, text), b->t.image) == 0)
        (void)store_remove(store, b->name);
    (void)err_tell(&e, 0);
}

/* save() - the record, which says to whoever finds it what the image is whose name may be there */
static int save(void *ctx, const struct pack_result *done)
{
    struct build *b = ctx;
    char text[IMAGE_ID_TEXT];

    b->t.image = strdup(image_id_text(done->id, text));
    b->t.image_bytes = done->n_pages * IMAGE_PAGE;
    b->t.has_working_set = done->n_hot > 0;
    return b->t.image ? template_save(&b->t, b->folder.path)
                      : err_origin_errno(-ENOMEM, "cannot name the template");
}

/* give_names() - to the image, then to the folder */
static int give_names(struct build *b, const struct workingset *hot)
{
    int r = build_step(b, "packing what it touched to the front");

    if (r == 0)
        r = pack(b, b->store, b->name, hot, save);
    if (r == 0)
        r = tree_remove(b->boot);
    if (r == 0)
        r = folder_new_place(&b->folder);
    if (r < 0 && !b->folder.placed)
        forget_image(b);
    return r;
}

static int build(struct build *b)
{
    struct workingset *hot = NULL;
    int r = sweep(b);

    if (r == 0)
        r = build_plan(b);
    if (r == 0)
        r = make_places(b);
    if (r == 0)
        r = boot(b);
    if (r == 0)
        r = build_guest(b);
    if (r == 0)
        r = take_snapshot(b);
    if (r == 0)
        r = find_working_set(b, &hot);
    if (r == 0)
        r = give_names(b, hot);
    (void)workingset_free(hot);
    return r;
}

int template_build(const struct template_recipe *recipe, const char *store, const char *name,
                   const struct template_watch *watch)
{
    struct build b = {
        .recipe = recipe,
        .watch = watch,
        .name = name,
        .timeout_ms = recipe->timeout_s * 1000,
        .folder = {.fd = -1},
    };
    struct err_kept e;
    int r;

    if (snprintf(b.store, sizeof(b.store), "%s", store) >= (int)sizeof(b.store))
        return err_origin(-ENAMETOOLONG, "the folder name %s is too long", store);
    r = build(&b);
    e = err_keep(r);
    (void)end_vm(&b);
    if (b.stuck)
        folder_new_leave(&b.folder);
    folder_new_deinit(&b.folder);
    template_deinit(&b.t);
    return r < 0 ? err_tell(&e, 0) : 0;
}
