/* SPDX-License-Identifier: Apache-2.0 */
/* test_layer_state.c - what a pager's state says about the next layer of an image */
#include "testing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <thaw/thaw.h>

#include "base/err.h"
#include "node/layer_state.h"
#include "image_check.h"

#define N_PAGES 10u /* five in each of two regions: one of each state, as in steps */
#define START_S 2000000000ull

/* What is done to the pages of a region, one after the other */
static const struct {
    enum page_state state;
    int event; /* -1: nothing */
} steps[] = {
    {PAGE_ABSENT, -1},
    {PAGE_CLEAN, PAGE_EV_INSTALL},
    {PAGE_REMOVED, PAGE_EV_REMOVE},
    {PAGE_ZERO, PAGE_EV_ZEROFILL},
    {PAGE_DIRTY, PAGE_EV_INSTALL_WRITE},
};

static void *mem;
static struct block block;
static struct image parent = {.name = "base"};
static struct layer_state s;

/* make_vm() - of pages of 1 << @page_shift; the parent is what it was restored from */
static void make_vm(unsigned page_shift)
{
    struct geom_region regions[2] = {
        {.hva = 0x7f0000000000, .len_bytes = 5ull << page_shift, .imgoff = 5ull << page_shift},
        {.hva = 0x7e0000000000, .len_bytes = 5ull << page_shift, .imgoff = 0},
    };
    struct geom geom;
    hva_t bad;

    assert_int_equal(geom_init(&geom, regions, 2, page_shift, &bad), 0);
    mem = calloc(1, block_bytes(2, N_PAGES));
    assert_non_null(mem);
    block_format(&block, mem, &geom);
    block.header->start_time_ns = START_S * NS_PER_S;
    (void)snprintf(block.header->memory_path, sizeof(block.header->memory_path), "/srv/memory");
    for (pgno_t p = 0; p < N_PAGES; p++) {
        if (steps[p % 5].event >= 0)
            pagetab_step(&block.pages, (enum page_event)steps[p % 5].event, p, p + 1);
        assert_int_equal(pagetab_get(&block.pages, p), steps[p % 5].state);
    }
    parent.manifest = images_new((N_PAGES << page_shift) / IMAGE_PAGE, 1, 0, 0, 0, 0);
    parent.manifest->created_s = START_S - 1;
    memset(parent.manifest->id, 0xab, IMAGE_ID_BYTES);
}

static void end_vm(void)
{
    free(mem);
    parent.manifest = manifest_free(parent.manifest);
}

static int make_small(void **state)
{
    (void)state;
    make_vm(12);
    return 0;
}

static int end_small(void **state)
{
    (void)state;
    end_vm();
    return 0;
}

static int init(void)
{
    return layer_state_init(&s, &block, "it", &parent);
}

/* check_hints() - of absent, clean, removed, zero and dirty pages: "p" parent, "z" zero, "?" unsure */
static void check_hints(const char *expected)
{
    uint64_t in_page = (1ull << block.geom.page_shift) / IMAGE_PAGE;
    uint8_t *hints = NULL;

    assert_int_equal(init(), 0);
    assert_int_equal(layer_state_hints(&hints, &s, parent.manifest->image_bytes), 0);
    for (uint64_t i = 0; i < N_PAGES * in_page; i++)
        assert_int_equal("pz?"[hints[i]], expected[i / in_page % 5]);
    free(hints);
}

static void removed_and_zero_pages_are_zero_and_all_others_the_parent_s(void **state)
{
    (void)state;
    block.header->track = THAW_TRACK_WP;
    parent.manifest->created_s = START_S + 5; /* made of this VM: it may have what was written */
    check_hints("ppzzp");
}

static void a_write_that_is_in_no_file_and_no_parent_is_unsure(void **state)
{
    (void)state;
    check_hints("ppzz?");
    block.header->track = THAW_TRACK_WP;
    check_hints("ppzz?");
}

static void a_page_that_came_up_as_zero_may_have_been_written_to_where_nobody_tracks(void **state)
{
    (void)state;
    parent.manifest->created_s = START_S + 5;
    check_hints("ppz?p");
    parent.manifest->created_s = START_S; /* of the same second: that is not older */
    check_hints("ppz?p");
    parent.manifest->created_s = 0; /* not known */
    check_hints("ppz?p");
}

static void a_huge_page_that_was_written_to_is_unsure_if_pages_were_removed(void **state)
{
    (void)state;
    make_vm(21);
    check_hints("ppzzp");
    block.header->counters.removes = 1;
    check_hints("ppzz?");
    parent.manifest->created_s = START_S + 5;
    check_hints("ppz??");
    end_vm();
}

static void an_image_says_by_its_id_whether_it_is_what_is_served(void **state)
{
    char id[IMAGE_ID_TEXT];

    (void)state;
    parent.manifest->created_s = START_S + 5;
    (void)snprintf(block.header->memory_path, sizeof(block.header->memory_path),
                   "image:%s:/var/lib/thaw", image_id_text(parent.manifest->id, id));
    assert_int_equal(init(), 0);
    assert_true(s.fresh);
    memset(parent.manifest->id, 0xcd, IMAGE_ID_BYTES);
    assert_int_equal(init(), -EINVAL);
    assert_non_null(strstr(err_text(), "of image abababababab, which is not the parent base"));
    memset(parent.manifest->parents[0], 0xab, IMAGE_ID_BYTES);
    parent.manifest->n_parents = 1;
    assert_int_equal(init(), 0);
    assert_false(s.fresh);
    block.header->memory_inode = 5; /* a memory file with an odd name */
    parent.manifest->n_parents = 0;
    assert_int_equal(init(), 0);
}

static void a_state_of_a_vm_of_another_size_is_refused(void **state)
{
    (void)state;
    parent.manifest->image_bytes += IMAGE_PAGE;
    assert_int_equal(init(), -EINVAL);
    assert_non_null(strstr(err_text(), "it is of a VM of 40960 bytes, the parent base has 45056"));
}

static void a_state_that_says_nothing_of_later_discards_is_refused(void **state)
{
    (void)state;
    block.header->let_go = 1;
    assert_int_equal(init(), -EINVAL);
    assert_non_null(strstr(err_text(), "not needed any more"));
    block.header->let_go = 0;
    block.header->counters.ranges_let_go = 1;
    assert_int_equal(init(),
                     0); /* what was let go of is zero, in the parent too, or has been removed */
    parent.manifest->created_s = START_S + 5;
    assert_int_equal(init(), -EINVAL);
    assert_non_null(strstr(err_text(), "--let-go off"));
    block.header->track = THAW_TRACK_WP;
    assert_int_equal(init(), 0);
}

static void what_is_there_is_read_and_what_is_not_is_zero_unless_it_never_was(void **state)
{
    static const uint64_t there[] = {PAGEMAP_PRESENT, PAGEMAP_SWAPPED,
                                     PAGEMAP_PRESENT | PAGEMAP_ARMED};

    (void)state;
    for (int track = THAW_TRACK_NONE; track <= THAW_TRACK_WP; track++) {
        block.header->track = (uint32_t)track;
        assert_int_equal(init(), 0);
        for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
            enum page_state st = steps[i].state;

            for (unsigned k = 0; k < ARRAY_LEN(there); k++) {
                bool armed = track == THAW_TRACK_WP && st == PAGE_CLEAN && k == 2;

                assert_int_equal(layer_state_vm(&s, st, there[k], false),
                                 armed ? KIND_PARENT : KIND_DATA);
            }
            assert_int_equal(layer_state_vm(&s, st, 0, false),
                             st == PAGE_ABSENT ? KIND_PARENT : KIND_HOLE);
            assert_int_equal(layer_state_vm(&s, st, 0, true),
                             st == PAGE_ABSENT ? KIND_PARENT : KIND_DATA);
        }
    }
}

#define SMALL_TEST(f) cmocka_unit_test_setup_teardown(f, make_small, end_small)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SMALL_TEST(removed_and_zero_pages_are_zero_and_all_others_the_parent_s),
        SMALL_TEST(a_write_that_is_in_no_file_and_no_parent_is_unsure),
        SMALL_TEST(a_page_that_came_up_as_zero_may_have_been_written_to_where_nobody_tracks),
        cmocka_unit_test(a_huge_page_that_was_written_to_is_unsure_if_pages_were_removed),
        SMALL_TEST(an_image_says_by_its_id_whether_it_is_what_is_served),
        SMALL_TEST(a_state_of_a_vm_of_another_size_is_refused),
        SMALL_TEST(a_state_that_says_nothing_of_later_discards_is_refused),
        SMALL_TEST(what_is_there_is_read_and_what_is_not_is_zero_unless_it_never_was),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("layer_state", tests, NULL, NULL);
}
