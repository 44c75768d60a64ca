/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox_fork.c - another sandbox that is paused where one is
 *
 * Nobody writes to what a pause has written down, so the fork has links to it, and a name of its own for the same image: each of the two
 * can be resumed, paused and removed without regard to the other. Layers that only one of them needs any more are freed when the
 * other one goes.
 */

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

#include "base/err.h"
#include "node/sandbox_private.h"
#include "node/tree.h"

#define FIRST 1u /* the generation that a fork begins with */

/* take_pause() - what pause @s->record.generation has written down is the first pause of @fork */
static int take_pause(const struct sandbox *s, const struct sandbox *fork)
{
    char from[PATH_MAX];
    char to[PATH_MAX];
    int r = sandbox_paused_path(s, from, sizeof(from), s->record.generation, false);

    if (r == 0)
        r = sandbox_paused_path(fork, to, sizeof(to), FIRST, false);
    if (r == 0 && mkdir(to, 0700) < 0)
        r = err_origin_errno(-errno, "cannot make the folder %s", to);
    if (r == 0)
        r = tree_put_file(tree_link_durable, from, to, VMM_FILE_STATE);
    if (r == 0 && s->origin.has_rootfs)
        r = tree_put_file(tree_link_durable, from, to, VMM_FILE_ROOTFS);
    if (r == 0)
        r = tree_sync(to);
    return r == 0 ? tree_sync(fork->folder) : r;
}

/* take_image() - the origin's name keeps it until then */
static int take_image(const struct sandbox *fork)
{
    _cleanup_(store_closep) struct store *store = NULL;
    uint8_t id[IMAGE_ID_BYTES];
    char name[STORE_NAME_MAX];
    int r = store_open(&store, fork->store, false);

    if (r == 0)
        r = store_find(store, fork->record.image, id);
    return r == 0 ? store_put_name(store, sandbox_image_name(fork, FIRST, name), id, true) : r;
}

static int make_record(struct sandbox_record *out, const struct sandbox *s,
                       const struct sandbox_wishes *wishes)
{
    const struct sandbox_record *of = &s->record;
    const char *state_dir = wishes->state_dir ? wishes->state_dir : of->state_dir;
    int r = sandbox_record_set_text(&out->template_name, of->template_name);

    if (r == 0)
        r = sandbox_record_set_text(&out->forked_from, of->name);
    if (r == 0)
        r = sandbox_record_set_text(&out->image, of->image);
    if (r == 0)
        r = sandbox_record_set_text(&out->base, of->base);
    if (r == 0)
        r = sandbox_jail_copy(&out->jail, &of->jail);
    return r == 0 && state_dir ? sandbox_record_set_text(&out->state_dir, state_dir) : r;
}

int sandbox_fork(struct sandbox **out, struct sandbox *s, const struct sandbox_wishes *wishes)
{
    struct sandbox_record record = {0};
    _cleanup_(sandbox_closep) struct sandbox *fork = NULL;
    struct err_kept e;
    int r = sandbox_require(s, SANDBOX_PAUSED, "fork it");

    if (r == 0)
        r = make_record(&record, s, wishes);
    if (r == 0)
        r = sandbox_create(&fork, s->store, &record, &s->origin, s->folder, wishes->name);
    sandbox_record_deinit(&record);
    if (!fork)
        return r;
    if (r == 0)
        r = take_pause(s, fork);
    if (r == 0)
        r = take_image(fork);
    if (r == 0) {
        fork->record.generation = FIRST;
        r = sandbox_commit(fork, SANDBOX_PAUSED);
    }
    if (r == 0) {
        *out = TAKE(fork);
        return 0;
    }
    e = err_keep(r);
    return err_tell(&e, sandbox_erase(fork));
}
