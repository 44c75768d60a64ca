/* SPDX-License-Identifier: Apache-2.0 */
/* test_diff_file.c - files of what changed: data, holes, and what is known of these */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/err.h"
#include "image/diff_file.h"
#include "image_check.h"

#define N_PAGES 7u /* all combinations of data and holes are tried */
#define BYTES   (N_PAGES * IMAGE_PAGE)
#define OLD_S   1000000000

static char path[64];
static int fd = -1;           /* of the file, to write to it */
static bool holes_are_secret; /* the file system says that all is data */
static uint8_t hints[N_PAGES];
static uint8_t kinds[N_PAGES];
static struct manifest *parent; /* has bytes of every other page: 1, 3, 5 */

off_t __real_lseek64(int file, off_t off, int whence); /* NOLINT: the linker's names */
off_t __wrap_lseek64(int file, off_t off, int whence); /* NOLINT */

off_t __wrap_lseek64(int file, off_t off, int whence) /* NOLINT */
{
    struct stat st;

    if (!holes_are_secret || (whence != SEEK_DATA && whence != SEEK_HOLE))
        return __real_lseek64(file, off, whence);
    assert_int_equal(fstat(file, &st), 0);
    if (off >= st.st_size) {
        errno = ENXIO;
        return -1;
    }
    return whence == SEEK_DATA ? off : st.st_size;
}

static int make_parent(void **state)
{
    (void)state;
    parent = images_new(N_PAGES, 0, 1, 1, 3, 0);
    for (unsigned i = 0; i < 3; i++)
        parent->runs[parent->n_runs++] =
            (struct manifest_run){.first = 2 * i + 1, .n = 1, .index = i};
    return 0;
}

static int free_parent(void **state)
{
    (void)state;
    parent = manifest_free(parent);
    return 0;
}

static bool parent_has(unsigned page)
{
    return page % 2 == 1;
}

/* make_file() - @bytes long, all hole; in memory, or on the disk that the tests are built on */
static void make_file(bool on_disk, uint64_t bytes)
{
    if (on_disk) {
        (void)snprintf(path, sizeof(path), "test_diff_file.XXXXXX");
        fd = mkstemp(path);
    } else {
        fd = memfd_create("diff", MFD_CLOEXEC);
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    memset(hints, DIFF_PARENT, sizeof(hints));
    memset(kinds, KIND_HOLE, sizeof(kinds));
}

static void write_page(unsigned page)
{
    char bytes[IMAGE_PAGE];

    memset(bytes, 'a' + (int)page, sizeof(bytes));
    assert_int_equal(pwrite(fd, bytes, sizeof(bytes), (off_t)(page * IMAGE_PAGE)), sizeof(bytes));
}

/* age() - what is written to it from here on can be told by its time */
static void age(void)
{
    const struct timespec old[2] = {{.tv_sec = OLD_S}, {.tv_sec = OLD_S}};

    assert_int_equal(futimens(fd, old), 0);
}

static void end_file(void)
{
    (void)close(fd);
    if (path[0] != '/')
        (void)unlink(path);
    holes_are_secret = false;
}

/* look() - open it and look at it. Return: 0 or an error; the file is open only if it is 0 */
static int look(struct diff_file *d)
{
    struct page_source src;
    int r = diff_file_open(d, path, parent, hints);

    if (r < 0)
        return r;
    src = diff_file_source(d);
    assert_int_equal(src.bytes, BYTES);
    r = src.look(src.ctx, kinds);
    if (r < 0)
        diff_file_close(d);
    return r;
}

static enum page_kind expected_kind(bool is_data, enum diff_hint hint)
{
    if (is_data)
        return KIND_DATA;
    return hint == DIFF_PARENT ? KIND_PARENT : KIND_HOLE;
}

static void check_pattern(bool on_disk, unsigned pattern, struct rng *rng)
{
    struct diff_file d;
    struct page_source src;
    char page[IMAGE_PAGE];

    make_file(on_disk, BYTES);
    for (unsigned p = 0; p < N_PAGES; p++) {
        if (pattern >> p & 1)
            write_page(p);
        hints[p] = (uint8_t)rng_below(rng, 3);
        if (hints[p] == DIFF_UNSURE && !(pattern >> p & 1) && parent_has(p))
            hints[p] = DIFF_ZERO;
    }
    assert_int_equal(look(&d), 0);
    src = diff_file_source(&d);
    for (unsigned p = 0; p < N_PAGES; p++) {
        assert_int_equal(kinds[p], expected_kind(pattern >> p & 1, (enum diff_hint)hints[p]));
        if (kinds[p] != KIND_DATA)
            continue;
        assert_int_equal(src.read(src.ctx, page, IMAGE_PAGE, p * IMAGE_PAGE), 0);
        assert_int_equal(page[0], 'a' + p);
        assert_int_equal(page[IMAGE_PAGE - 1], 'a' + p);
    }
    assert_int_equal(src.check(src.ctx), 0);
    diff_file_close(&d);
    end_file();
}

static void data_wins_over_zero_and_zero_over_the_parent_in_every_combination(void **state)
{
    struct rng rng = rng_init("combinations");

    (void)state;
    for (unsigned pattern = 0; pattern < 1u << N_PAGES; pattern++) {
        check_pattern(false, pattern, &rng);
        check_pattern(true, pattern, &rng);
    }
}

static void without_hints_a_hole_is_the_parent_s(void **state)
{
    struct diff_file d;
    struct page_source src;

    (void)state;
    make_file(false, BYTES);
    write_page(2);
    assert_int_equal(diff_file_open(&d, path, parent, NULL), 0);
    src = diff_file_source(&d);
    assert_int_equal(src.look(src.ctx, kinds), 0);
    for (unsigned p = 0; p < N_PAGES; p++)
        assert_int_equal(kinds[p], p == 2 ? KIND_DATA : KIND_PARENT);
    diff_file_close(&d);
    end_file();
}

static void a_hole_that_may_be_either_is_an_error_if_the_parent_has_bytes_there(void **state)
{
    struct diff_file d;

    (void)state;
    make_file(false, BYTES);
    memset(hints, DIFF_UNSURE, sizeof(hints));
    write_page(1);
    assert_int_equal(look(&d), -EINVAL);
    assert_non_null(strstr(err_text(), "hole at offset 12288 "));
    write_page(3);
    write_page(5);
    assert_int_equal(look(&d), 0);
    for (unsigned p = 0; p < N_PAGES; p++)
        assert_int_equal(kinds[p], parent_has(p) ? KIND_DATA : KIND_HOLE);
    diff_file_close(&d);
    end_file();
}

static void data_in_a_part_of_a_page_is_all_of_it(void **state)
{
    struct diff_file d;

    (void)state;
    for (int on_disk = 0; on_disk < 2; on_disk++) {
        make_file(on_disk, BYTES);
        assert_int_equal(pwrite(fd, "ab", 2, 3 * IMAGE_PAGE - 1), 2);
        assert_int_equal(pwrite(fd, "z", 1, BYTES - 1), 1);
        assert_int_equal(look(&d), 0);
        for (unsigned p = 0; p < N_PAGES; p++)
            assert_int_equal(kinds[p], p == 2 || p == 3 || p == 6 ? KIND_DATA : KIND_PARENT);
        diff_file_close(&d);
        end_file();
    }
}

static void a_file_of_another_size_is_refused(void **state)
{
    static const uint64_t sizes[] = {
        0, 1, BYTES - 1, BYTES + 1, BYTES - IMAGE_PAGE, BYTES + IMAGE_PAGE, BYTES - 512};
    struct diff_file d;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        make_file(false, sizes[i]);
        assert_int_equal(look(&d), -EINVAL);
        assert_non_null(strstr(err_text(), path));
        assert_int_equal(d.file.fd, -1);
        end_file();
    }
}

static void a_file_that_is_cut_off_while_it_is_read_is_an_error(void **state)
{
    struct diff_file d;
    struct page_source src;
    char pages[2 * IMAGE_PAGE];

    (void)state;
    make_file(true, BYTES);
    write_page(4);
    write_page(5);
    age();
    assert_int_equal(look(&d), 0);
    src = diff_file_source(&d);
    assert_int_equal(ftruncate(fd, (off_t)(5 * IMAGE_PAGE + 10)), 0);
    assert_int_equal(src.read(src.ctx, pages, sizeof(pages), 4 * IMAGE_PAGE), -EIO);
    assert_non_null(strstr(err_text(), "cut off"));
    assert_int_equal(src.check(src.ctx), -EIO);
    memset(kinds, KIND_HOLE, sizeof(kinds));
    assert_int_equal(src.look(src.ctx, kinds),
                     0); /* what is gone is a hole: check() has the last word */
    diff_file_close(&d);
    end_file();
}

static void a_hole_that_is_punched_meanwhile_is_noticed(void **state)
{
    struct diff_file d;
    struct page_source src;

    (void)state;
    make_file(true, BYTES);
    write_page(4);
    age();
    assert_int_equal(look(&d), 0);
    src = diff_file_source(&d);
    assert_int_equal(
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4 * IMAGE_PAGE, IMAGE_PAGE), 0);
    assert_int_equal(src.check(src.ctx), -EIO);
    assert_non_null(strstr(err_text(), "written to"));
    diff_file_close(&d);
    end_file();
}

static void a_file_system_that_does_not_tell_holes_is_noticed(void **state)
{
    struct diff_file d;

    (void)state;
    make_file(false, BYTES);
    write_page(4);
    holes_are_secret = true;
    assert_int_equal(look(&d), -EINVAL);
    assert_non_null(strstr(err_text(), "does not tell"));
    for (unsigned p = 0; p < N_PAGES; p++)
        write_page(p);
    assert_int_equal(look(&d), 0); /* it has none */
    for (unsigned p = 0; p < N_PAGES; p++)
        assert_int_equal(kinds[p], KIND_DATA);
    diff_file_close(&d);
    end_file();
}

static void it_is_as_old_as_it_was_written(void **state)
{
    struct diff_file d;

    (void)state;
    make_file(false, BYTES);
    age();
    assert_int_equal(look(&d), 0);
    assert_int_equal(diff_file_source(&d).created_s, OLD_S);
    diff_file_close(&d);
    end_file();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_wins_over_zero_and_zero_over_the_parent_in_every_combination),
        cmocka_unit_test(without_hints_a_hole_is_the_parent_s),
        cmocka_unit_test(a_hole_that_may_be_either_is_an_error_if_the_parent_has_bytes_there),
        cmocka_unit_test(data_in_a_part_of_a_page_is_all_of_it),
        cmocka_unit_test(a_file_of_another_size_is_refused),
        cmocka_unit_test(a_file_that_is_cut_off_while_it_is_read_is_an_error),
        cmocka_unit_test(a_hole_that_is_punched_meanwhile_is_noticed),
        cmocka_unit_test(a_file_system_that_does_not_tell_holes_is_noticed),
        cmocka_unit_test(it_is_as_old_as_it_was_written),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("diff_file", tests, make_parent, free_parent);
}
