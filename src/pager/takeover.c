/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/takeover.h"

#include <errno.h>

#include "base/err.h"
#include "uffd/install.h"

/* hold_vmm() - the process that the state file is about, and its userfaultfd */
static int hold_vmm(struct handshake *hs, const struct state_file *state)
{
    const struct block_header *h = state->block.header;
    int r;

    if (h->vmm_pid <= 0)
        return err_origin(-EINVAL, "state file %s names no VMM", state->path);
    r = peer_of_process(&hs->peer, h->vmm_pid);
    if (r < 0)
        return r;
    if (h->vmm_start_ticks != 0 && hs->peer.start_ticks != h->vmm_start_ticks)
        return err_origin(-ESRCH,
                          "the VMM, process %d, is gone: a process with its number began later",
                          h->vmm_pid);
    r = peer_take_uffd(&hs->peer, h->uffd_device, h->uffd_inode, &hs->uffd);
    return r < 0 ? r : uffd_check(hs->uffd);
}

int takeover_find(struct handshake *hs, struct state_file *state, const char *dir,
                  const char *which)
{
    int r;

    *hs = (struct handshake)HANDSHAKE_NONE;
    *state = (struct state_file)STATE_FILE_NONE;
    r = state_file_adopt(state, dir, which);
    if (r < 0)
        return r;
    r = hold_vmm(hs, state);
    if (r < 0) {
        handshake_deinit(hs);
        state_file_leave(state);
    }
    return r;
}
