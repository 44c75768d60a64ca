/* SPDX-License-Identifier: Apache-2.0 */
#include "engine_check.h"

#include <inttypes.h>
#include <stdio.h>

static char verdict[160];

static bool is_on_its_way(const struct engine *e, pgno_t p)
{
    if (pagetab_get(&e->block->pages, p) != PAGE_ABSENT)
        return false; /* it must not wait for bytes that are not wanted any more */
    for (unsigned i = 0; i < e->fetches.n; i++) {
        if (e->fetches.runs[i].first <= p && p < e->fetches.runs[i].end)
            return true;
    }
    return false;
}

/* will_be_retried() - a pass that has not come to the page yet, or one still to begin, will ask again */
static bool will_be_retried(const struct engine *e, pgno_t p, bool protected)
{
    if (e->retry_at_ns != ENGINE_NEVER)
        return true;
    if (!e->in_pass)
        return false;
    if (e->began_late)
        return true; /* it goes around */
    if (protected)
        return !e->cursor_wp || p >= e->cursor;
    return !e->cursor_wp && p >= e->cursor;
}

static const char *check_waiting(const struct engine *e, const struct bitset *set, bool protected)
{
    for (pgno_t p = bitset_next(set, 0); p != BITSET_NONE; p = bitset_next(set, p + 1)) {
        if (is_on_its_way(e, p) || will_be_retried(e, p, protected))
            continue;
        if (e->fetches.n == FETCH_TABLE_MAX && pagetab_get(&e->block->pages, p) == PAGE_ABSENT)
            continue; /* the next fetch that ends makes room, and has it tried again */
        (void)snprintf(verdict, sizeof(verdict),
                       "somebody waits for p%" PRIu64 " (%s, %s) and nothing will come of it", p,
                       protected ? "write-protected" : "missing",
                       page_state_names[pagetab_get(&e->block->pages, p)]);
        return verdict;
    }
    return NULL;
}

static const char *check_fetches(const struct engine *e)
{
    if (e->fetches.n > FETCH_TABLE_MAX)
        return "more fetches than there is room for";
    for (unsigned i = 0; i < e->fetches.n; i++) {
        if (e->fetches.runs[i].first >= e->fetches.runs[i].end ||
            e->fetches.runs[i].end > e->block->pages.n_pages)
            return "a fetch of no pages, or beyond the last page";
        for (unsigned j = 0; j < i; j++) {
            if (e->fetches.runs[i].first == e->fetches.runs[j].first &&
                e->fetches.runs[i].end == e->fetches.runs[j].end)
                return "one run is being fetched twice";
        }
    }
    return NULL;
}

static bool anybody_waits(const struct engine *e)
{
    return bitset_next(&e->block->waiting, 0) != BITSET_NONE ||
           bitset_next(&e->block->waiting_wp, 0) != BITSET_NONE;
}

const char *engine_check(const struct engine *e, uint64_t now_ns)
{
    uint64_t deadline = engine_deadline_ns(e);
    const char *wrong = check_fetches(e);

    if (!wrong)
        wrong = check_waiting(e, &e->block->waiting, false);
    if (!wrong)
        wrong = check_waiting(e, &e->block->waiting_wp, true);
    if (wrong)
        return wrong;
    if (e->backoff_ns < ENGINE_BACKOFF_MIN_NS || e->backoff_ns > ENGINE_BACKOFF_MAX_NS)
        return "the pause after a refusal is out of its limits";
    if (deadline != ENGINE_NEVER && anybody_waits(e) && deadline > now_ns + ENGINE_NOMEM_RETRY_NS)
        return "somebody waits and the next try is too far away";
    return NULL;
}
