/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template_restore.c - what a guest touches when it is restored
 *
 * Each time a VM is made in a folder of its own, as a sandbox will be, and is asked something. What it touches until it answers is
 * recorded by its pager. Of two records what both have counts: the rest was chance.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "image/workingset.h"
#include "node/answer.h"
#include "node/instance.h"
#include "node/state_copy.h"
#include "node/template_build_private.h"
#include "node/tree.h"

#define WRITTEN_MS 30000u /* for a record to be written when it has ended */
#define END_MS     10000u

/* ---- a VM of it ----------------------------------------------------------------------------------------------- */

/* make_folder() - with the template's files as a sandbox has them: one that the guest writes to is its own */
static int make_folder(const struct build *b, const char *folder)
{
    const char *from = b->folder.path;
    int r = mkdir(folder, 0700) < 0 ? err_origin_errno(-errno, "cannot make %s", folder) : 0;

    if (r == 0)
        r = tree_put_file(tree_link_file, from, folder, VMM_FILE_STATE);
    if (r == 0)
        r = tree_put_file(tree_link_file, from, folder, VMM_FILE_KERNEL);
    if (r == 0 && b->t.has_initrd)
        r = tree_put_file(tree_link_file, from, folder, VMM_FILE_INITRD);
    if (r == 0 && b->t.has_rootfs)
        r = tree_put_file(b->t.rootfs_read_only ? tree_link_file : tree_copy_file, from, folder,
                          VMM_FILE_ROOTFS);
    return r;
}

/* ---- a record ------------------------------------------------------------------------------------------------- */

/* ask() - the guest answers */
static int ask(struct build *b, struct vmm *vm)
{
    const struct console_wait wait = build_wait(b, b->timeout_ms);

    return answer_wait(answer_ways(&b->t), vm, &wait);
}

/* tell_pager() - the record ends here */
static int tell_pager(const char *state_path)
{
    _cleanup_(state_freep) struct state_copy *s = NULL;
    int r = state_read(state_path, &s);

    return r == 0 ? state_tell_ready(s, state_path) : r;
}

static int wait_written(struct build *b, const struct instance *in, const char *path,
                        unsigned timeout_ms)
{
    uint64_t deadline_ns = clock_now_ns() + timeout_ms * NS_PER_MS;
    int r = 0;

    while (r == 0 && !tree_exists(path)) {
        if (vmm_has_ended(in->vmm))
            return err_origin(-ESRCH, "the VM ended while its working set was recorded");
        if (clock_now_ns() > deadline_ns)
            return err_origin(-ETIMEDOUT, "no working set was recorded within %u ms", timeout_ms);
        r = build_nap(b);
    }
    return r;
}

static int record(struct build *b, const struct instance *in, const char *path)
{
    int r = 0;

    if (!answer_can(answer_ways(&b->t)))
        return wait_written(b, in, path, b->recipe->record_s * 1000 + WRITTEN_MS);
    r = ask(b, in->vmm);
    if (r == 0)
        r = tell_pager(in->state_path);
    return r == 0 ? wait_written(b, in, path, WRITTEN_MS) : r;
}

/* end() - VMM, then pager; the first error counts */
static int end(struct build *b, struct instance *in, int r)
{
    const struct err_kept e = err_keep(r);

    if (instance_end(in, END_MS) < 0) {
        b->stuck = true;
        r = r < 0 ? r : -EIO;
    } else if (r < 0) {
        r = err_tell(&e, 0);
    }
    instance_forget(in);
    return r;
}

/* record_once() - restore it, record it into @path, remove all but the record */
static int record_once(struct build *b, const char *path)
{
    struct instance_spec serve = {
        .image = BUILD_IMAGE,
        .record = path,
        .record_seconds = answer_can(answer_ways(&b->t)) ? 0 : b->recipe->record_s,
        .no_prefetch = true,
    };
    struct instance in = {0};
    char folder[PATH_MAX];
    char store[PATH_MAX];
    int r = build_path(b, BUILD_FOLDER_RESTORE, folder);

    if (r == 0)
        r = build_path(b, BUILD_FOLDER_STORE, store);
    if (r == 0)
        r = make_folder(b, folder);
    if (r < 0)
        return r;
    serve.store = store;
    r = instance_load(&in, b->driver, &b->spec, folder, &serve, true, b->timeout_ms);
    if (r < 0)
        return r;
    r = end(b, &in, record(b, &in, path));
    return r == 0 ? tree_remove(folder) : r;
}

int build_record(struct build *b, struct workingset **out)
{
    struct workingset *sets[BUILD_RECORDS] = {NULL};
    int r = 0;

    for (unsigned i = 0; i < BUILD_RECORDS && r == 0; i++) {
        char step[64];
        char name[32];
        char path[PATH_MAX];

        (void)snprintf(step, sizeof(step), "restoring it to record what it touches (%u of %u)",
                       i + 1, BUILD_RECORDS);
        (void)snprintf(name, sizeof(name), "record.%u", i);
        r = build_step(b, step);
        if (r == 0)
            r = build_path(b, name, path);
        if (r == 0)
            r = record_once(b, path);
        if (r == 0)
            r = workingset_read(&sets[i], path);
        if (r == 0)
            r = tree_remove(path);
    }
    if (r == 0)
        r = workingset_merge(out, (const struct workingset *const *)sets, BUILD_RECORDS,
                             WORKINGSET_INTERSECTION);
    for (unsigned i = 0; i < BUILD_RECORDS; i++)
        (void)workingset_free(sets[i]);
    return r;
}
