/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ahead.pml - what the pager installs although nobody has asked for it, and who does that: a part of pager.pml
 */

/* The page chosen to be installed ahead: nobody reads messages before its outcome is known, or while it may be installed. */
#ifdef ASIDE
#define AHEAD
bool lent;
#endif
#ifdef AHEAD
#define CHOSEN    1
#define INSTALLED 2
byte ahead_is, ahead_page, ahead_outcome;
#define MAY_CHOOSE(p) \
    (ahead_is == 0 && !UFFD_READABLE && !HAS_BATCH && waiting[0] == 0 && waiting[PAGES - 1] == 0 && page_state[p] == PAGE_ABSENT)
#ifdef MUTATE_READ_BESIDE_HELPER
#define IS_FREE true
#elif defined(ASIDE)
#define IS_FREE (!lent && ahead_is != INSTALLED)
#else
#define IS_FREE (ahead_is == 0)
#endif
#else
#define IS_FREE true
#endif
#ifdef ASIDE
#define MAY_INSTALL (ahead_is == CHOSEN && lent)
#define MAY_LEND \
    (!lent && ahead_is == CHOSEN && !UFFD_READABLE && !HAS_BATCH && waiting[0] == 0 && waiting[PAGES - 1] == 0)
#else
#define MAY_INSTALL (ahead_is == CHOSEN)
#endif

#ifdef AHEAD
inline choose(p)
{
    ahead_page = p;
    ahead_is = CHOSEN
}

/* What became of it. What was refused is left for another time. */
inline report_ahead()
{
    if
#ifdef MUTATE_READ_BESIDE_HELPER
    :: page_state[ahead_page] != PAGE_ABSENT /* ... and does not notice */
    :: ahead_outcome == DONE && page_state[ahead_page] == PAGE_ABSENT ->
#else
    :: ahead_outcome == DONE ->
#endif
        event = EVENT_OF_IMAGE(false);
        if
        :: IMAGE_AT(ahead_page) == ZEROES -> event = EVENT_OF_ZEROES(false)
        :: else
        fi;
        page_step(event, ahead_page);
        waiting[ahead_page] = 0
    :: ahead_outcome == EXISTS -> page_step(EV_FOUND, ahead_page)
    :: ahead_outcome == AGAIN
    fi;
    ahead_is = 0;
    ahead_page = 0;
    ahead_outcome = 0
}

#ifdef ASIDE
inline take_back()
{
    lent = false;
    if
    :: ahead_is == INSTALLED -> report_ahead()
    :: else
    fi
}

/* What is chosen must not be there after a discard of it. */
inline take_out()
{
    if
#ifndef MUTATE_KEEP_CHOSEN
    :: ahead_is == CHOSEN && (batch_removed & (1 << ahead_page)) != 0 ->
        ahead_is = 0;
        ahead_page = 0
#endif
    :: else
    fi
}
#endif
#endif

#ifdef AHEAD
/* Installs what was chosen: the pager thread itself, or another one. */
active proctype installer()
{
end_idle:
    do
    :: d_step {
            MAY_INSTALL -> kernel_install(ahead_page, IMAGE_AT(ahead_page), ARM, ahead_outcome);
            ahead_is = INSTALLED
        }
    od
}
#endif
