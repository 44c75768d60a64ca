/* SPDX-License-Identifier: Apache-2.0 */
/* driver_spec.c - what a VM is made of: checked as far as all drivers agree, and copied */

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "vmm/driver_private.h"

#define MAX_VCPUS 256u

static int check_jail(const struct vmm_driver *driver, const struct vmm_jail *jail)
{
    size_t n;

    if (!driver->knows_jail)
        return err_origin(-EINVAL, "jail: %s has none, Firecracker has", driver->name);
    if (!jail->id || !jail->chroot_base)
        return err_origin(-EINVAL, "jail: it needs an id and a folder");
    n = strlen(jail->id);
    if (n == 0 || n > 64)
        return err_origin(-EINVAL, "jail: its id has %zu characters, 1 to 64 are possible", n);
    for (const char *c = jail->id; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && *c != '-')
            return err_origin(-EINVAL, "jail: its id '%s' may have letters, digits and '-'",
                              jail->id);
    }
    if (jail->cgroup_version > 2)
        return err_origin(-EINVAL, "jail: cgroup version %u is neither 1 nor 2",
                          jail->cgroup_version);
    return 0;
}

int spec_check(const struct vmm_driver *driver, const struct vmm_spec *spec)
{
    if (spec->memory_mib < VMM_MEMORY_MIB_MIN)
        return err_origin(-EINVAL, "memory: %u MiB, at least %u are needed", spec->memory_mib,
                          VMM_MEMORY_MIB_MIN);
    if (spec->huge_pages && spec->memory_mib % 2)
        return err_origin(-EINVAL, "memory: %u MiB are not a number of huge pages of 2 MiB",
                          spec->memory_mib);
    if (spec->n_vcpus == 0 || spec->n_vcpus > MAX_VCPUS)
        return err_origin(-EINVAL, "vcpus: %u, 1 to %u are possible", spec->n_vcpus, MAX_VCPUS);
    return spec->jail ? check_jail(driver, spec->jail) : 0;
}

/* copy() - a text of a spec; NULL stays NULL. Without memory *@r is set */
static const char *copy(const char *text, int *r)
{
    char *out = text ? strdup(text) : NULL;

    if (text && !out)
        *r = -ENOMEM;
    return out;
}

static void free_text(const char *text)
{
    free((void *)(uintptr_t)text);
}

static void jail_free(const struct vmm_jail *jail)
{
    if (!jail)
        return;
    free_text(jail->program);
    free_text(jail->id);
    free_text(jail->chroot_base);
    free_text(jail->netns);
    for (size_t i = 0; jail->cgroups && i < jail->n_cgroups; i++)
        free_text(jail->cgroups[i]);
    free((void *)(uintptr_t)jail->cgroups);
    free((void *)(uintptr_t)jail);
}

static const struct vmm_jail *jail_copy(const struct vmm_jail *from, int *r)
{
    struct vmm_jail *jail;
    const char **cgroups;

    if (!from)
        return NULL;
    jail = malloc(sizeof(*jail));
    cgroups = calloc(from->n_cgroups + 1, sizeof(*cgroups));
    if (!jail || !cgroups) {
        free(jail);
        free(cgroups);
        *r = -ENOMEM;
        return NULL;
    }
    *jail = *from;
    jail->program = copy(from->program, r);
    jail->id = copy(from->id, r);
    jail->chroot_base = copy(from->chroot_base, r);
    jail->netns = copy(from->netns, r);
    for (size_t i = 0; i < from->n_cgroups; i++)
        cgroups[i] = copy(from->cgroups[i], r);
    jail->cgroups = cgroups;
    return jail;
}

int spec_features(const struct vmm_spec *spec, enum thaw_vmm vmm, const char *version,
                  struct thaw_features *out)
{
    const struct thaw_features_wanted wanted = {
        .free_page_reporting = spec->free_page_reporting ? THAW_CHOICE_ON : THAW_CHOICE_OFF,
        .free_page_hinting = spec->free_page_hinting ? THAW_CHOICE_ON : THAW_CHOICE_OFF,
    };

    return thaw_features_of_version(out, vmm, version, &wanted);
}

int spec_copy(struct vmm_spec *to, const struct vmm_spec *from)
{
    int r = 0;

    *to = *from;
    to->program = copy(from->program, &r);
    to->preload = copy(from->preload, &r);
    to->machine = copy(from->machine, &r);
    to->accel = copy(from->accel, &r);
    to->cpu = copy(from->cpu, &r);
    to->cmdline = copy(from->cmdline, &r);
    to->jail = jail_copy(from->jail, &r);
    return r;
}

void spec_deinit(struct vmm_spec *spec)
{
    free_text(spec->program);
    free_text(spec->preload);
    free_text(spec->machine);
    free_text(spec->accel);
    free_text(spec->cpu);
    free_text(spec->cmdline);
    jail_free(spec->jail);
}
