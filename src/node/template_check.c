/* SPDX-License-Identifier: Apache-2.0 */
/* template_check.c - can a template be resumed here? Every reason against it is looked for, so that all are known at once */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "image/store.h"
#include "node/template.h"

/* ---- the VMM -------------------------------------------------------------------------------------------------- */

/* is_same_program() - it is the file that the template was built with: what it says of itself is in the record */
static bool is_same_program(const struct template *t, const struct vmm_driver *driver)
{
    _cleanup_free_ char *stamp = NULL;

    return t->stamp && vmm_program_stamp(driver, t->program, &stamp) == 0 && stamp &&
           strcmp(stamp, t->stamp) == 0;
}

static int check_vmm(const struct template *t, struct reasons *why_not)
{
    const struct vmm_driver *driver = vmm_driver_find(template_vmm_words[t->vmm]);
    struct vmm_spec spec = template_spec(t);
    _cleanup_free_ char *version = NULL;
    _cleanup_free_ char *format = NULL;
    int r;

    if (!driver)
        return err_origin(-EINVAL, "there is no driver for %s", template_vmm_words[t->vmm]);
    if (is_same_program(t, driver))
        return 0;
    r = vmm_program_version(driver, spec.program, &version);
    if (r == 0)
        r = vmm_snapshot_format(driver, &spec, &format);
    if (r < 0)
        reasons_add(why_not, "%s", err_text());
    else
        template_compare_vmm(t, version, format, why_not);
    return 0;
}

/* ---- the host ------------------------------------------------------------------------------------------------- */

static bool is_emulated(const struct template *t)
{
    return t->accel && strcmp(t->accel, "tcg") == 0;
}

static int check_host(const struct template *t, struct reasons *why_not)
{
    struct host_facts here;
    uint64_t wanted = t->huge_pages ? t->memory_mib / 2 : 0;
    uint64_t free_pages = host_huge_pages_free();
    int r = host_facts_read(&here);

    if (r < 0)
        return r;
    host_facts_compare(&t->host, &here, is_emulated(t), why_not);
    host_facts_deinit(&here);
    if (!is_emulated(t) && !host_has_kvm())
        reasons_add(why_not, "it needs KVM, and /dev/kvm cannot be used here");
    if (wanted > free_pages)
        reasons_add(why_not,
                    "its memory is %" PRIu64 " pages of 2 MiB, %" PRIu64
                    " are free here (vm.nr_hugepages)",
                    wanted, free_pages);
    return 0;
}

/* ---- the files ------------------------------------------------------------------------------------------------ */

static void check_file(const char *folder, const char *file, struct reasons *why_not)
{
    char *path = NULL;

    if (asprintf(&path, "%s/%s", folder, file) < 0)
        return;
    if (access(path, R_OK) < 0)
        reasons_add(why_not, "%s: %s", path, strerror(errno));
    free(path);
}

static int check_files(const struct template *t, const char *store, struct reasons *why_not)
{
    char *folder = template_folder(store, t->name);

    if (!folder)
        return err_origin_errno(-ENOMEM, "cannot look at the template %s", t->name);
    check_file(folder, VMM_FILE_STATE, why_not);
    check_file(folder, VMM_FILE_KERNEL, why_not);
    if (t->has_initrd)
        check_file(folder, VMM_FILE_INITRD, why_not);
    if (t->has_rootfs)
        check_file(folder, VMM_FILE_ROOTFS, why_not);
    free(folder);
    return 0;
}

static void check_image(const struct template *t, const char *path, struct reasons *why_not)
{
    _cleanup_(store_closep) struct store *store = NULL;
    _cleanup_(image_closep) struct image *image = NULL;

    if (store_open(&store, path, false) < 0 || image_open(&image, store, t->image) < 0)
        reasons_add(why_not, "%s", err_text());
    else if (image->manifest->image_bytes != t->image_bytes)
        reasons_add(why_not, "its image has %" PRIu64 " bytes, expected %" PRIu64,
                    image->manifest->image_bytes, t->image_bytes);
}

int template_check_host(const struct template *t, struct reasons *why_not)
{
    int r = check_host(t, why_not);

    return r == 0 ? check_vmm(t, why_not) : r;
}

int template_check_here(const struct template *t, const char *store, struct reasons *why_not)
{
    int r = template_check_host(t, why_not);

    if (r == 0)
        r = check_files(t, store, why_not);
    if (r == 0)
        check_image(t, store, why_not);
    return r;
}
