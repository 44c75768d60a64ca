/* SPDX-License-Identifier: Apache-2.0 */
#include "node/template.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/fd.h"
#include "image/store.h"
#include "node/places.h"

const char *const template_vmm_words[] = {
    [THAW_VMM_FIRECRACKER] = "firecracker",
    [THAW_VMM_QEMU] = "qemu",
    NULL,
};

const char *const template_choice_words[] = {
    [THAW_CHOICE_AUTO] = "auto",
    [THAW_CHOICE_OFF] = "off",
    [THAW_CHOICE_ON] = "on",
    NULL,
};

#define AT(field) .offset = offsetof(struct template, field)

static const struct record_field feature_fields[] = {
    {.name = "asked",
     .type = RECORD_WORD,
     .offset = offsetof(struct template_feature, asked),
     .words = template_choice_words},
    {.name = "on", .type = RECORD_FLAG, .offset = offsetof(struct template_feature, on)},
    {.name = NULL},
};

static const struct record_field fields[] = {
    {.name = "vmm", .type = RECORD_WORD, AT(vmm), .words = template_vmm_words},
    {.name = "vmm_version", .type = RECORD_TEXT, AT(vmm_version), .max = 128},
    {.name = "snapshot_format", .type = RECORD_TEXT, AT(snapshot_format), .max = 128},
    {.name = "vmm_program", .type = RECORD_TEXT, AT(program), .optional = true},
    {.name = "vmm_stamp", .type = RECORD_TEXT, AT(stamp), .optional = true},
    {.name = "machine", .type = RECORD_TEXT, AT(machine), .optional = true, .max = 64},
    {.name = "accel", .type = RECORD_TEXT, AT(accel), .optional = true, .max = 64},
    {.name = "cpu", .type = RECORD_TEXT, AT(cpu), .optional = true, .max = 512},
    {.name = "cmdline", .type = RECORD_TEXT, AT(cmdline), .optional = true},
    {.name = "memory",
     .type = RECORD_NUMBER,
     AT(memory_mib),
     .min = VMM_MEMORY_MIB_MIN,
     .max = TEMPLATE_MEMORY_MIB_MAX},
    {.name = "vcpus", .type = RECORD_NUMBER, AT(n_vcpus), .min = 1, .max = TEMPLATE_VCPUS_MAX},
    {.name = "hugepages", .type = RECORD_FLAG, AT(huge_pages)},
    {.name = "initrd", .type = RECORD_FLAG, AT(has_initrd)},
    {.name = "rootfs", .type = RECORD_FLAG, AT(has_rootfs)},
    {.name = "rootfs_read_only", .type = RECORD_FLAG, AT(rootfs_read_only)},
    {.name = "free_page_reporting",
     .type = RECORD_PART,
     AT(free_page_reporting),
     .fields = feature_fields},
    {.name = "free_page_hinting",
     .type = RECORD_PART,
     AT(free_page_hinting),
     .fields = feature_fields},
    {.name = "ready", .type = RECORD_TEXT, AT(ready), .optional = true},
    {.name = "start_cmd", .type = RECORD_TEXT, AT(start_cmd), .optional = true},
    {.name = "shell", .type = RECORD_FLAG, AT(has_shell)},
    {.name = "vsock", .type = RECORD_FLAG, AT(vsock), .optional = true},
    {.name = "ready_vsock",
     .type = RECORD_NUMBER,
     AT(ready_vsock),
     .max = TEMPLATE_PORT_MAX,
     .optional = true},
    {.name = "devices", .type = RECORD_TEXT, AT(devices)},
    {.name = "image", .type = RECORD_TEXT, AT(image), .max = IMAGE_ID_TEXT - 1},
    {.name = "image_bytes", .type = RECORD_LONG, AT(image_bytes), .max = INT64_MAX},
    {.name = "working_set", .type = RECORD_FLAG, AT(has_working_set)},
    {.name = "built", .type = RECORD_LONG, AT(built_s), .max = INT64_MAX},
    {.name = "host", .type = RECORD_PART, AT(host), .fields = host_facts_fields},
    {.name = NULL},
};

const struct record_form template_form = {.kind = "template", .version = 1, .fields = fields};

/* ---- files ---------------------------------------------------------------------------------------------------- */

char *template_folder(const char *store, const char *name)
{
    char *path = NULL;

    return asprintf(&path, "%s/" TEMPLATES_FOLDER "/%s", store, name) < 0 ? NULL : path;
}

/* check_whole() - what the table cannot say */
static int check_whole(const struct template *t, const char *path)
{
    assert(t->image);
    if (!image_id_is_text(t->image))
        return err_origin(-EINVAL, "%s: image is '%s', expected the %d digits of an id", path,
                          t->image, IMAGE_ID_TEXT - 1);
    return 0;
}

int template_load(struct template *out, const char *store, const char *name)
{
    struct template t = {0};
    char *path = NULL;
    int r = store_check_name(name);

    if (r < 0)
        return r;
    t.name = strdup(name);
    if (!t.name || asprintf(&path, "%s/" TEMPLATES_FOLDER "/%s/" TEMPLATE_RECORD, store, name) < 0)
        r = err_origin_errno(-ENOMEM, "cannot read the template %s", name);
    if (r == 0)
        r = record_read(&template_form, path, &t);
    if (r == -ENOENT)
        r = err_origin(-ENOENT, "no template %s in the store %s", name, store);
    if (r == 0)
        r = check_whole(&t, path);
    free(path);
    if (r < 0)
        template_deinit(&t);
    else
        *out = t;
    return r;
}

int template_save(const struct template *t, const char *folder)
{
    char *path = NULL;
    int r;

    if (asprintf(&path, "%s/" TEMPLATE_RECORD, folder) < 0)
        return err_origin_errno(-ENOMEM, "cannot write the record of a template");
    r = record_write(&template_form, path, t);
    free(path);
    return r;
}

void template_deinit(struct template *t)
{
    record_deinit(&template_form, t);
    free(t->name);
    t->name = NULL;
}

int template_list(const char *store, struct folder_list *out)
{
    char *path = NULL;
    int r;

    if (asprintf(&path, "%s/" TEMPLATES_FOLDER, store) < 0)
        return err_origin_errno(-ENOMEM, "cannot list the templates of %s", store);
    r = folder_list(path, out);
    free(path);
    return r;
}

struct vmm_spec template_spec(const struct template *t)
{
    return (struct vmm_spec){
        .program = t->program,
        .machine = t->machine,
        .accel = t->accel,
        .cpu = t->cpu,
        .cmdline = t->cmdline,
        .has_initrd = t->has_initrd,
        .has_rootfs = t->has_rootfs,
        .rootfs_read_only = t->rootfs_read_only,
        .memory_mib = t->memory_mib,
        .n_vcpus = t->n_vcpus,
        .huge_pages = t->huge_pages,
        .vsock = t->vsock,
        .free_page_reporting = t->free_page_reporting.on,
        .free_page_hinting = t->free_page_hinting.on,
    };
}

/* ---- the VMM -------------------------------------------------------------------------------------------------- */

static const char *const titles[] = {
    [THAW_VMM_FIRECRACKER] = "Firecracker",
    [THAW_VMM_QEMU] = "QEMU",
};

/* loads() - Firecracker: the same first number, and the second one not older. Versions that cannot be read must be the same */
static bool loads(const char *then, const char *here)
{
    struct thaw_version a;
    struct thaw_version b;

    if (thaw_version_parse(&a, then) < 0 || thaw_version_parse(&b, here) < 0)
        return strcmp(then, here) == 0;
    return a.major == b.major && a.minor <= b.minor;
}

void template_compare_vmm(const struct template *t, const char *version, const char *format,
                          struct reasons *why_not)
{
    const char *title = titles[t->vmm];

    if (t->vmm == THAW_VMM_FIRECRACKER && !loads(t->vmm_version, version))
        reasons_add(why_not, "it was built with %s %s, %s here is %s", title, t->vmm_version, title,
                    version);
    if (t->vmm == THAW_VMM_FIRECRACKER ? !loads(t->snapshot_format, format)
                                       : strcmp(t->snapshot_format, format) != 0)
        reasons_add(why_not, "its snapshot has the format %s, %s %s here loads %s",
                    t->snapshot_format, title, version, format);
}

/* ---- removing ------------------------------------------------------------------------------------------------- */

/* is_of() - does the record of this sandbox name the template? One that cannot be read is not counted */
static bool is_of(const char *folder, const char *sandbox, const char *name)
{
    char *path = NULL;
    json_t *record = NULL;
    const char *of;
    bool found;

    if (asprintf(&path, "%s/%s/" SANDBOX_RECORD, folder, sandbox) < 0)
        return false;
    record = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    of = json_string_value(json_object_get(record, "template"));
    found = of && strcmp(of, name) == 0;
    json_decref(record);
    free(path);
    return found;
}

int template_users(const char *store, const char *name, struct folder_list *out)
{
    struct folder_list list;
    char *folder = NULL;
    size_t kept = 0;
    int r;

    if (asprintf(&folder, "%s/" SANDBOXES_FOLDER, store) < 0)
        return err_origin_errno(-ENOMEM, "cannot list the sandboxes of %s", store);
    r = folder_list(folder, &list);
    for (size_t i = 0; r == 0 && i < list.n; i++) {
        if (is_of(folder, list.names[i], name))
            list.names[kept++] = list.names[i];
        else
            free(list.names[i]);
    }
    free(folder);
    if (r == 0) {
        list.n = kept;
        *out = list;
    }
    return r;
}

static int check_unused(const char *store, const char *name)
{
    struct folder_list users = {0};
    int r = template_users(store, name, &users);

    if (r < 0)
        return r;
    if (users.n > 0)
        r = err_origin(-EBUSY, "the template %s has %zu sandboxes, such as %s: remove them first",
                       name, users.n, users.names[0]);
    folder_list_deinit(&users);
    return r;
}

/* remove_image() - the name, if it leads to the template's image */
static int remove_image(const char *path, const struct template *t)
{
    _cleanup_(store_closep) struct store *store = NULL;
    uint8_t id[IMAGE_ID_BYTES];
    char text[IMAGE_ID_TEXT];
    int r = store_open(&store, path, false);

    if (r == 0)
        r = store_find_name(store, t->name, id);
    if (r == 0 && strcmp(image_id_text(id, text), t->image) == 0)
        r = store_remove(store, t->name);
    return r == -ENOENT ? 0 : r;
}

int template_remove(const char *store, const char *name)
{
    struct template t = {0};
    _cleanup_fd_ int lock = -1;
    char *parent = NULL;
    char *folder = template_folder(store, name);
    int r = store_check_name(name);

    if (r == 0 && (!folder || asprintf(&parent, "%s/" TEMPLATES_FOLDER, store) < 0))
        r = err_origin_errno(-ENOMEM, "cannot remove the template %s", name);
    if (r == 0)
        r = folder_lock(folder, FOLDER_ALONE, TEMPLATE_LOCK_MS, &lock);
    if (r == -ENOENT)
        r = err_origin(-ENOENT, "no template %s in the store %s", name, store);
    if (r == 0)
        r = check_unused(store, name);
    if (r == 0 && template_load(&t, store, name) == 0)
        r = remove_image(store,
                         &t); /* a record that cannot be read keeps nobody from removing it */
    if (r == 0)
        r = folder_remove(parent, name, lock);
    template_deinit(&t);
    free(folder);
    free(parent);
    return r;
}
