/* SPDX-License-Identifier: Apache-2.0 */
/* template_plan.c - what is known of a template before anything is started, and what is refused then */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "image/store.h"
#include "node/places.h"
#include "node/template_build_private.h"
#include "node/tree.h"

/* take() - a copy of @text, which may be NULL */
static int take(char **out, const char *text)
{
    *out = text ? strdup(text) : NULL;
    return text && !*out ? err_origin_errno(-ENOMEM, "cannot plan a template") : 0;
}

/* take_program() - its name if that is looked for on PATH, else where it is: templates are used from other folders */
static int take_program(char **out, const char *program)
{
    char *here;
    int r = 0;

    if (!program || program[0] == '/' || !strchr(program, '/'))
        return take(out, program);
    here = getcwd(NULL, 0);
    if (!here || asprintf(out, "%s/%s", here, program) < 0)
        r = err_origin_errno(-errno, "cannot tell where %s is", program);
    free(here);
    return r;
}

/*
 * find_features() - the VMM's version, and what becomes of the choices with it
 *
 * A wish that the named version cannot fulfil is refused before anybody looks for the program; without a name and without a
 * program it is the version that is meant where none is named.
 */
static int find_features(struct build *b, struct thaw_features *out)
{
    const struct template_recipe *recipe = b->recipe;
    bool named = template_recipe_vmm(recipe) == THAW_VMM_FIRECRACKER;
    int r = recipe->firecracker_version ? template_recipe_features(recipe, NULL, out) : 0;

    if (r < 0)
        return r;
    /* First the stamp: if the file changes before it is asked, then nobody will find the file of the stamp again. */
    r = vmm_program_stamp(b->driver, recipe->program, &b->t.stamp);
    if (r == 0)
        r = vmm_program_version(b->driver, recipe->program, &b->t.vmm_version);
    if (r == -ENOENT && named && template_recipe_features(recipe, NULL, out) == -EOPNOTSUPP)
        return -EOPNOTSUPP;
    if (r == -ENOENT) /* the text is the one of the wish that was looked at */
        return vmm_program_version(b->driver, recipe->program, &b->t.vmm_version);
    return r == 0 ? template_recipe_features(recipe, b->t.vmm_version, out) : r;
}

static int take_devices(struct template *t)
{
    if (asprintf(&t->devices, "serial balloon%s%s", t->has_rootfs ? " disk" : "",
                 t->vsock ? " vsock" : "") >= 0)
        return 0;
    t->devices = NULL;
    return err_origin_errno(-ENOMEM, "cannot plan a template");
}

/* take_recipe() - what is as the user has said it */
static int take_recipe(struct build *b)
{
    const struct template_recipe *recipe = b->recipe;
    struct template *t = &b->t;
    bool qemu = t->vmm == THAW_VMM_QEMU;
    const char *accel = recipe->accel ? recipe->accel : (host_has_kvm() ? "kvm" : "tcg");
    int r = take_program(&t->program, recipe->program);

    t->memory_mib = recipe->memory_mib;
    t->n_vcpus = recipe->n_vcpus;
    t->huge_pages = recipe->huge_pages;
    t->has_initrd = recipe->initrd != NULL;
    t->has_rootfs = recipe->rootfs != NULL;
    t->rootfs_read_only = recipe->rootfs_read_only;
    t->has_shell = !recipe->no_shell;
    t->vsock = recipe->vsock || recipe->ready_vsock > 0;
    t->ready_vsock = recipe->ready_vsock;
    t->built_s = clock_wall_ns() / NS_PER_S;
    if (r == 0 && qemu)
        r = take(&t->machine, recipe->machine ? recipe->machine : "pc");
    if (r == 0 && qemu)
        r = take(&t->accel, accel);
    if (r == 0)
        r = take(&t->cpu, recipe->cpu);
    if (r == 0)
        r = take(&t->cmdline, recipe->cmdline);
    if (r == 0)
        r = take(&t->ready, recipe->ready);
    if (r == 0)
        r = take(&t->start_cmd, recipe->start_cmd);
    if (r == 0)
        r = take_devices(t);
    return r;
}

static int check_readable(const char *what, const char *path)
{
    return path && access(path, R_OK) < 0 ? err_origin_errno(-errno, "%s %s", what, path) : 0;
}

/* check_host() - can it run here at all? */
static int check_host(const struct build *b)
{
    uint64_t free_pages = host_huge_pages_free();
    int r = check_readable("the kernel", b->recipe->kernel);

    if (r == 0)
        r = check_readable("the initrd", b->recipe->initrd);
    if (r == 0)
        r = check_readable("the rootfs", b->recipe->rootfs);
    if (r == 0 && b->t.huge_pages && free_pages < b->t.memory_mib / 2)
        r = err_origin(-ENOMEM,
                       "the guest's memory is %u pages of 2 MiB, %" PRIu64
                       " are free here (vm.nr_hugepages)",
                       b->t.memory_mib / 2, free_pages);
    return r;
}

/* check_name() - is it free, as far as the store is there? */
static int check_name(const struct build *b, const char *path)
{
    _cleanup_(store_closep) struct store *store = NULL;
    uint8_t id[IMAGE_ID_BYTES];
    char *folder;
    int r = store_check_name(b->name);

    if (r < 0)
        return r;
    folder = template_folder(path, b->name);
    if (!folder)
        return err_origin_errno(-ENOMEM, "cannot plan a template");
    if (tree_exists(folder))
        r = err_origin(-EEXIST, "there is a template %s in the store %s", b->name, path);
    free(folder);
    if (r == 0 && store_open(&store, path, false) == 0 && store_find_name(store, b->name, id) == 0)
        r = err_origin(-EEXIST, "there is an image %s in the store %s, and no template of it",
                       b->name, path);
    return r;
}

int build_plan(struct build *b)
{
    struct thaw_features features = {0};
    int r = template_recipe_check(b->recipe);

    if (r == 0)
        r = check_name(b, b->store);
    if (r < 0)
        return r;
    b->t.vmm = template_recipe_vmm(b->recipe);
    b->driver = vmm_driver_find(template_vmm_words[b->t.vmm]);
    if (!b->driver)
        return err_origin(-EOPNOTSUPP, "this thaw cannot drive %s", template_vmm_words[b->t.vmm]);
    r = find_features(b, &features);
    if (r == 0)
        r = take_recipe(b);
    if (r < 0)
        return r;
    b->t.free_page_reporting = (struct template_feature){b->recipe->free_page_reporting,
                                                         features.free_page_reporting != 0};
    b->t.free_page_hinting =
        (struct template_feature){b->recipe->free_page_hinting, features.free_page_hinting != 0};
    b->spec = template_spec(&b->t);
    r = vmm_driver_check(b->driver, &b->spec, b->t.vmm_version);
    if (r == 0)
        r = check_host(b);
    if (r == 0)
        r = vmm_snapshot_format(b->driver, &b->spec, &b->t.snapshot_format);
    return r == 0 ? host_facts_read(&b->t.host) : r;
}
