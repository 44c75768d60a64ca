/* SPDX-License-Identifier: Apache-2.0 */
#include "node/template_recipe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "node/template.h"

static const char *const vmm_words[] = {"", "firecracker", "qemu", NULL}; /* enum thaw_vmm + 1 */
static const char *const machine_words[] = {"pc", "q35", "microvm", NULL};
static const char *const accel_words[] = {"tcg", "kvm", NULL};

#define AT(field) .offset = offsetof(struct template_recipe, field), .optional = true

static const struct record_field fields[] = {
    {.name = "vmm", .type = RECORD_WORD, AT(vmm), .words = vmm_words},
    {.name = "kernel", .type = RECORD_TEXT, AT(kernel)},
    {.name = "rootfs", .type = RECORD_TEXT, AT(rootfs)},
    {.name = "rootfs_read_only", .type = RECORD_FLAG, AT(rootfs_read_only)},
    {.name = "initrd", .type = RECORD_TEXT, AT(initrd)},
    {.name = "memory",
     .type = RECORD_NUMBER,
     AT(memory_mib),
     .min = VMM_MEMORY_MIB_MIN,
     .max = TEMPLATE_MEMORY_MIB_MAX},
    {.name = "vcpus", .type = RECORD_NUMBER, AT(n_vcpus), .min = 1, .max = TEMPLATE_VCPUS_MAX},
    {.name = "hugepages", .type = RECORD_FLAG, AT(huge_pages)},
    {.name = "ready", .type = RECORD_TEXT, AT(ready), .max = RECIPE_READY_MAX},
    {.name = "ready_vsock",
     .type = RECORD_NUMBER,
     AT(ready_vsock),
     .min = 1,
     .max = TEMPLATE_PORT_MAX},
    {.name = "vsock", .type = RECORD_FLAG, AT(vsock)},
    {.name = "start_cmd", .type = RECORD_TEXT, AT(start_cmd), .max = RECIPE_START_CMD_MAX},
    {.name = "no_shell", .type = RECORD_FLAG, AT(no_shell)},
    {.name = "free_page_reporting",
     .type = RECORD_WORD,
     AT(free_page_reporting),
     .words = template_choice_words},
    {.name = "free_page_hinting",
     .type = RECORD_WORD,
     AT(free_page_hinting),
     .words = template_choice_words},
    {.name = "firecracker_version", .type = RECORD_TEXT, AT(firecracker_version), .max = 128},
    {.name = "machine", .type = RECORD_TEXT, AT(machine), .max = 64},
    {.name = "accel", .type = RECORD_TEXT, AT(accel), .max = 64},
    {.name = "cpu", .type = RECORD_TEXT, AT(cpu), .max = 512},
    {.name = "cmdline", .type = RECORD_TEXT, AT(cmdline), .max = 2048},
    {.name = "vmm_program", .type = RECORD_TEXT, AT(program)},
    {.name = "timeout", .type = RECORD_NUMBER, AT(timeout_s), .min = 1, .max = 3600},
    {.name = "record_seconds", .type = RECORD_NUMBER, AT(record_s), .min = 1, .max = 3600},
    {.name = NULL},
};

static const struct record_form form = {.fields = fields};

void template_recipe_init(struct template_recipe *r)
{
    *r = (struct template_recipe){
        .memory_mib = RECIPE_MEMORY_MIB,
        .n_vcpus = 1,
        .timeout_s = RECIPE_TIMEOUT_S,
        .record_s = RECIPE_RECORD_S,
    };
}

void template_recipe_deinit(struct template_recipe *r)
{
    record_deinit(&form, r);
}

/* ---- from a file ---------------------------------------------------------------------------------------------- */

/* move_path() - from relative to the recipe's folder, @folder_len bytes of @recipe, to relative to ours */
static int move_path(char **path, const char *recipe, size_t folder_len)
{
    char *moved = NULL;

    if (!*path || (*path)[0] == '/' || folder_len == 0)
        return 0;
    if (asprintf(&moved, "%.*s%s", (int)folder_len, recipe, *path) < 0)
        return err_origin_errno(-ENOMEM, "%s", recipe);
    free(*path);
    *path = moved;
    return 0;
}

/* take_file() - what it says, into a recipe that says nothing yet */
static int take_file(struct template_recipe *r, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t folder_len = slash ? (size_t)(slash - path) + 1 : 0;
    char *const *program = &r->program;
    int rc = record_read(&form, path, r);

    if (rc == 0)
        rc = move_path(&r->kernel, path, folder_len);
    if (rc == 0)
        rc = move_path(&r->rootfs, path, folder_len);
    if (rc == 0)
        rc = move_path(&r->initrd, path, folder_len);
    if (rc == 0 && *program && strchr(*program, '/')) /* else it is looked for on PATH */
        rc = move_path(&r->program, path, folder_len);
    return rc;
}

int template_recipe_read(struct template_recipe *r, const char *path)
{
    struct template_recipe fresh;
    int rc;

    template_recipe_init(&fresh);
    rc = take_file(&fresh, path);
    if (rc < 0) {
        template_recipe_deinit(&fresh);
        return rc;
    }
    template_recipe_deinit(r);
    *r = fresh;
    return 0;
}

/* ---- from the command line ------------------------------------------------------------------------------------ */

static const struct record_field *find_field(const char *option)
{
    for (const struct record_field *f = fields; f->name; f++) {
        size_t i = 0;

        while (f->name[i] != '\0' && option[i] == (f->name[i] == '_' ? '-' : f->name[i]))
            i++;
        if (f->name[i] == '\0' && option[i] == '\0')
            return f;
    }
    return NULL;
}

static int set_number(const struct record_field *f, const char *option, const char *text,
                      unsigned *out)
{
    size_t n_digits = strspn(text, "0123456789");
    unsigned long long n = n_digits > 0 && n_digits < 12 ? strtoull(text, NULL, 10) : 0;

    if (n_digits == 0 || text[n_digits] != '\0' || n < f->min || n > f->max)
        return err_origin(-EINVAL, "--%s %s: expected a number from %ju to %ju", option, text,
                          (uintmax_t)f->min, (uintmax_t)f->max);
    *out = (unsigned)n;
    return 0;
}

static int set_word(const struct record_field *f, const char *option, const char *text,
                    unsigned *out)
{
    char words[128];
    int word = record_word(f->words, text);

    if (word < 0)
        return err_origin(-EINVAL, "--%s %s: expected %s", option, text,
                          record_words(f->words, words, sizeof(words)));
    *out = (unsigned)word;
    return 0;
}

static int set_text(const struct record_field *f, const char *option, const char *text, char **out)
{
    char name[64];
    int r;

    (void)snprintf(name, sizeof(name), "--%s", option);
    r = record_check_text("the command line", name, text, f->max);
    if (r < 0)
        return r;
    free(*out);
    *out = strdup(text);
    return *out ? 0 : err_origin_errno(-ENOMEM, "--%s", option);
}

int template_recipe_set(struct template_recipe *r, const char *option, const char *text)
{
    const struct record_field *f = find_field(option);
    void *out = f ? (char *)r + f->offset : NULL;

    if (!f)
        return -ENOENT;
    switch (f->type) {
    case RECORD_NUMBER:
        return set_number(f, option, text, out);
    case RECORD_WORD:
        return set_word(f, option, text, out);
    case RECORD_FLAG:
        *(bool *)out = strcmp(text, "true") == 0;
        return 0;
    default:
        assert(f->type == RECORD_TEXT);
        return set_text(f, option, text, out);
    }
}

/* ---- checks --------------------------------------------------------------------------------------------------- */

static int check_word(const char *name, const char *text, const char *const *words)
{
    char expected[128];

    if (text && record_word(words, text) < 0)
        return err_origin(-EINVAL, "%s is '%s', expected %s", name, text,
                          record_words(words, expected, sizeof(expected)));
    return 0;
}

/* check_vmm() - what is for one of the VMMs only */
static int check_vmm(const struct template_recipe *r)
{
    struct thaw_version version;
    int rc;

    if (r->vmm == 0)
        return err_origin(-EINVAL, "vmm is missing: expected firecracker or qemu");
    if (template_recipe_vmm(r) == THAW_VMM_FIRECRACKER) {
        if (r->machine || r->accel || r->cpu)
            return err_origin(-EINVAL, "%s is for qemu, the vmm is firecracker",
                              r->machine ? "machine"
                              : r->accel ? "accel"
                                         : "cpu");
        return r->firecracker_version ? thaw_version_parse(&version, r->firecracker_version) : 0;
    }
    if (r->firecracker_version || r->vsock || r->ready_vsock > 0)
        return err_origin(-EINVAL, "%s is for firecracker, the vmm is qemu",
                          r->firecracker_version ? "firecracker_version"
                          : r->vsock             ? "vsock"
                                                 : "ready_vsock");
    rc = check_word("machine", r->machine, machine_words);
    return rc == 0 ? check_word("accel", r->accel, accel_words) : rc;
}

static int check_guest(const struct template_recipe *r)
{
    if (!r->kernel || r->kernel[0] == '\0')
        return err_origin(-EINVAL, "kernel is missing: the file that the guest boots");
    if (r->rootfs_read_only && !r->rootfs)
        return err_origin(-EINVAL, "rootfs_read_only is set, but there is no rootfs");
    if (r->huge_pages && r->memory_mib % 2 != 0)
        return err_origin(-EINVAL, "memory is %u MiB, expected an even number with hugepages",
                          r->memory_mib);
    if (r->ready && r->ready[0] == '\0')
        return err_origin(-EINVAL, "ready is empty: expected a part of what the guest writes");
    if (r->no_shell && r->start_cmd)
        return err_origin(-EINVAL, "start_cmd needs a shell, and no_shell is set");
    if (r->no_shell && !r->ready && r->ready_vsock == 0)
        return err_origin(-EINVAL, "ready is missing: without a shell the guest must write it, or "
                                   "listen at ready_vsock");
    return 0;
}

int template_recipe_check(const struct template_recipe *r)
{
    int rc = check_vmm(r);

    return rc == 0 ? check_guest(r) : rc;
}

enum thaw_vmm template_recipe_vmm(const struct template_recipe *r)
{
    assert(r->vmm > 0);
    return (enum thaw_vmm)(r->vmm - 1);
}

int template_recipe_features(const struct template_recipe *r, const char *version,
                             struct thaw_features *out)
{
    const struct thaw_features_wanted wanted = {
        .free_page_reporting = (enum thaw_choice)r->free_page_reporting,
        .free_page_hinting = (enum thaw_choice)r->free_page_hinting,
    };
    const char *meant = r->firecracker_version ? r->firecracker_version : version;
    struct thaw_version a;
    struct thaw_version b;
    int rc = thaw_features_of_version(out, template_recipe_vmm(r), meant, &wanted);

    if (rc < 0 || !version || !r->firecracker_version)
        return rc;
    rc = thaw_version_parse(&a, r->firecracker_version);
    if (rc == 0)
        rc = thaw_version_parse(&b, version);
    if (rc == 0 && thaw_version_compare(&a, &b) != 0)
        rc = err_origin(-EINVAL, "firecracker_version is %s, but %s is version %s",
                        r->firecracker_version, r->program ? r->program : "firecracker", version);
    return rc;
}
