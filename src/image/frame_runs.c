/* SPDX-License-Identifier: Apache-2.0 */
#include "image/frame_runs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/err.h"

int frame_runs_init(struct frame_runs *x, const struct manifest *m)
{
    *x = (struct frame_runs){
        .first = calloc((size_t)m->n_frames + 2, sizeof(*x->first)),
        .numbers = calloc(m->n_runs + 1, sizeof(*x->numbers)),
    };
    if (!x->first || !x->numbers) {
        frame_runs_deinit(x);
        return err_origin_errno(-ENOMEM, "no memory for a table of %" PRIu64 " runs", m->n_runs);
    }
    /* Counted two places further on, summed up, then each entry moves to the place before it as its runs are filled in. */
    for (uint64_t i = 0; i < m->n_runs; i++)
        x->first[m->runs[i].frame + 2]++;
    for (uint64_t f = 2; f < (uint64_t)m->n_frames + 2; f++)
        x->first[f] += x->first[f - 1];
    for (uint64_t i = 0; i < m->n_runs; i++)
        x->numbers[x->first[m->runs[i].frame + 1]++] = i;
    return 0;
}

void frame_runs_deinit(struct frame_runs *x)
{
    free(x->first);
    free(x->numbers);
    *x = (struct frame_runs){0};
}
