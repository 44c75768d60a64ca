/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox_reconcile.c - what the record says and what is really there are brought together
 *
 * Called with the sandbox's lock, so nobody is at work on it: a state that ends in -ing was left by somebody who has died. What
 * happens in each state is in sandbox.h. Everything here may itself be killed at any moment, and is done again by the next one:
 * the record is changed last.
 */

#include <errno.h>
#include <limits.h>

#include "base/err.h"
#include "node/sandbox_private.h"
#include "node/tree.h"

#define ADOPT_MS 10000u

/* has_died() - of a running or pausing one */
static int has_died(struct sandbox *s, struct instance *in)
{
    const struct vmm_spec spec = template_spec(&s->origin); /* a jail says nothing of its end */
    _cleanup_(vmm_freep) struct vmm *vmm = NULL;
    char path[PATH_MAX];
    char why[200];
    bool of_this_boot = true;
    int r = sandbox_record_is_of_this_boot(&s->record, &of_this_boot);

    if (!of_this_boot)
        return sandbox_commit_dead(s, "the machine was started again");
    if (r == 0)
        r = instance_end(in, SANDBOX_DEADLINE_MS); /* of its pager, which ends by itself */
    if (r == 0)
        r = sandbox_path(s, path, sizeof(path), SANDBOX_VM);
    if (r == 0 && !tree_exists(path))
        return sandbox_commit_dead(s, "its removal was begun");
    if (r == 0)
        r = vmm_new(&vmm, sandbox_driver(s), &spec, path);
    if (r < 0)
        return r;
    vmm_end_text(vmm, why, sizeof(why));
    r = sandbox_leave_jail(s);
    return r == 0 ? sandbox_commit_dead(s, why) : r;
}

/* serve_again() - a VMM that nobody serves stands still at its next missing page: another pager goes on */
static int serve_again(struct sandbox *s, struct instance *in)
{
    const struct instance_spec serve = sandbox_serve_spec(s);
    char path[PATH_MAX];
    int r;

    if (instance_pager_lives(in))
        return 0;
    r = sandbox_path(s, path, sizeof(path), SANDBOX_VM);
    if (r == 0)
        r = instance_adopt(in, path, &serve, ADOPT_MS);
    return r == 0 || vmm_has_ended(in->vmm) ? 0 : r;
}

static int reconcile_running(struct sandbox *s, struct instance *in)
{
    int r = in->vmm ? serve_again(s, in) : 0;

    if (r == 0 && (!in->vmm || vmm_has_ended(in->vmm)))
        r = has_died(s, in);
    return r;
}

/* go_on() - of a guest that stands, or may: its VMM is asked */
static int go_on(struct vmm *vmm)
{
    enum vmm_run_state state;
    int r = vmm_state(vmm, &state, SANDBOX_DEADLINE_MS);

    if (r == 0 && state == VMM_PAUSED)
        r = vmm_resume(vmm, SANDBOX_DEADLINE_MS);
    return r;
}

int sandbox_take_back(struct sandbox *s, struct instance *in)
{
    int r = in->vmm ? serve_again(s, in) : 0;
    int dropped;

    if (r == 0 && in->vmm)
        r = go_on(in->vmm);
    if (!in->vmm || vmm_has_ended(in->vmm))
        r = has_died(s, in);
    else if (r == 0)
        r = sandbox_commit(s, SANDBOX_RUNNING);
    if (r < 0)
        return r;
    dropped = sandbox_drop_paused(s, s->record.generation + 1);
    return dropped == 0 ? sandbox_drop_image(s, s->record.generation + 1) : dropped;
}

int sandbox_clear_paused(struct sandbox *s, struct instance *in)
{
    unsigned generation = s->record.generation;
    int r = instance_end(in, SANDBOX_DEADLINE_MS);

    if (r == 0)
        r = sandbox_drop_paused(s, generation + 1);
    if (r == 0 && generation > 0)
        r = sandbox_drop_paused(s, generation - 1);
    if (r == 0 && generation > 1)
        r = sandbox_drop_image(s, generation - 1);
    return r == 0 ? sandbox_drop_vm(s)
                  : r; /* last: as long as it is there, somebody will come back to this */
}

/* reconcile_paused() - who paused it has died before all was cleared up, or has not */
static int reconcile_paused(struct sandbox *s, struct instance *in)
{
    char path[PATH_MAX];
    int r = sandbox_path(s, path, sizeof(path), SANDBOX_VM);

    return r < 0 || !tree_exists(path) ? r : sandbox_clear_paused(s, in);
}

int sandbox_back_to_paused(struct sandbox *s, struct instance *in)
{
    int r = instance_end(in, SANDBOX_DEADLINE_MS);

    if (r == 0)
        r = sandbox_drop_vm(s);
    return r == 0 ? sandbox_commit(s, SANDBOX_PAUSED) : r;
}

/* reconcile_starting() - nobody was told of it */
static int reconcile_starting(struct sandbox *s)
{
    int r = sandbox_erase(s);

    return r < 0
               ? r
               : err_origin(-ENOENT, "no sandbox %s in the store %s: who began to make it has died",
                            s->record.name, s->store);
}

int sandbox_reconcile(struct sandbox *s)
{
    struct instance in;
    int r;

    if (s->record.state == SANDBOX_STARTING)
        return reconcile_starting(s);
    r = sandbox_instance(s, &in);
    if (r == 0) {
        switch (s->record.state) {
        case SANDBOX_RUNNING:
            r = reconcile_running(s, &in);
            break;
        case SANDBOX_PAUSING:
            r = sandbox_take_back(s, &in);
            break;
        case SANDBOX_PAUSED:
            r = reconcile_paused(s, &in);
            break;
        case SANDBOX_RESUMING:
            r = sandbox_back_to_paused(s, &in);
            break;
        default: /* dead */
            break;
        }
    }
    instance_forget(&in);
    return r;
}
