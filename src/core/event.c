/* SPDX-License-Identifier: Apache-2.0 */
#include "core/event.h"

const char *outcome_name(enum outcome o)
{
    static const char *const names[] = {
        [OUTCOME_DONE] = "done",     [OUTCOME_AGAIN] = "again",       [OUTCOME_EXISTS] = "exists",
        [OUTCOME_UNSURE] = "unsure", [OUTCOME_UNMAPPED] = "unmapped", [OUTCOME_NOMEM] = "nomem",
        [OUTCOME_SOURCE] = "source", [OUTCOME_GONE] = "gone",         [OUTCOME_REFUSED] = "refused",
    };

    assert((size_t)o < ARRAY_LEN(names));
    return names[o];
}

const char *stop_reason_name(enum stop_reason r)
{
    static const char *const names[] = {
        [STOP_NONE] = "running",
        [STOP_VMM_GONE] = "vmm-gone",
        [STOP_ASKED] = "stopped",
        [STOP_LEFT] = "left",
        [STOP_SOURCE] = "source",
        [STOP_NOMEM] = "nomem",
        [STOP_REFUSED] = "refused",
        [STOP_STRAY_FAULT] = "stray-fault",
        [STOP_UNKNOWN_EVENT] = "unknown-event",
    };

    assert((size_t)r < ARRAY_LEN(names));
    return names[r];
}
