/* SPDX-License-Identifier: Apache-2.0 */
#include "node/layer_hot.h"

#include "base/clock.h"
#include "image/hot_next.h"
#include "node/state_copy.h"
#include "node/tree.h"

#define WRITTEN_NS \
    (500 * NS_PER_MS) /* for a record that has ended to be there: longer is not worth it */
#define POLL_NS NS_PER_MS

bool layer_hot_end_record(const char *state_path)
{
    _cleanup_(state_freep) struct state_copy *s = NULL;

    return state_read(state_path, &s) == 0 && s->block.header->generation <= 1 &&
           state_tell_ready(s, state_path) == 0;
}

static bool wait_written(const char *record, bool expected)
{
    uint64_t deadline_ns = clock_now_ns() + (expected ? WRITTEN_NS : 0);

    while (!tree_exists(record)) {
        if (clock_now_ns() >= deadline_ns)
            return false;
        clock_sleep_ns(POLL_NS);
    }
    return true;
}

int layer_hot(struct workingset **out, const struct image *served, const char *record,
              bool expected, unsigned generation)
{
    _cleanup_(workingset_freep) struct workingset *missed = NULL;
    const struct manifest *m = served->manifest;

    if (wait_written(record, expected) && workingset_read(&missed, record) == 0 &&
        missed->image_bytes != m->image_bytes)
        missed = workingset_free(missed);
    return hot_next(out, m, missed, generation);
}
