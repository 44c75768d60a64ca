/* SPDX-License-Identifier: Apache-2.0 */
/* test_source.c - the gate, the hole map and the raw memory file */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "source/file.h"
#include "source/hole_map.h"

#define PAGE      4096ull
#define HUGE_PAGE (2 * MIB)

static char path[] = "/tmp/thaw-test-source.XXXXXX";

static int make_file(void **state)
{
    int fd;

    (void)state;
    strcpy(path + strlen(path) - 6, "XXXXXX"); /* NOLINT: same length */
    fd = mkstemp(path);
    if (fd < 0)
        return -1;
    (void)fd_close(fd);
    return 0;
}

/* The same, of somebody else's: mincore(2) says nothing about it, even to root. */
static int make_file_of_another(void **state)
{
    if (make_file(state) < 0)
        return -1;
    return geteuid() == 0 ? chown(path, 65534, 65534) : 0;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

/* A file in memory instead. */
static int memory_fd = -1;

static int make_memory_file(void **state)
{
    (void)state;
    memory_fd = memfd_create("thaw-test", MFD_CLOEXEC);
    if (memory_fd < 0)
        return -1;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", memory_fd);
    return 0;
}

static int remove_memory_file(void **state)
{
    (void)state;
    memory_fd = fd_close(memory_fd);
    strcpy(path, "/tmp/thaw-test-source.XXXXXX"); /* NOLINT: as it was */
    return 0;
}

/* write_at() - data at a place; what nobody writes stays a hole */
static void write_at(uint64_t off, uint64_t len)
{
    _cleanup_fd_ int fd = open(path, O_WRONLY | O_CLOEXEC);
    char page[PAGE];

    memset(page, 0x5a, sizeof(page));
    for (uint64_t done = 0; done < len; done += min_u64(PAGE, len - done))
        assert_true(pwrite(fd, page, min_u64(PAGE, len - done), (off_t)(off + done)) > 0);
}

static struct file_id id; /* of the file that was opened last; nobody looks at it */

static struct source *open_source(uint64_t size)
{
    struct source *s = NULL;

    assert_int_equal(truncate(path, (off_t)size), 0);
    assert_int_equal(source_open_file(&s, path, &id), 0);
    assert_int_equal(source_size_bytes(s), size);
    return s;
}

static struct thaw_extent locate(struct source *s, uint64_t off, uint64_t lo, uint64_t hi)
{
    struct thaw_extent x;

    assert_int_equal(source_locate(s, &x, off, lo, hi, PAGE), 0);
    return x;
}

/* ---- the hole map --------------------------------------------------------------------------------------------- */

static void check_map(struct hole_map *m, uint64_t page_bytes, uint64_t lo, uint64_t hi,
                      uint64_t off, enum thaw_where where, uint64_t first, uint64_t end)
{
    struct thaw_extent x = {.first = lo, .end = hi};

    hole_map_narrow(m, &x, off, page_bytes);
    assert_int_equal(x.where, where);
    assert_int_equal(x.first, first);
    assert_int_equal(x.end, end);
}

/* data in pages 4..7 and in one byte of page 9, of 16 */
static void check_a_file_with_holes(uint64_t budget_ns)
{
    _cleanup_fd_ int fd = open(path, O_RDWR | O_CLOEXEC);
    struct hole_map m;

    assert_int_equal(ftruncate(fd, 16 * PAGE), 0);
    write_at(4 * PAGE, 4 * PAGE);
    write_at(9 * PAGE + 100, 1);
    assert_int_equal(hole_map_init(&m, fd, 16 * PAGE, budget_ns), 0);
    check_map(&m, PAGE, 0, 16 * PAGE, 0, THAW_WHERE_ZERO, 0, 4 * PAGE);
    check_map(&m, PAGE, 1 * PAGE, 3 * PAGE, 2 * PAGE, THAW_WHERE_ZERO, 1 * PAGE, 3 * PAGE);
    check_map(&m, PAGE, 0, 16 * PAGE, 5 * PAGE, THAW_WHERE_MEMORY, 4 * PAGE, 8 * PAGE);
    check_map(&m, PAGE, 9 * PAGE, 16 * PAGE, 9 * PAGE, THAW_WHERE_MEMORY, 9 * PAGE, 10 * PAGE);
    check_map(&m, PAGE, 10 * PAGE, 16 * PAGE, 15 * PAGE, THAW_WHERE_ZERO, 10 * PAGE, 16 * PAGE);
    hole_map_deinit(&m);
}

static void holes_are_found_by_the_walk(void **state)
{
    (void)state;
    check_a_file_with_holes(NS_PER_S);
}

static void holes_are_asked_for_where_the_walk_did_not_come(void **state)
{
    (void)state;
    check_a_file_with_holes(0);
}

static void a_walk_and_the_kernel_agree_on_random_files(void **state)
{
    struct rng rng = rng_init("random files");
    _cleanup_fd_ int fd = open(path, O_RDWR | O_CLOEXEC);
    const uint64_t n = 300;
    struct hole_map m;

    (void)state;
    assert_int_equal(ftruncate(fd, (off_t)(n * PAGE)), 0);
    for (unsigned i = 0; i < 60; i++) {
        uint64_t at = rng_below(&rng, n);

        write_at(at * PAGE, PAGE * (1 + rng_below(&rng, min_u64(4, n - at))));
    }
    assert_int_equal(hole_map_init(&m, fd, n * PAGE, NS_PER_S), 0);
    assert_int_equal(m.known_until, n * PAGE);
    for (uint64_t p = 0; p < n; p++) {
        struct thaw_extent x = {.first = p * PAGE, .end = (p + 1) * PAGE};
        off_t data = lseek(fd, (off_t)(p * PAGE), SEEK_DATA);
        bool hole = data < 0 || (uint64_t)data >= (p + 1) * PAGE;

        hole_map_narrow(&m, &x, p * PAGE, PAGE);
        assert_int_equal(x.where, hole ? THAW_WHERE_ZERO : THAW_WHERE_MEMORY);
    }
    hole_map_deinit(&m);
}

static void a_huge_page_is_a_hole_only_when_all_of_it_is(void **state)
{
    _cleanup_fd_ int fd = open(path, O_RDWR | O_CLOEXEC);

    (void)state;
    assert_int_equal(ftruncate(fd, 4 * HUGE_PAGE), 0);
    write_at(HUGE_PAGE + 17 * PAGE, PAGE);
    for (uint64_t budget_ns = 0; budget_ns <= NS_PER_S; budget_ns += NS_PER_S) {
        struct hole_map m;

        assert_int_equal(hole_map_init(&m, fd, 4 * HUGE_PAGE, budget_ns), 0);
        check_map(&m, HUGE_PAGE, 0, HUGE_PAGE, 0, THAW_WHERE_ZERO, 0, HUGE_PAGE);
        check_map(&m, HUGE_PAGE, HUGE_PAGE, 2 * HUGE_PAGE, HUGE_PAGE, THAW_WHERE_MEMORY, HUGE_PAGE,
                  2 * HUGE_PAGE);
        check_map(&m, HUGE_PAGE, 2 * HUGE_PAGE, 4 * HUGE_PAGE, 3 * HUGE_PAGE, THAW_WHERE_ZERO,
                  2 * HUGE_PAGE, 4 * HUGE_PAGE);
        hole_map_deinit(&m);
    }
}

static void a_fragmented_window_is_taken_as_data_but_not_the_page_itself(void **state)
{
    _cleanup_fd_ int fd = open(path, O_RDWR | O_CLOEXEC);
    struct hole_map m;

    (void)state;
    assert_int_equal(ftruncate(fd, 64 * PAGE), 0);
    for (uint64_t p = 0; p < 64; p += 2)
        write_at(p * PAGE, PAGE);
    assert_int_equal(hole_map_init(&m, fd, 64 * PAGE, 0), 0);
    check_map(&m, PAGE, 0, 64 * PAGE, 41 * PAGE, THAW_WHERE_ZERO, 41 * PAGE, 42 * PAGE);
    hole_map_deinit(&m);
}

/* ---- the memory file ------------------------------------------------------------------------------------------ */

static void bytes_in_the_page_cache_are_in_memory(void **state)
{
    struct source *s;
    struct thaw_extent x;

    (void)state;
    write_at(0, 32 * PAGE);
    s = open_source(32 * PAGE);
    x = locate(s, 5 * PAGE, 0, 16 * PAGE);
    assert_int_equal(x.where, THAW_WHERE_MEMORY);
    assert_int_equal(x.first, 0);
    assert_int_equal(x.end, 16 * PAGE);
    assert_memory_equal(x.bytes, "ZZZZ", 4);
    (void)source_free(s);
}

static void drop_from_cache(uint64_t off, uint64_t len)
{
    _cleanup_fd_ int fd = open(path, O_RDWR | O_CLOEXEC);

    assert_int_equal(fdatasync(fd), 0);
    assert_int_equal(posix_fadvise(fd, (off_t)off, (off_t)len, POSIX_FADV_DONTNEED), 0);
}

static void cold_bytes_are_elsewhere_until_they_are_fetched(void **state)
{
    struct source *s;
    struct thaw_extent x;

    (void)state;
    write_at(0, 64 * PAGE);
    s = open_source(64 * PAGE);
    drop_from_cache(0, 64 * PAGE);
    x = locate(s, 20 * PAGE, 16 * PAGE, 32 * PAGE);
    if (x.where != THAW_WHERE_ELSEWHERE) {
        (void)source_free(s);
        skip(); /* a file system that keeps everything in memory */
    }
    assert_int_equal(x.first, 16 * PAGE);
    assert_int_equal(x.end, 32 * PAGE);
    assert_int_equal(source_fetch(s, x.first, x.end), 0);
    x = locate(s, 20 * PAGE, 16 * PAGE, 32 * PAGE);
    assert_int_equal(x.where, THAW_WHERE_MEMORY);
    assert_int_equal(x.end, 32 * PAGE);
    (void)source_free(s);
}

/* warm() - bring exactly these pages into the page cache, without readahead */
static void warm(uint64_t off, uint64_t len)
{
    _cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    char page[PAGE];

    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
    for (uint64_t done = 0; done < len; done += PAGE)
        assert_int_equal(pread(fd, page, PAGE, (off_t)(off + done)), PAGE);
}

static void expected_bytes_come_by_themselves_and_cached_ones_stay(void **state)
{
    struct source *s;
    struct thaw_extent x;

    (void)state;
    write_at(0, 64 * PAGE);
    s = open_source(64 * PAGE);
    drop_from_cache(0, 64 * PAGE);
    x = locate(s, 20 * PAGE, 20 * PAGE, 21 * PAGE);
    if (x.where != THAW_WHERE_ELSEWHERE) {
        (void)source_free(s);
        skip(); /* a file system that keeps everything in memory */
    }
    source_expect(s, 16 * PAGE, 32 * PAGE);
    while (locate(s, 20 * PAGE, 20 * PAGE, 21 * PAGE).where !=
           THAW_WHERE_MEMORY) /* or the watchdog */
        (void)sched_yield();
    warm(0, 64 * PAGE);
    source_expect(s, 0, 8 * PAGE);
    source_expect(s, 60 * PAGE, 100 * PAGE); /* more than there is */
    x = locate(s, 0, 0, 8 * PAGE);
    assert_int_equal(x.where, THAW_WHERE_MEMORY);
    (void)source_free(s);
}

static void of_a_window_that_is_partly_cached_the_cached_run_is_in_memory(void **state)
{
    struct source *s;
    struct thaw_extent x;

    (void)state;
    write_at(0, 64 * PAGE);
    s = open_source(64 * PAGE);
    drop_from_cache(0, 64 * PAGE);
    warm(20 * PAGE, 4 * PAGE);
    x = locate(s, 17 * PAGE, 16 * PAGE, 32 * PAGE);
    if (x.where == THAW_WHERE_MEMORY) {
        (void)source_free(s);
        skip(); /* a file system that keeps more in memory than was asked for */
    }
    assert_int_equal(x.where, THAW_WHERE_ELSEWHERE);
    x = locate(s, 21 * PAGE, 16 * PAGE, 32 * PAGE);
    assert_int_equal(x.where, THAW_WHERE_MEMORY);
    assert_int_equal(x.first, 20 * PAGE);
    assert_int_equal(x.end, 24 * PAGE);
    (void)source_free(s);
}

static void a_huge_page_that_is_partly_cached_is_elsewhere(void **state)
{
    struct source *s;
    struct thaw_extent x;

    (void)state;
    write_at(0, 2 * HUGE_PAGE);
    s = open_source(2 * HUGE_PAGE);
    drop_from_cache(0, 2 * HUGE_PAGE);
    warm(0, 100 * PAGE);
    assert_int_equal(source_locate(s, &x, 0, 0, HUGE_PAGE, HUGE_PAGE), 0);
    if (x.where == THAW_WHERE_MEMORY) {
        (void)source_free(s);
        skip();
    }
    assert_int_equal(x.where, THAW_WHERE_ELSEWHERE);
    assert_int_equal(source_fetch(s, 0, HUGE_PAGE), 0);
    assert_int_equal(source_locate(s, &x, 0, 0, HUGE_PAGE, HUGE_PAGE), 0);
    assert_int_equal(x.where, THAW_WHERE_MEMORY);
    assert_int_equal(x.end, HUGE_PAGE);
    (void)source_free(s);
}

static void a_window_wider_than_any_pager_asks_for_is_refused(void **state)
{
    struct source *s;
    struct thaw_extent x;

    (void)state;
    write_at(0, 2 * HUGE_PAGE);
    s = open_source(2 * HUGE_PAGE);
    drop_from_cache(0, 2 * HUGE_PAGE);
    if (source_locate(s, &x, 0, 0, 2 * HUGE_PAGE, PAGE) == 0) {
        (void)source_free(s);
        skip(); /* all of it is in memory: nothing had to be looked at page by page */
    }
    assert_non_null(strstr(err_text(), "1024 pages"));
    (void)source_free(s);
}

static void a_huge_page_that_is_a_hole_in_part_costs_a_file_in_memory_nothing(void **state)
{
    struct thaw_extent x;
    struct stat before;
    struct stat after;
    struct source *s;
    const char *bytes;

    (void)state;
    assert_int_equal(truncate(path, 3 * HUGE_PAGE), 0);
    write_at(HUGE_PAGE + 5 * PAGE, PAGE);
    s = open_source(3 * HUGE_PAGE);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(source_locate(s, &x, HUGE_PAGE, HUGE_PAGE, 2 * HUGE_PAGE, HUGE_PAGE), 0);
    assert_int_equal(x.where, THAW_WHERE_MEMORY);
    bytes = x.bytes;
    for (uint64_t i = 0; i < HUGE_PAGE; i += 64)
        assert_int_equal(bytes[i], i / PAGE == 5 ? 0x5a : 0);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_blocks, before.st_blocks);
    assert_null(source_free(s));
}

static void what_was_seen_to_be_cached_is_believed_for_a_while(void **state)
{
    struct source *s;

    (void)state;
    write_at(0, 64 * PAGE);
    s = open_source(64 * PAGE);
    assert_int_equal(locate(s, 0, 0, PAGE).where, THAW_WHERE_MEMORY);
    drop_from_cache(0, 64 * PAGE);
    assert_int_equal(locate(s, 9 * PAGE, 9 * PAGE, 10 * PAGE).where, THAW_WHERE_MEMORY);
    (void)source_free(s);
}

static void holes_of_the_file_are_zero(void **state)
{
    struct source *s;
    struct thaw_extent x;

    (void)state;
    write_at(16 * PAGE, PAGE);
    s = open_source(32 * PAGE);
    x = locate(s, 3 * PAGE, 0, 32 * PAGE);
    assert_int_equal(x.where, THAW_WHERE_ZERO);
    assert_int_equal(x.end, 16 * PAGE);
    (void)source_free(s);
}

static void a_file_that_shrinks_within_a_page_is_an_error_at_once(void **state)
{
    struct source *s;
    struct thaw_extent x;

    (void)state;
    write_at(0, 8 * PAGE);
    s = open_source(8 * PAGE);
    assert_int_equal(truncate(path, 7 * PAGE + 100), 0);
    assert_int_equal(source_locate(s, &x, 0, 0, PAGE, PAGE), -EIO);
    assert_non_null(strstr(err_text(), path));
    assert_non_null(strstr(err_text(), "truncated"));
    assert_int_equal(source_fetch(s, 7 * PAGE, 8 * PAGE), -EIO);
    (void)source_free(s);
}

static void what_is_no_memory_file_is_refused_with_its_name(void **state)
{
    struct source *s = NULL;

    (void)state;
    assert_int_equal(source_open_file(&s, path, &id), -EINVAL); /* empty */
    assert_non_null(strstr(err_text(), path));
    assert_int_equal(truncate(path, 5000), 0);
    assert_int_equal(source_open_file(&s, path, &id), -EINVAL);
    assert_non_null(strstr(err_text(), "5000"));
    assert_int_equal(source_open_file(&s, "/tmp", &id), -EINVAL);
    assert_int_equal(source_open_file(&s, "/tmp/there/is/no/such/file", &id), -ENOENT);
    assert_null(s);
}

/* ---- the gate ------------------------------------------------------------------------------------------------- */

struct odd {
    struct thaw_extent answer;
    int result;
    unsigned n_freed;
};

static int odd_locate(void *self, struct thaw_extent *out, uint64_t off, uint64_t lo, uint64_t hi,
                      uint64_t page_bytes)
{
    struct odd *o = self;

    (void)off;
    (void)lo;
    (void)hi;
    (void)page_bytes;
    *out = o->answer;
    return o->result;
}

static void odd_free(void *self)
{
    ((struct odd *)self)->n_freed++;
}

static const struct thaw_source_ops odd_ops = {
    .name = "odd", .locate = odd_locate, .free = odd_free};

static void a_source_that_answers_nonsense_is_an_error_not_a_wrong_page(void **state)
{
    static const struct {
        struct thaw_extent answer;
        int result;
        int expected;
    } cases[] = {
        {{THAW_WHERE_ZERO, 0, 2 * PAGE, NULL, 0}, 0, 0},
        {{THAW_WHERE_ZERO, 0, 1 * PAGE, NULL, 0}, 0, -EIO}, /* not the page that was asked for */
        {{THAW_WHERE_ZERO, 2 * PAGE, 3 * PAGE, NULL, 0}, 0, -EIO}, /* beyond it */
        {{THAW_WHERE_ZERO, 0, 5 * PAGE, NULL, 0}, 0, -EIO},        /* wider than the window */
        {{THAW_WHERE_ZERO, 100, 2 * PAGE, NULL, 0}, 0, -EIO},      /* not on a page boundary */
        {{THAW_WHERE_MEMORY, 0, 2 * PAGE, NULL, 0}, 0, -EIO},      /* in memory, but nowhere */
        {{THAW_WHERE_ELSEWHERE, 0, 2 * PAGE, NULL, 0}, 0, -EIO},   /* cannot fetch */
        {{THAW_WHERE_ZERO, 0, 2 * PAGE, NULL, 0}, 7, -EIO},        /* no such result */
        {{THAW_WHERE_ZERO, 0, 2 * PAGE, NULL, 0},
         -ENODEV,
         -ENODEV}, /* its own error is passed on */
    };
    struct odd odd = {0};
    struct source *s;

    (void)state;
    assert_int_equal(source_new(&s, &odd_ops, &odd, 4 * PAGE), 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct thaw_extent x;

        odd.answer = cases[i].answer;
        odd.result = cases[i].result;
        assert_int_equal(source_locate(s, &x, PAGE, 0, 4 * PAGE, PAGE), cases[i].expected);
    }
    assert_null(source_free(s));
    assert_int_equal(odd.n_freed, 1);
    assert_null(source_free(NULL));
}

static int failing_fetch(void *self, uint64_t lo, uint64_t hi)
{
    (void)self;
    (void)lo;
    (void)hi;
    return -EIO;
}

static void a_source_that_says_no_more_than_an_errno_is_explained(void **state)
{
    static const struct thaw_source_ops ops = {
        .name = "odd", .locate = odd_locate, .fetch = failing_fetch};
    struct odd odd = {.result = -ENODEV};
    struct thaw_extent x;
    struct source *s;

    (void)state;
    assert_int_equal(source_new(&s, &ops, &odd, 4 * PAGE), 0);
    (void)err_origin(-EPERM, "an older error");
    assert_int_equal(source_locate(s, &x, PAGE, 0, 4 * PAGE, PAGE), -ENODEV);
    assert_string_equal(err_text(),
                        "page source odd cannot read the bytes at offset 0x1000: No such device");
    (void)err_origin(-EPERM, "an older error");
    assert_int_equal(source_fetch(s, 0, PAGE), -EIO);
    assert_string_equal(err_text(),
                        "page source odd cannot read the bytes at offset 0x0: Input/output error");
    assert_null(source_free(s));
}

static void a_source_without_a_way_to_locate_is_refused(void **state)
{
    static const struct thaw_source_ops none = {.name = "none"};
    struct odd odd = {0};
    struct source *s = NULL;

    (void)state;
    assert_int_equal(source_new(&s, &none, NULL, PAGE), -EINVAL);
    assert_int_equal(source_new(&s, NULL, NULL, PAGE), -EINVAL);
    assert_int_equal(source_new(&s, &odd_ops, &odd, 0), -EINVAL);
    assert_null(s);
    assert_int_equal(odd.n_freed, 0); /* taken on success only */
}

#define MEMORY_FILE_TEST(f) cmocka_unit_test_setup_teardown(f, make_memory_file, remove_memory_file)
#define FILE_TEST(f)        cmocka_unit_test_setup_teardown(f, make_file, remove_file)
#define FILE_OF_ANOTHER_TEST(f)                                                  \
    {                                                                            \
#        f " (of a file of another)", f, make_file_of_another, remove_file, NULL \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        FILE_TEST(holes_are_found_by_the_walk),
        FILE_TEST(holes_are_asked_for_where_the_walk_did_not_come),
        FILE_TEST(a_walk_and_the_kernel_agree_on_random_files),
        FILE_TEST(a_huge_page_is_a_hole_only_when_all_of_it_is),
        FILE_TEST(a_fragmented_window_is_taken_as_data_but_not_the_page_itself),
        FILE_TEST(bytes_in_the_page_cache_are_in_memory),
        FILE_TEST(cold_bytes_are_elsewhere_until_they_are_fetched),
        FILE_TEST(expected_bytes_come_by_themselves_and_cached_ones_stay),
        FILE_TEST(of_a_window_that_is_partly_cached_the_cached_run_is_in_memory),
        FILE_TEST(a_huge_page_that_is_partly_cached_is_elsewhere),
        MEMORY_FILE_TEST(a_huge_page_that_is_a_hole_in_part_costs_a_file_in_memory_nothing),
        FILE_TEST(a_window_wider_than_any_pager_asks_for_is_refused),
        FILE_TEST(what_was_seen_to_be_cached_is_believed_for_a_while),
        FILE_OF_ANOTHER_TEST(bytes_in_the_page_cache_are_in_memory),
        FILE_OF_ANOTHER_TEST(cold_bytes_are_elsewhere_until_they_are_fetched),
        FILE_OF_ANOTHER_TEST(of_a_window_that_is_partly_cached_the_cached_run_is_in_memory),
        FILE_OF_ANOTHER_TEST(a_huge_page_that_is_partly_cached_is_elsewhere),
        FILE_TEST(holes_of_the_file_are_zero),
        FILE_TEST(a_file_that_shrinks_within_a_page_is_an_error_at_once),
        FILE_TEST(what_is_no_memory_file_is_refused_with_its_name),
        cmocka_unit_test(a_source_that_answers_nonsense_is_an_error_not_a_wrong_page),
        cmocka_unit_test(a_source_that_says_no_more_than_an_errno_is_explained),
        cmocka_unit_test(a_source_without_a_way_to_locate_is_refused),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
