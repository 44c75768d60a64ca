/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layer_state_read.c - a state that has all that happened before
 *
 * The pager's parts of a state are not read in one moment. So a copy whose pager is at rest only says that everything until
 * then was written down; the page states are those of the copy that is read after it.
 */
#include <errno.h>

#include "base/clock.h"
#include "base/err.h"
#include "node/layer_state.h"

#define WAIT_NS (1 * NS_PER_S)
#define NAP_NS  (1 * NS_PER_MS)

int layer_state_read(const char *path, struct state_copy **out)
{
    uint64_t until_ns = clock_now_ns() + WAIT_NS;

    for (;;) {
        _cleanup_(state_freep) struct state_copy *s = NULL;
        int r = state_read(path, &s);

        if (r < 0)
            return r;
        if (block_at_rest(&s->block))
            return state_read(path, out);
        if (s->stale)
            return err_origin(-EBUSY,
                              "%s was left by a pager that had messages in hand: let thaw serve "
                              "--adopt take the VM over",
                              path);
        if (clock_now_ns() > until_ns)
            return err_origin(-EBUSY, "%s is of a VM that does not rest: pause it", path);
        clock_sleep_ns(NAP_NS);
    }
}
