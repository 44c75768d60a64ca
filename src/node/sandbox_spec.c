/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox_spec.c - what the VMM of a sandbox is started with: what its template says, and the jail that was chosen for it
 *
 *     vm/jail/PROGRAM/ID/root    the jail's root, as the jailer wants it
 *     vm/root                    a link to it (vmm/driver.h)
 *
 * The jail is in the folder of the VM: so what the VM gets can be linked into it, and it goes away with that. Only its cgroups are
 * elsewhere. When the VMM has ended, all of it is removed at once: there are devices in it, and files of another user.
 */

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "node/sandbox_private.h"
#include "node/tree.h"
#include "vmm/child.h"

#define CGROUPS "/sys/fs/cgroup"

/* version_here() - of the cgroups that are mounted where everybody looks for them */
static unsigned version_here(void)
{
    struct statfs st;

    return statfs(CGROUPS, &st) == 0 && st.f_type == CGROUP2_SUPER_MAGIC ? 2 : 1;
}

static int jail_spec(const struct sandbox *s, struct sandbox_spec *out)
{
    const struct sandbox_jail *jail = &s->record.jail;
    int r = sandbox_path(s, out->base, sizeof(out->base), SANDBOX_VM "/" SANDBOX_JAIL);

    if (r == 0 && jail->netns)
        r = sandbox_jail_netns(jail, s->record.name, out->netns, sizeof(out->netns));
    out->jail = (struct vmm_jail){
        .program = jail->jailer,
        .id = jail->id,
        .chroot_base = out->base,
        .uid = jail->uid,
        .gid = jail->gid,
        .netns = jail->netns ? out->netns : NULL,
        .cgroup_version = jail->cgroup_version,
        .cgroups = (const char *const *)jail->cgroups.texts,
        .n_cgroups = jail->cgroups.n,
    };
    if (jail->cgroups.n > 0 && jail->cgroup_version == 0)
        out->jail.cgroup_version = version_here();
    out->vmm.jail = &out->jail;
    return r;
}

int sandbox_spec(const struct sandbox *s, struct sandbox_spec *out)
{
    out->vmm = template_spec(&s->origin);
    return s->record.jail.given ? jail_spec(s, out) : 0;
}

int sandbox_check_jail(const struct sandbox_jail *jail, const struct template *t)
{
    const struct vmm_jail some = {.id = "some", .chroot_base = "/"};
    struct vmm_spec spec = template_spec(t);
    _cleanup_free_ char *jailer = NULL;
    int r;

    if (!jail || !jail->given)
        return 0;
    spec.jail = &some;
    r = vmm_driver_check(vmm_driver_find(template_vmm_words[t->vmm]), &spec, t->vmm_version);
    if (r < 0)
        return r;
    if (geteuid() != 0)
        return err_origin(-EPERM, "jail: only root can make one: the jailer makes devices and "
                                  "becomes another user");
    return program_find(jail->jailer ? jail->jailer : "jailer", &jailer);
}

int sandbox_make_jail(const struct sandbox_spec *spec)
{
    if (!spec->vmm.jail)
        return 0;
    if (spec->jail.netns && access(spec->jail.netns, F_OK) < 0)
        return err_origin_errno(-errno, "jail: cannot use the network namespace %s",
                                spec->jail.netns);
    if (mkdir(spec->base, 0700) < 0)
        return err_origin_errno(-errno, "cannot make the folder %s", spec->base);
    return 0;
}

int sandbox_leave_jail(struct sandbox *s)
{
    char path[PATH_MAX];
    int r = sandbox_path(s, path, sizeof(path), SANDBOX_VM);

    if (r == 0)
        r = vmm_clear(path);
    if (r == 0)
        r = sandbox_path(s, path, sizeof(path), SANDBOX_VM "/" SANDBOX_JAIL);
    if (r == 0)
        r = tree_remove(path);
    if (r == 0)
        r = sandbox_path(s, path, sizeof(path), SANDBOX_VM "/" VMM_FILE_ROOT);
    return r == 0 ? file_remove(path) : r;
}
