/* SPDX-License-Identifier: Apache-2.0 */
#include "node/sandbox_look.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/procfs.h"
#include "node/sandbox_private.h"
#include "node/state_copy.h"
#include "node/tree.h"

static void keep_trouble(struct sandbox_view *v)
{
    if (v->trouble[0] == '\0')
        (void)snprintf(v->trouble, sizeof(v->trouble), "%s", err_text());
}

/* look_at_memory() - what the host has given to the VMM */
static void look_at_memory(struct sandbox_view *v)
{
    char path[64];
    uint64_t anonymous_kib;
    uint64_t huge_kib;

    (void)snprintf(path, sizeof(path), "/proc/%d/status", v->vmm_pid);
    if (procfs_field_u64(path, "RssAnon", 10, &anonymous_kib) == 0 &&
        procfs_field_u64(path, "HugetlbPages", 10, &huge_kib) == 0)
        v->host_bytes = (anonymous_kib + huge_kib) * KIB;
}

/* look_at_pages() - what the pager's state says; there is none before the VM has connected */
static void look_at_pages(struct sandbox_view *v, const char *state_path)
{
    _cleanup_(state_freep) struct state_copy *s = NULL;

    if (state_path[0] == '\0' || !tree_exists(state_path))
        return;
    if (state_read(state_path, &s) < 0) {
        keep_trouble(v);
        return;
    }
    v->page_bytes = 1ull << s->block.header->page_shift;
    pagetab_count(&s->block.pages, 0, s->block.header->n_pages, v->pages);
}

/* ask_for_balloon() - Return: false: the VMM has ended meanwhile */
static bool ask_for_balloon(struct sandbox_view *v, struct vmm *vmm, unsigned answer_ms)
{
    if (vmm_balloon_get(vmm, &v->balloon, answer_ms) == 0) {
        v->answer = SANDBOX_ANSWERED;
        return true;
    }
    if (vmm_has_ended(vmm))
        return false;
    v->answer = SANDBOX_NO_ANSWER;
    keep_trouble(v);
    return true;
}

/* look_at_instance() - what its processes say. Return: false: the VMM has ended meanwhile */
static bool look_at_instance(struct sandbox_view *v, struct sandbox *s, unsigned answer_ms,
                             bool may_ask)
{
    struct instance in;
    bool lives = true;

    if (sandbox_instance(s, &in) < 0)
        keep_trouble(v);
    if (in.vmm) {
        v->vmm_pid = in.vmm_id.pid;
        v->pager_pid = in.pager.pid;
        look_at_memory(v);
        look_at_pages(v, in.state_path);
        if (s->origin.vsock &&
            tree_path(v->vsock, sizeof(v->vsock), vmm_root(in.vmm), VMM_FILE_VSOCK) < 0)
            keep_trouble(v);
        if (may_ask)
            lives = ask_for_balloon(v, in.vmm, answer_ms);
    }
    instance_forget(&in);
    return lives;
}

/* take_record() - out of a sandbox that was open for this only */
static void take_record(struct sandbox_view *v, struct sandbox *s)
{
    v->record = s->record;
    s->record = (struct sandbox_record){0};
    v->memory_mib = s->origin.memory_mib;
    v->has_record = true;
}

/* look_without_lock() - somebody is at work on it: what it was at last, as far as that can be read */
static int look_without_lock(struct sandbox_view *v, const char *store)
{
    _cleanup_(sandbox_closep) struct sandbox *s = sandbox_new(store, v->name, -1);
    int r = s ? sandbox_read(s, v->name) : -ENOMEM;

    if (r < 0)
        return r;
    (void)look_at_instance(v, s, 0, false);
    take_record(v, s);
    return 0;
}

static struct sandbox_view new_view(const char *name)
{
    struct sandbox_view v = {.host_bytes = SANDBOX_UNKNOWN};

    (void)snprintf(v.name, sizeof(v.name), "%s", name);
    return v;
}

int sandbox_look(struct sandbox_view *out, const char *store, const char *name, unsigned answer_ms)
{
    _cleanup_(sandbox_closep) struct sandbox *s = NULL;
    int r;

    *out = new_view(name);
    r = sandbox_name_check(name);
    if (r < 0)
        return r;
    r = sandbox_open(&s, store, name, SANDBOX_RECONCILED, 0);
    if (r == -ENOENT)
        return r;
    if (r == 0) {
        if (!look_at_instance(out, s, answer_ms, s->record.state == SANDBOX_RUNNING)) {
            *out = new_view(name); /* it was alive a moment ago */
            if (sandbox_reconcile(s) < 0)
                keep_trouble(out);
        }
        take_record(out, s);
        return 0;
    }
    if (r != -EBUSY)
        keep_trouble(out); /* and what can be read of it is shown all the same */
    r = look_without_lock(out, store);
    if (r < 0 && r != -ENOENT)
        keep_trouble(out);
    return r == -ENOENT && out->trouble[0] == '\0' ? r : 0;
}

int sandbox_files(struct sandbox_files *out, const char *store, const char *name)
{
    char folder[PATH_MAX];
    struct stat st;
    int r = sandbox_name_check(name);

    if (r == 0 && snprintf(folder, sizeof(folder), "%s/" SANDBOXES_FOLDER "/%s", store, name) >=
                      (int)sizeof(folder))
        r = err_origin(-ENAMETOOLONG, "the folder name %s is too long", store);
    if (r == 0 && lstat(folder, &st) < 0)
        r = errno == ENOENT ? err_origin(-ENOENT, "no sandbox %s in the store %s", name, store)
                            : err_origin_errno(-errno, "cannot look at %s", folder);
    if (r == 0)
        r = tree_path(out->vm, sizeof(out->vm), folder, SANDBOX_VM);
    return r == 0 ? tree_path(out->logs, sizeof(out->logs), folder, SANDBOX_LOGS) : r;
}

void sandbox_view_deinit(struct sandbox_view *v)
{
    sandbox_record_deinit(&v->record);
    *v = (struct sandbox_view){0};
}
