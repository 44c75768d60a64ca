/* SPDX-License-Identifier: Apache-2.0 */
/* test_workingset_file.c - a working set's file: written, read, and refused in one line for whatever is wrong with it */
#include "sets.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/fd.h"

#define HEADER 64u

static char folder[64];
static char target[128];
static int fsync_errno; /* what fsync() fails with, through the linker's --wrap; 0: it works */
static unsigned n_fsyncs;

int __real_fsync(int fd); /* NOLINT: the linker's names */
int __wrap_fsync(int fd); /* NOLINT */

int __wrap_fsync(int fd) /* NOLINT */
{
    n_fsyncs++;
    if (fsync_errno == 0)
        return __real_fsync(fd);
    errno = fsync_errno;
    return -1;
}

static int make_folder(void **state)
{
    (void)state;
    fsync_errno = 0;
    n_fsyncs = 0;
    (void)snprintf(folder, sizeof(folder), "%s", "/tmp/thaw-test-ws.XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    (void)snprintf(target, sizeof(target), "%s/set", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    (void)unlink(target);
    return rmdir(folder); /* fails the test when something was left behind */
}

/* ---- files in memory -------------------------------------------------------------------------------------------- */

static uint8_t *format(const struct workingset *ws, size_t *len)
{
    void *bytes = NULL;

    assert_int_equal(workingset_format(ws, &bytes, len), 0);
    return bytes;
}

/* parse_error() - @bytes are refused with @error. Return: the text */
static const char *parse_error(const void *bytes, size_t len, int error)
{
    struct workingset *ws = NULL;

    err_clear();
    assert_int_equal(workingset_parse(&ws, "THE-NAME", bytes, len), error);
    assert_null(ws);
    assert_non_null(strstr(err_text(), "THE-NAME"));
    return err_text();
}

/* refused() - a set that our own mistakes made is written, and what reads it says what is wrong where */
static void refused(struct workingset *ws, const char *what, size_t offset)
{
    char expected[128];
    size_t len;
    uint8_t *bytes = format(ws, &len);

    (void)snprintf(expected, sizeof(expected), "working set THE-NAME is damaged: %s (offset %zu)",
                   what, offset);
    assert_string_equal(parse_error(bytes, len, -EINVAL), expected);
    free(bytes);
    (void)workingset_free(ws);
}

static void what_is_written_and_read_is_the_same_and_so_are_its_bytes(void **state)
{
    struct rng r = rng_init("workingset bytes");

    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        struct workingset *ws = sets_random(&r, rng_below(&r, 2) ? 12 : 21, 1 + rng_below(&r, 2000),
                                            rng_below(&r, 500));
        struct workingset *back = NULL;
        size_t len;
        size_t len_again;
        uint8_t *bytes = format(ws, &len);
        uint8_t *again;

        assert_int_equal(len, HEADER + 8 * ws->n);
        assert_int_equal(workingset_parse(&back, "x", bytes, len), 0);
        assert_same_set(ws, back);
        again = format(back, &len_again);
        assert_int_equal(len_again, len);
        assert_memory_equal(again, bytes, len);
        free(bytes);
        free(again);
        ws = workingset_free(ws);
        back = workingset_free(back);
    }
}

static void a_file_has_exactly_the_bytes_that_the_manual_says(void **state)
{
    /* Every number by hand; the checksum is XXH3 as another implementation has it. */
    static const uint8_t
        expected[] =
            {
                0x01, 'T',  'h',  'W',  's',  'B',  'l',  'k',  1,  0,    0,    0,
                64,   0,    0,    0, /* magic, version, header */
                12,   0,    0,    0,    1,    0,    0,    0,    0,  0x40, 6,    0,
                0,    0,    0,    0, /* unit, flags, image */
                3,    0,    0,    0,    0,    0,    0,    0,    0,  0xf2, 0x05, 0x2a,
                1,    0,    0,    0, /* entries, window */
                0x6d, 0x9c, 0xb7, 0xe7, 0x72, 0xa0, 0xf7, 0xaa, 0,  0,    0,    0,
                0,    0,    0,    0, /* checksum, reserved */
                7,    0,    0,    0,    0,    0,    0,    0,    99, 0,    0,    0,
                0,    0,    3,    1,    0,    0,    0,    0,    0,  0,    63,   0,
            };
    struct workingset *ws = sets_small();
    size_t len;
    uint8_t *bytes = format(ws, &len);

    (void)state;
    assert_int_equal(len, sizeof(expected));
    assert_memory_equal(bytes, expected, len);
    free(bytes);
    ws = workingset_free(ws);
}

static void bytes_are_read_at_any_address(void **state)
{
    struct workingset *ws = sets_small();
    size_t len;
    uint8_t *bytes = format(ws, &len);
    uint8_t *moved = malloc(len + 8);

    (void)state;
    assert_non_null(moved);
    for (unsigned by = 0; by < 8; by++) {
        struct workingset *back = NULL;

        memcpy(moved + by, bytes, len);
        assert_int_equal(workingset_parse(&back, "x", moved + by, len), 0);
        assert_same_set(ws, back);
        back = workingset_free(back);
    }
    free(bytes);
    free(moved);
    ws = workingset_free(ws);
}

static void every_bit_that_is_turned_over_is_noticed(void **state)
{
    struct workingset *ws = sets_small();
    size_t len;
    uint8_t *bytes = format(ws, &len);

    (void)state;
    for (size_t bit = 0; bit < len * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        (void)parse_error(bytes, len, -EINVAL);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    free(bytes);
    ws = workingset_free(ws);
}

static void a_file_that_is_cut_or_goes_on_is_noticed(void **state)
{
    struct workingset *ws = sets_small();
    struct workingset *back = NULL;
    size_t len;
    uint8_t *bytes = format(ws, &len);
    uint8_t *longer = calloc(1, len + 9);

    (void)state;
    assert_non_null(longer);
    memcpy(longer, bytes, len);
    for (size_t n = 0; n < HEADER; n++)
        assert_non_null(strstr(parse_error(bytes, n, -EINVAL), "is not a working set"));
    for (size_t n = HEADER; n < len; n++)
        assert_non_null(strstr(parse_error(bytes, n, -EINVAL), "it ends too early (offset "));
    for (size_t n = 1; n <= 9; n++)
        assert_non_null(strstr(parse_error(longer, len + n, -EINVAL), "last entry (offset 88)"));
    assert_int_equal(workingset_parse(&back, "x", longer, len), 0);
    back = workingset_free(back);
    free(bytes);
    free(longer);
    ws = workingset_free(ws);
}

/* struct damage - a field of the header with another value: a checksum of its own does not come to that */
static const struct damage {
    const char *text;
    size_t offset;
    unsigned bytes;
    uint64_t value;
} damages[] = {
    {"THE-NAME is not a working set", 0, 1, 2},
    {"working set THE-NAME is of version 2, this thaw reads version 1", 8, 4, 2},
    {"no such length of a header (offset 12)", 12, 4, 72},
    {"no such unit (offset 16)", 16, 4, 13},
    {"no such unit (offset 16)", 16, 4, 0},
    {"unknown flags (offset 20)", 20, 4, 2},
    {"unknown flags (offset 20)", 20, 4, 0x80000001},
    {"no such size of a memory file (offset 24)", 24, 8, 0},
    {"no such size of a memory file (offset 24)", 24, 8, 409601},
    {"no such size of a memory file (offset 24)", 24, 8, 1ull << 63},
    {"no such size of a memory file (offset 24)", 24, 8, (1ull << 60) + 4096},
    {"more entries than the memory file has units (offset 32)", 32, 8, 101},
    {"it ends too early (offset 88)", 32, 8, 4},
    {"it does not end behind its last entry (offset 80)", 32, 8, 2},
    {"its checksum is wrong (offset 48)", 40, 8, 1},
    {"its checksum is wrong (offset 48)", 48, 8, 1},
    {"what is reserved is not 0 (offset 56)", 56, 8, 1ull << 40},
};

static void damage_of_the_header_is_named_with_its_offset(void **state)
{
    struct workingset *ws = sets_small();
    size_t len;
    uint8_t *bytes = format(ws, &len);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(damages); i++) {
        const struct damage *d = &damages[i];
        uint8_t saved[8];

        memcpy(saved, bytes + d->offset, d->bytes);
        memcpy(bytes + d->offset, &d->value, d->bytes);
        if (!strstr(parse_error(bytes, len, -EINVAL), d->text))
            fail_msg("%s: %s", d->text, err_text());
        memcpy(bytes + d->offset, saved, d->bytes);
    }
    free(bytes);
    ws = workingset_free(ws);
}

static void damage_of_an_entry_is_named_with_its_offset_even_if_the_checksum_is_right(void **state)
{
    struct workingset *ws;

    (void)state;
    ws = sets_small();
    ws->entries[1].unit = 100;
    refused(ws, "an entry beyond the memory file", HEADER + 8);
    ws = sets_small();
    ws->entries[2].time_class = 64;
    refused(ws, "no such time class", HEADER + 16);
    for (unsigned bit = 57; bit < 64; bit++) {
        ws = sets_small();
        ws->entries[0].unit |= 1ull << bit;
        refused(ws, "unknown bits in an entry", HEADER);
    }
    ws = sets_small();
    ws->entries[2].unit = 7;
    refused(ws, "an entry occurs twice", HEADER + 16);
    ws = sets_small();
    ws->entries[1].unit = 7;
    ws->entries[1].write = false;
    refused(ws, "an entry occurs twice", HEADER + 8);
}

static void a_set_of_everything_is_one(void **state)
{
    struct workingset *ws = sets_new(12, 300);
    struct workingset *back = NULL;
    size_t len;
    uint8_t *bytes;

    (void)state;
    for (uint64_t unit = 300; unit-- > 0;)
        sets_add(ws, unit, 0, false);
    bytes = format(ws, &len);
    assert_int_equal(workingset_parse(&back, "x", bytes, len), 0);
    assert_same_set(ws, back);
    free(bytes);
    ws = workingset_free(ws);
    back = workingset_free(back);
}

static void the_largest_memory_files_are_fine(void **state)
{
    static const struct {
        unsigned shift;
        uint64_t units;
    } largest[] = {{12, 1ull << 48}, {21, (1ull << 42) - 1}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(largest); i++) {
        struct workingset *ws = sets_new(largest[i].shift, largest[i].units);
        struct workingset *back = NULL;
        size_t len;
        uint8_t *bytes;

        sets_add(ws, largest[i].units - 1, 1, true);
        bytes = format(ws, &len);
        assert_int_equal(workingset_parse(&back, "x", bytes, len), 0);
        assert_same_set(ws, back);
        free(bytes);
        ws = workingset_free(ws);
        back = workingset_free(back);
    }
}

static void too_many_entries_are_not_written(void **state)
{
    struct workingset *ws = sets_small();
    size_t n = ws->n;
    void *bytes = NULL;
    size_t len;

    (void)state;
    ws->n = WORKINGSET_ENTRIES_MAX + 1;
    assert_int_equal(workingset_format(ws, &bytes, &len), -EFBIG);
    assert_null(bytes);
    assert_non_null(strstr(err_text(), "268435457 entries"));
    ws->n = n;
    ws = workingset_free(ws);
}

/* ---- files on disk ---------------------------------------------------------------------------------------------- */

static int read_error(const char *path)
{
    struct workingset *ws = NULL;
    int r;

    err_clear();
    r = workingset_read(&ws, path);
    assert_true(r < 0);
    assert_null(ws);
    assert_non_null(strstr(err_text(), path));
    return r;
}

static void a_file_is_written_to_the_disk_and_read(void **state)
{
    struct workingset *ws = sets_small();
    struct workingset *back = NULL;

    (void)state;
    assert_int_equal(workingset_write(ws, target), 0);
    assert_int_equal(n_fsyncs, 2); /* the file, the folder */
    assert_int_equal(workingset_read(&back, target), 0);
    assert_same_set(ws, back);
    back = workingset_free(back);
    ws->entries[0].write = true;
    assert_int_equal(workingset_write(ws, target), 0);
    assert_int_equal(workingset_read(&back, target), 0);
    assert_same_set(ws, back);
    back = workingset_free(back);
    ws = workingset_free(ws);
}

static void a_disk_that_is_full_or_fails_leaves_the_old_file_and_nothing_else(void **state)
{
    struct rng r = rng_init("workingset disk");
    struct workingset *old = sets_small();
    struct workingset *ws = sets_random(&r, 12, 100000, 2000);
    struct workingset *back = NULL;
    struct rlimit was;
    struct rlimit small;
    int error;

    (void)state;
    assert_int_equal(workingset_write(old, target), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = (struct rlimit){.rlim_cur = 4096, .rlim_max = was.rlim_max};
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    error = workingset_write(ws, target);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(error, -EFBIG);
    assert_non_null(strstr(err_text(), target));
    fsync_errno = ENOSPC;
    assert_int_equal(workingset_write(ws, target), -ENOSPC);
    fsync_errno = EIO;
    assert_int_equal(workingset_write(ws, target), -EIO);
    assert_non_null(strstr(err_text(), target));
    assert_int_equal(workingset_read(&back, target), 0);
    assert_same_set(old, back); /* that nothing else is left is seen when the folder is removed */
    back = workingset_free(back);
    old = workingset_free(old);
    ws = workingset_free(ws);
}

static void what_is_no_regular_file_is_refused_and_not_waited_for(void **state)
{
    (void)state;
    assert_int_equal(read_error(target), -ENOENT);
    assert_int_equal(read_error(folder), -EINVAL);
    assert_int_equal(mkfifo(target, 0600), 0);
    assert_int_equal(read_error(target), -EINVAL);
    assert_non_null(strstr(err_text(), "not a regular file"));
}

static void a_file_that_is_something_else_is_not_read_whole(void **state)
{
    _cleanup_fd_ int fd = open(target, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct workingset_header h = {
        .magic = WORKINGSET_MAGIC,
        .version = WORKINGSET_VERSION,
        .header_bytes = sizeof(h),
        .unit_shift = 12,
        .image_bytes = 1ull << 50,
        .n_entries = WORKINGSET_ENTRIES_MAX + 1,
    };
    const struct rlimit memory = {.rlim_cur = 64 * MIB, .rlim_max = RLIM_INFINITY};
    struct rlimit was;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(read_error(target), -EINVAL);
    assert_non_null(strstr(err_text(), "it has 0 bytes"));
    /* With so little memory for data, reading all of the file would end in -ENOMEM. */
    assert_int_equal(getrlimit(RLIMIT_DATA, &was), 0);
    assert_int_equal(setrlimit(RLIMIT_DATA, &memory), 0);
    assert_int_equal(ftruncate(fd, (off_t)(4 * GIB)), 0);
    assert_int_equal(read_error(target), -EINVAL);
    assert_non_null(strstr(err_text(), "is not a working set"));
    assert_int_equal(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
    assert_int_equal(ftruncate(fd, (off_t)(HEADER + 8 * h.n_entries)), 0);
    assert_int_equal(read_error(target), -EFBIG);
    assert_non_null(strstr(err_text(), "268435457 entries"));
    h.n_entries--;
    assert_int_equal(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
    assert_int_equal(read_error(target), -EINVAL);
    assert_non_null(strstr(err_text(), "last entry (offset 2147483712)"));
    assert_int_equal(setrlimit(RLIMIT_DATA, &was), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_and_read_is_the_same_and_so_are_its_bytes),
        cmocka_unit_test(a_file_has_exactly_the_bytes_that_the_manual_says),
        cmocka_unit_test(bytes_are_read_at_any_address),
        cmocka_unit_test(every_bit_that_is_turned_over_is_noticed),
        cmocka_unit_test(a_file_that_is_cut_or_goes_on_is_noticed),
        cmocka_unit_test(damage_of_the_header_is_named_with_its_offset),
        cmocka_unit_test(damage_of_an_entry_is_named_with_its_offset_even_if_the_checksum_is_right),
        cmocka_unit_test(a_set_of_everything_is_one),
        cmocka_unit_test(the_largest_memory_files_are_fine),
        cmocka_unit_test(too_many_entries_are_not_written),
        cmocka_unit_test_setup_teardown(a_file_is_written_to_the_disk_and_read, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(
            a_disk_that_is_full_or_fails_leaves_the_old_file_and_nothing_else, make_folder,
            remove_folder),
        cmocka_unit_test_setup_teardown(what_is_no_regular_file_is_refused_and_not_waited_for,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_file_that_is_something_else_is_not_read_whole,
                                        make_folder, remove_folder),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("workingset_file", tests, NULL, NULL);
}
