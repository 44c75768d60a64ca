/* SPDX-License-Identifier: Apache-2.0 */
/* test_image_source.c - images as a page source: where pages are */
#include "testing.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "base/fd.h"
#include "image_rig.h"

#define HUGE_PAGE (2 * MIB)

/* ---- where pages are -------------------------------------------------------------------------------------------- */

static void a_page_of_no_run_is_zero_as_far_as_no_run_is(void **state)
{
    struct rig m = rig_begin(64);
    struct source *s;

    (void)state;
    rig_add_pages(&m, 16, 8, FRAME_ZSTD);
    rig_add_pages(&m, 40, 4, FRAME_ZSTD);
    s = rig_end(&m, MIB);
    rig_check(s, 0, 0, 64, THAW_WHERE_ZERO, 0, 16);
    rig_check(s, 5, 4, 8, THAW_WHERE_ZERO, 4, 8);
    rig_check(s, 30, 0, 64, THAW_WHERE_ZERO, 24, 40);
    rig_check(s, 63, 32, 64, THAW_WHERE_ZERO, 44, 64);
    rig_close(s);
}

static void an_image_without_frames_is_zero(void **state)
{
    struct rig m = rig_begin(1024);
    struct source *s = rig_end(&m, MIB);

    (void)state;
    rig_check(s, 100, 0, 1024, THAW_WHERE_ZERO, 0, 1024);
    rig_fetch(s, 0, 1024);
    source_expect(s, 0, 1024 * PAGE);
    source_trim(s);
    rig_close(s);
}

static void a_frame_is_elsewhere_until_it_is_fetched(void **state)
{
    static const enum frame_codec codecs[] = {FRAME_STORED, FRAME_LZ4, FRAME_ZSTD};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(codecs); i++) {
        struct rig m = rig_begin(64);
        struct source *s;

        rig_add_pages(&m, 8, 16, codecs[i]);
        s = rig_end(&m, MIB);
        rig_check(s, 10, 0, 64, THAW_WHERE_ELSEWHERE, 8, 24);
        rig_check(s, 10, 9, 12, THAW_WHERE_ELSEWHERE, 9, 12);
        assert_null(rig_look(s, 10, 0, 64).bytes);
        rig_fetch(s, 10, 11);
        rig_check(s, 10, 0, 64, THAW_WHERE_MEMORY, 8, 24);
        rig_check(s, 23, 16, 32, THAW_WHERE_MEMORY, 16, 24);
        rig_check(s, 24, 0, 64, THAW_WHERE_ZERO, 24, 64);
        rig_close(s);
    }
}

static void frames_beside_each_other_are_one_extent(void **state)
{
    struct rig m = rig_begin(64);
    struct source *s;

    (void)state;
    rig_add_pages(&m, 16, 16, FRAME_LZ4);
    rig_add_pages(&m, 0, 16, FRAME_ZSTD);
    s = rig_end(&m, MIB);
    rig_check(s, 3, 0, 64, THAW_WHERE_ELSEWHERE, 0, 16);
    rig_fetch(s, 15, 17);
    rig_check(s, 3, 0, 64, THAW_WHERE_MEMORY, 0, 32);
    rig_close(s);
}

static void pages_of_a_frame_go_where_they_belong_in_any_order(void **state)
{
    static const uint64_t pages[] = {200, 7, 8, 6, 130};
    struct rig m = rig_begin(256);
    struct source *s;
    uint32_t f;

    (void)state;
    f = rig_add_frame(&m, pages, ARRAY_LEN(pages), FRAME_ZSTD);
    rig_add_run(&m, 200, 1, f, 0);
    rig_add_run(&m, 7, 2, f, 1);
    rig_add_run(&m, 6, 1, f, 3);
    rig_add_run(&m, 130, 1, f, 4);
    s = rig_end(&m, MIB);
    rig_check(s, 6, 0, 256, THAW_WHERE_ELSEWHERE, 6, 9);
    rig_fetch(s, 200, 201);
    rig_check(s, 8, 0, 256, THAW_WHERE_MEMORY, 6, 9);
    rig_check(s, 130, 0, 256, THAW_WHERE_MEMORY, 130, 131);
    rig_check(s, 200, 0, 256, THAW_WHERE_MEMORY, 200, 201);
    rig_check(s, 131, 0, 256, THAW_WHERE_ZERO, 131, 200);
    rig_close(s);
}

/* As of a parent whose frame is used in part, beside pages of the child's own. */
static void a_frame_that_is_used_in_part_brings_that_part_only(void **state)
{
    uint64_t pages[32];
    struct rig m = rig_begin(64);
    struct source *s;
    uint32_t f;

    (void)state;
    for (unsigned i = 0; i < 32; i++)
        pages[i] = i;
    f = rig_add_frame(&m, pages, 32, FRAME_ZSTD);
    rig_add_run(&m, 2, 3, f, 2);
    rig_add_run(&m, 20, 4, f, 20);
    rig_add_pages(&m, 5, 1, FRAME_STORED);
    s = rig_end(&m, MIB);
    rig_fetch(s, 2, 3);
    rig_check(s, 2, 0, 64, THAW_WHERE_MEMORY, 2, 5);
    rig_check(s, 5, 0, 64, THAW_WHERE_ELSEWHERE, 5, 6);
    rig_check(s, 20, 0, 64, THAW_WHERE_MEMORY, 20, 24);
    rig_check(s, 0, 0, 64, THAW_WHERE_ZERO, 0, 2);
    rig_close(s);
}

static void locate_huge(struct source *s, uint64_t huge, enum thaw_where where)
{
    struct thaw_extent x;

    assert_int_equal(source_locate(s, &x, huge * HUGE_PAGE, 0, 4 * HUGE_PAGE, HUGE_PAGE), 0);
    assert_int_equal(x.where, where);
    assert_int_equal(x.first, huge * HUGE_PAGE);
    assert_int_equal(x.end, (huge + 1) * HUGE_PAGE);
    if (where != THAW_WHERE_MEMORY)
        return;
    for (uint64_t p = huge * 512; p < huge * 512 + 512; p++) {
        const char *page = (const char *)x.bytes + (p - huge * 512) * PAGE;
        bool zero = rig_look(s, p, p, p + 1).where == THAW_WHERE_ZERO;

        assert_true(zero ? page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0
                         : rig_is_page(page, p));
    }
}

static void a_huge_page_is_there_when_all_its_parts_are(void **state)
{
    struct rig m = rig_begin(2048);
    struct source *s;

    (void)state;
    rig_add_pages(&m, 0, 512, FRAME_ZSTD);
    rig_add_pages(&m, 600, 100, FRAME_LZ4);
    rig_add_pages(&m, 900, 200, FRAME_ZSTD); /* into the third one */
    s = rig_end(&m, 4 * MIB);
    locate_huge(s, 0, THAW_WHERE_ELSEWHERE);
    locate_huge(s, 3, THAW_WHERE_ZERO);
    rig_fetch(s, 0, 512);
    locate_huge(s, 0, THAW_WHERE_MEMORY);
    rig_fetch(s, 600, 601);
    locate_huge(s, 1, THAW_WHERE_ELSEWHERE);
    rig_fetch(s, 512, 1024);
    locate_huge(s, 1, THAW_WHERE_MEMORY);
    locate_huge(s, 2, THAW_WHERE_MEMORY);
    locate_huge(s, 3, THAW_WHERE_ZERO);
    rig_close(s);
}

static void a_frame_that_is_everywhere_is_refused(void **state)
{
    uint64_t page = 0;
    struct rig m = rig_begin(1024);
    struct source *s = NULL;
    uint32_t f;

    (void)state;
    f = rig_add_frame(&m, &page, 1, FRAME_ZSTD);
    for (uint64_t p = 0; p < 1024; p++)
        rig_add_run(&m, p, 1, f, 0);
    assert_int_equal(rig_open(&m, &s, MIB), -EINVAL);
    assert_non_null(strstr(err_text(), "image test has frame 0 in more than 512 pages"));
    assert_null(s);
    rig_pack = fd_close(rig_pack);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_of_no_run_is_zero_as_far_as_no_run_is),
        cmocka_unit_test(an_image_without_frames_is_zero),
        cmocka_unit_test(a_frame_is_elsewhere_until_it_is_fetched),
        cmocka_unit_test(frames_beside_each_other_are_one_extent),
        cmocka_unit_test(pages_of_a_frame_go_where_they_belong_in_any_order),
        cmocka_unit_test(a_frame_that_is_used_in_part_brings_that_part_only),
        cmocka_unit_test(a_huge_page_is_there_when_all_its_parts_are),
        cmocka_unit_test(a_frame_that_is_everywhere_is_refused),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
