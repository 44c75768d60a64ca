/* SPDX-License-Identifier: Apache-2.0 */
#include "core/page_state.h"

const char *const page_state_names[N_PAGE_STATES] = {
#define PAGE_STATE(name, code, reads, colour, meaning) [code] = #name,
#include "core/page_states.def"
};

const char *const page_state_meanings[N_PAGE_STATES] = {
#define PAGE_STATE(name, code, reads, colour, meaning) [code] = (meaning),
#include "core/page_states.def"
};

const char *const page_state_colours[N_PAGE_STATES] = {
#define PAGE_STATE(name, code, reads, colour, meaning) [code] = (colour),
#include "core/page_states.def"
};

const enum page_reads page_state_reads[N_PAGE_STATES] = {
#define PAGE_STATE(name, code, reads, colour, meaning) [code] = PAGE_READS_##reads,
#include "core/page_states.def"
};

const enum page_answer page_state_answers[N_PAGE_STATES] = {
#define PAGE_FAULT(state, answer) [PAGE_##state] = PAGE_ANSWER_##answer,
#include "core/page_states.def"
};

const char *const page_event_names[N_PAGE_EVENTS] = {
#define PAGE_EVENT(name, meaning) #name,
#include "core/page_states.def"
};

/* Every pair is "must never happen" unless an edge says otherwise. */
#if defined(__clang__)
#    pragma clang diagnostic ignored "-Winitializer-overrides"
#else
#    pragma GCC diagnostic ignored "-Woverride-init"
#endif
const uint8_t page_edges[N_PAGE_EVENTS][N_PAGE_STATES] = {
    [0 ... N_PAGE_EVENTS - 1] = {[0 ... N_PAGE_STATES - 1] = PAGE_NO_EDGE},
#define PAGE_EDGE(event, from, to) [PAGE_EV_##event][PAGE_##from] = PAGE_##to,
#include "core/page_states.def"
};

static_assert(PAGE_ABSENT == 0, "all-zero memory is a table of pages that nothing has happened to");
static_assert(N_PAGE_STATES <= 8, "a state is stored in three bits");
