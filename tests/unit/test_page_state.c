/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <ctype.h>
#include <string.h>

#include "core/page_state.h"

static const enum page_state all_states[] = {
#define PAGE_STATE(name, code, reads, colour, meaning) PAGE_##name,
#include "core/page_states.def"
};

static bool leads_somewhere(enum page_event ev, enum page_state from)
{
    return page_edges[ev][from] != PAGE_NO_EDGE;
}

static void codes_are_dense_and_nothing_happened_is_zero(void **state)
{
    (void)state;
    assert_int_equal(ARRAY_LEN(all_states), N_PAGE_STATES);
    for (unsigned s = 0; s < N_PAGE_STATES; s++)
        assert_int_equal(all_states[s], s);
    assert_int_equal(PAGE_ABSENT, 0);
    assert_int_equal(page_state_reads[PAGE_ABSENT], PAGE_READS_IMAGE);
}

static void every_state_has_a_name_a_meaning_and_a_colour_of_its_own(void **state)
{
    (void)state;
    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        assert_true(strlen(page_state_names[s]) > 0);
        assert_true(strlen(page_state_meanings[s]) > 0);
        assert_int_equal(strlen(page_state_colours[s]), 7);
        assert_int_equal(page_state_colours[s][0], '#');
        for (unsigned i = 1; i < 7; i++)
            assert_true(isxdigit((unsigned char)page_state_colours[s][i]));
        for (unsigned t = 0; t < s; t++) {
            assert_string_not_equal(page_state_names[s], page_state_names[t]);
            assert_string_not_equal(page_state_colours[s], page_state_colours[t]);
        }
    }
}

static void every_state_answers_a_fault_exactly_once(void **state)
{
    unsigned n[N_PAGE_STATES] = {0};

    (void)state;
#define PAGE_FAULT(state, answer) n[PAGE_##state]++;
#include "core/page_states.def"
    for (unsigned s = 0; s < N_PAGE_STATES; s++)
        assert_int_equal(n[s], 1);
}

static void the_image_answers_only_where_nothing_happened_yet(void **state)
{
    (void)state;
    for (unsigned s = 0; s < N_PAGE_STATES; s++)
        assert_int_equal(page_state_answers[s],
                         s == PAGE_ABSENT ? PAGE_ANSWER_IMAGE : PAGE_ANSWER_ZERO);
}

static void no_edge_is_given_twice(void **state)
{
    unsigned n[N_PAGE_EVENTS][N_PAGE_STATES] = {0};

    (void)state;
#define PAGE_EDGE(event, from, to) n[PAGE_EV_##event][PAGE_##from]++;
#include "core/page_states.def"
    for (unsigned e = 0; e < N_PAGE_EVENTS; e++) {
        for (unsigned s = 0; s < N_PAGE_STATES; s++)
            assert_int_equal(n[e][s], leads_somewhere((enum page_event)e, (enum page_state)s));
    }
}

static void image_bytes_are_installed_only_where_nothing_happened_yet(void **state)
{
    (void)state;
    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        assert_int_equal(leads_somewhere(PAGE_EV_INSTALL, (enum page_state)s), s == PAGE_ABSENT);
        assert_int_equal(leads_somewhere(PAGE_EV_INSTALL_WRITE, (enum page_state)s),
                         s == PAGE_ABSENT);
    }
}

static void a_removal_leads_to_removed_from_everywhere(void **state)
{
    (void)state;
    for (unsigned s = 0; s < N_PAGE_STATES; s++)
        assert_int_equal(page_edges[PAGE_EV_REMOVE][s], PAGE_REMOVED);
}

/* Everything that can follow a removal, in any number of steps. */
static void nothing_that_follows_a_removal_reads_as_the_image(void **state)
{
    bool reached[N_PAGE_STATES] = {[PAGE_REMOVED] = true};

    (void)state;
    for (unsigned round = 0; round < N_PAGE_STATES; round++) {
        for (unsigned e = 0; e < N_PAGE_EVENTS; e++) {
            for (unsigned s = 0; s < N_PAGE_STATES; s++) {
                if (reached[s] && leads_somewhere((enum page_event)e, (enum page_state)s))
                    reached[page_edges[e][s]] = true;
            }
        }
    }
    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        if (reached[s])
            assert_int_not_equal(page_state_reads[s], PAGE_READS_IMAGE);
    }
}

static void what_can_happen_in_any_state_has_an_edge_from_any_state(void **state)
{
    static const enum page_event any[] = {PAGE_EV_ZEROFILL, PAGE_EV_ZEROFILL_WRITE, PAGE_EV_FOUND,
                                          PAGE_EV_REMOVE, PAGE_EV_REMOVE_PART};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(any); i++) {
        for (unsigned s = 0; s < N_PAGE_STATES; s++)
            assert_true(leads_somewhere(any[i], (enum page_state)s));
    }
}

static void a_write_is_seen_only_on_pages_that_are_installed(void **state)
{
    (void)state;
    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        bool installed = s != PAGE_ABSENT && s != PAGE_REMOVED;

        assert_int_equal(leads_somewhere(PAGE_EV_WRITTEN, (enum page_state)s), installed);
        if (installed)
            assert_int_equal(page_edges[PAGE_EV_WRITTEN][s], PAGE_DIRTY);
    }
}

static void a_page_of_unknown_bytes_is_never_taken_for_the_images(void **state)
{
    (void)state;
    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        uint8_t found = page_edges[PAGE_EV_FOUND][s];
        uint8_t part = page_edges[PAGE_EV_REMOVE_PART][s];

        /* What was not installed by us and is there is its own; what we installed stays what it was. */
        assert_int_equal(found, s == PAGE_ABSENT || s == PAGE_REMOVED ? PAGE_DIRTY : s);
        /* A page of which a part is gone differs from the image, unless it was not there. */
        assert_int_equal(part, s == PAGE_ABSENT || s == PAGE_REMOVED ? s : PAGE_DIRTY);
    }
}

static void zeroes_read_as_zero_and_a_write_as_itself(void **state)
{
    (void)state;
    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        assert_int_equal(page_state_reads[page_edges[PAGE_EV_ZEROFILL][s]], PAGE_READS_ZERO);
        assert_int_equal(page_state_reads[page_edges[PAGE_EV_ZEROFILL_WRITE][s]], PAGE_READS_SELF);
    }
    assert_int_equal(page_state_reads[page_edges[PAGE_EV_INSTALL][PAGE_ABSENT]], PAGE_READS_IMAGE);
    assert_int_equal(page_state_reads[page_edges[PAGE_EV_INSTALL_WRITE][PAGE_ABSENT]],
                     PAGE_READS_SELF);
}

/* is_harmless() - may a pager be killed while a page that goes from @from to @to has the bits @code? */
static bool is_harmless(enum page_event ev, unsigned from, unsigned to, unsigned code)
{
    bool dirty = code >= PAGE_DIRTY; /* the page table takes codes that are no state for DIRTY */

    return code == from || code == to || dirty ||
           ev == PAGE_EV_REMOVE ||                    /* another pager applies it again */
           (to == PAGE_ZERO && code == PAGE_REMOVED); /* zero as well */
}

static void a_pager_killed_in_the_middle_of_a_change_leaves_nothing_wrong(void **state)
{
    (void)state;
    for (unsigned ev = 0; ev < N_PAGE_EVENTS; ev++) {
        for (unsigned from = 0; from < N_PAGE_STATES; from++) {
            unsigned to = page_edges[ev][from];
            unsigned code = from;

            if (to == PAGE_NO_EDGE)
                continue;
            /* As pagetab.c stores it: bits are set from the highest down, then cleared from the lowest up. */
            for (unsigned bit = 3; bit-- > 0;) {
                code |= to & (1u << bit);
                assert_true(is_harmless((enum page_event)ev, from, to, code));
            }
            for (unsigned bit = 0; bit < 3; bit++) {
                code &= to | ~(1u << bit);
                assert_true(is_harmless((enum page_event)ev, from, to, code));
            }
            assert_int_equal(code, to);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_dense_and_nothing_happened_is_zero),
        cmocka_unit_test(every_state_has_a_name_a_meaning_and_a_colour_of_its_own),
        cmocka_unit_test(every_state_answers_a_fault_exactly_once),
        cmocka_unit_test(the_image_answers_only_where_nothing_happened_yet),
        cmocka_unit_test(no_edge_is_given_twice),
        cmocka_unit_test(image_bytes_are_installed_only_where_nothing_happened_yet),
        cmocka_unit_test(a_removal_leads_to_removed_from_everywhere),
        cmocka_unit_test(nothing_that_follows_a_removal_reads_as_the_image),
        cmocka_unit_test(what_can_happen_in_any_state_has_an_edge_from_any_state),
        cmocka_unit_test(a_write_is_seen_only_on_pages_that_are_installed),
        cmocka_unit_test(a_page_of_unknown_bytes_is_never_taken_for_the_images),
        cmocka_unit_test(zeroes_read_as_zero_and_a_write_as_itself),
        cmocka_unit_test(a_pager_killed_in_the_middle_of_a_change_leaves_nothing_wrong),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("page_state", tests, NULL, NULL);
}
