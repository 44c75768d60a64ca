/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox_pause.c - a running VM becomes files
 *
 *     record: pausing
 *     the guest stands; the VMM writes vmstate; the memory becomes the layer sandbox.NAME.G+1
 *     paused.G+1 gets vmstate and rootfs, and all of it is on disk
 *     record: paused, generation G+1, the layer's id              from here on the pause is acknowledged
 *     the VMM is killed, its pager ends, vm/ goes away, and so does pause G
 *
 * Up to the second record the guest can go on as if nothing had been asked, and does if anything fails. rootfs is linked, not
 * copied: the VM that could write to it never runs again once the pause counts.
 *
 * Which parent the layer has. On what is served it is smallest, but an image is needed as long as another one comes from it, and
 * a pack is kept as a whole. So each time before a layer is made it is looked at what the layers since the template hold and how
 * much of that is still needed (image/squash.h). When more than twice that is held (and 16 MiB more, which are not worth the
 * work), or there are more than LAYERS_MAX of them, the layer is laid on the template's image: all that has changed since then is
 * stored once more, and the layers between are removed. So all that a sandbox holds is bounded by what it has
 * changed, whatever the number of its pauses; and what has been stored is written again at most once for each time that as much was
 * thrown away.
 *
 * The layer's working set is what the guest missed when it went on last, and its parent's (layer_hot.h). The pager is told before
 * the VM stands that the record ends, so that it is on disk when it is wanted.
 */

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"
#include "image/squash.h"
#include "node/layer.h"
#include "node/layer_hot.h"
#include "node/sandbox_private.h"
#include "node/tree.h"

#define LAYERS_MAX   16u
#define SLACK_BYTES  (16 * MIB)
#define FREEZE_TRIES 3u

/* struct pause - one on its way */
struct pause {
    struct sandbox *s;
    struct instance in;
    unsigned generation; /* that it makes */
    bool record_comes;   /* of its pager */
    bool collects;       /* there may be layers that nobody needs any more */
    struct pack_result layer;
};

/* ---- the memory ----------------------------------------------------------------------------------------------- */

/*
 * choose_parent() - do the layers since the template hold much that is not needed? Return: the next one's parent
 *
 * What a squashed layer has made superfluous is removed at once, but for what is in use: a process that decompresses an image
 * for several pagers ends a moment after the last of them. So it is tried once more with the layer after it.
 */
static const struct image *choose_parent(struct pause *p, const struct image *served,
                                         const struct image *base)
{
    struct squash_cost cost = squash_cost(served, base);
    bool squashes =
        cost.n_layers >= LAYERS_MAX || cost.pack_bytes > 2 * cost.needed_bytes + SLACK_BYTES;

    p->collects = squashes || cost.n_layers == 1;
    return squashes ? base : served;
}

/* make_layer() - @then: see layer_make() */
static int make_layer(struct pause *p, const struct image_job *job, const struct layer_then *then)
{
    const struct sandbox_record *record = &p->s->record;
    _cleanup_(store_closep) struct store *store = NULL;
    _cleanup_(image_closep) struct image *served = NULL;
    _cleanup_(image_closep) struct image *base = NULL;
    _cleanup_(workingset_freep) struct workingset *hot = NULL;
    struct pack_options o = pack_options_default();
    char name[STORE_NAME_MAX];
    char missed[PATH_MAX];
    int r = store_open(&store, p->s->store, false);

    if (r == 0)
        r = store_hold(store);
    if (r == 0)
        r = image_open(&served, store, record->image);
    if (r == 0)
        r = image_open(&base, store, record->base);
    if (r == 0)
        r = sandbox_path(p->s, missed, sizeof(missed), SANDBOX_MISSED);
    if (r == 0)
        r = layer_hot(&hot, served, missed, p->record_comes, p->generation);
    if (r < 0)
        return r;
    o.hot = hot;
    o.hot_needs_bytes = true;
    o.replace = true;
    o.job = *job;
    o.parent = choose_parent(p, served, base);
    o.name = sandbox_image_name(p->s, p->generation, name);
    return layer_make(store, p->in.state_path, served, then, &o, &p->layer);
}

/* ---- the files ------------------------------------------------------------------------------------------------ */

static int make_new_folder(const struct pause *p, char *path, size_t len)
{
    int r = sandbox_drop_paused(p->s, p->generation);

    if (r == 0)
        r = sandbox_paused_path(p->s, path, len, p->generation, true);
    if (r == 0 && mkdir(path, 0700) < 0)
        r = err_origin_errno(-errno, "cannot make the folder %s", path);
    return r;
}

/* write_down() - paused.G+1 is there, whole */
static int write_down(const struct pause *p)
{
    char unfinished[PATH_MAX];
    char path[PATH_MAX];
    const char *vm = vmm_root(p->in.vmm);
    int r = make_new_folder(p, unfinished, sizeof(unfinished));

    if (r == 0)
        r = tree_put_file(tree_link_durable, vm, unfinished, VMM_FILE_STATE);
    if (r == 0 && p->s->origin.has_rootfs)
        r = tree_put_file(tree_link_durable, vm, unfinished, VMM_FILE_ROOTFS);
    if (r == 0)
        r = tree_sync(unfinished);
    if (r == 0)
        r = sandbox_paused_path(p->s, path, sizeof(path), p->generation, false);
    if (r == 0 && rename(unfinished, path) < 0)
        r = err_origin_errno(-errno, "cannot rename %s to %s", unfinished, path);
    return r == 0 ? tree_sync(p->s->folder) : r;
}

/* ---- the order of it ------------------------------------------------------------------------------------------ */

/* acknowledge() - the record says so: from here on it is paused */
static int acknowledge(struct pause *p)
{
    struct sandbox_record *record = &p->s->record;
    char text[IMAGE_ID_TEXT];
    char *before = record->image;
    int r;

    record->image = NULL;
    r = sandbox_record_set_text(&record->image, image_id_text(p->layer.id, text));
    if (r == 0) {
        record->generation = p->generation;
        r = sandbox_commit(p->s, SANDBOX_PAUSED);
    }
    if (r == 0) {
        free(before);
        return 0;
    }
    record->generation = p->generation - 1;
    free(record->image);
    record->image = before;
    return r;
}

static int write_state(void *ctx)
{
    const struct pause *p = ctx;

    return vmm_snapshot(p->in.vmm, false, SANDBOX_DEADLINE_MS);
}

/* freeze_once() - Return: -ESTALE, with a text, if memory was written to meanwhile; others */
static int freeze_once(struct pause *p, const struct image_job *job)
{
    const struct layer_then then = {.fn = write_state, .ctx = p};
    int r;

    if (vmm_saves_aside(p->in.vmm))
        return make_layer(p, job, &then);
    r = write_state(p);
    return r == 0 ? make_layer(p, job, NULL) : r;
}

/*
 * freeze() - the devices' state, and the memory of the same moment
 *
 * Decision 23. The state is written while memory is known not to change, between the first reading and the last. A VMM that itself writes to
 * memory for that comes first, and memory is read afterwards. Should it have changed all the same, as a device may do
 * that the host talks to, then the guest goes on for a moment and stands anew.
 */
static int freeze(struct pause *p, const struct image_job *job)
{
    int r = freeze_once(p, job);

    for (unsigned i = 1; r == -ESTALE && i < FREEZE_TRIES; i++) {
        r = vmm_resume(p->in.vmm, SANDBOX_DEADLINE_MS);
        if (r == 0)
            r = vmm_pause(p->in.vmm, SANDBOX_DEADLINE_MS);
        if (r == 0)
            r = freeze_once(p, job);
    }
    return r;
}

static int pause_and_write(struct pause *p, const struct image_job *job)
{
    int r;

    p->record_comes = layer_hot_end_record(p->in.state_path); /* it is written down meanwhile */
    r = vmm_pause(p->in.vmm, SANDBOX_DEADLINE_MS);
    if (r == 0)
        r = freeze(p, job);
    if (r == 0)
        r = write_down(p);
    return r == 0 ? acknowledge(p) : r;
}

/* clear_up() - what nobody needs after the pause. It is no part of it: what is left is for whoever opens the sandbox next */
static int clear_up(struct pause *p)
{
    int r = sandbox_clear_paused(p->s, &p->in);

    if (r == 0 && p->collects)
        sandbox_collect(p->s);
    return r == -ETIMEDOUT ? r : 0; /* the VMM does not die, of which somebody should know */
}

int sandbox_pause(struct sandbox *s, const struct image_job *job)
{
    struct pause p = {.s = s, .generation = s->record.generation + 1};
    struct err_kept e;
    int r = sandbox_require(s, SANDBOX_RUNNING, "pause it");

    if (r == 0)
        r = sandbox_instance(s, &p.in);
    if (r == 0 && !p.in.vmm)
        r = err_origin(-ESRCH, "the VMM of the sandbox %s has ended", s->record.name);
    if (r == 0)
        r = sandbox_commit(s, SANDBOX_PAUSING);
    if (r == 0) {
        r = pause_and_write(&p, job);
        if (r == 0) {
            r = clear_up(&p);
        } else {
            e = err_keep(r);
            r = err_tell(&e, sandbox_take_back(s, &p.in));
        }
    }
    instance_forget(&p.in);
    return r;
}
