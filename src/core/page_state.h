/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_PAGE_STATE_H
#define CORE_PAGE_STATE_H

/* page_state.h - the tables of page_states.def as C */

#include "base/base.h"

enum page_state {
#define PAGE_STATE(name, code, reads, colour, meaning) PAGE_##name = (code),
#include "core/page_states.def"
    N_PAGE_STATES
};

enum page_event {
#define PAGE_EVENT(name, meaning) PAGE_EV_##name,
#include "core/page_states.def"
    N_PAGE_EVENTS
};

/** enum page_reads - what the guest reads in a page */
enum page_reads {
    PAGE_READS_IMAGE,
    PAGE_READS_ZERO,
    PAGE_READS_SELF,
};

/** enum page_answer - what a missing fault is answered with */
enum page_answer {
    PAGE_ANSWER_IMAGE,
    PAGE_ANSWER_ZERO,
};

#define PAGE_NO_EDGE 0xff

extern const char *const page_state_names[N_PAGE_STATES];
extern const char *const page_state_meanings[N_PAGE_STATES];
extern const char *const page_state_colours[N_PAGE_STATES]; /* "#rrggbb" */
extern const enum page_reads page_state_reads[N_PAGE_STATES];
extern const enum page_answer page_state_answers[N_PAGE_STATES];
extern const char *const page_event_names[N_PAGE_EVENTS];

/* page_edges[event][from] is the state it leads to, or PAGE_NO_EDGE: must never happen */
extern const uint8_t page_edges[N_PAGE_EVENTS][N_PAGE_STATES];

#endif
