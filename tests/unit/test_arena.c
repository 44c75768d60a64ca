/* SPDX-License-Identifier: Apache-2.0 */
/* test_arena.c - how an image's pages come and go, and what is wrong with a pack */
#include "testing.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "image_rig.h"
#include "source/arena.h"

/* ---- what is wrong with a pack ---------------------------------------------------------------------------------- */

static unsigned n_failures; /* reads that are yet to fail */
static unsigned n_reads;

ssize_t __real_pread64(int fd, void *buf, size_t len, off_t off);
ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t off);

ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t off)
{
    __atomic_add_fetch(&n_reads, 1, __ATOMIC_RELAXED);
    if (n_failures > 0) {
        n_failures--;
        errno = EIO;
        return -1;
    }
    return __real_pread64(fd, buf, len, off);
}

static void a_read_that_fails_is_tried_again(void **state)
{
    struct rig m = rig_begin(64);
    struct source *s;

    (void)state;
    rig_add_pages(&m, 8, 16, FRAME_ZSTD);
    s = rig_end(&m, MIB);
    n_failures = 2;
    rig_fetch(s, 8, 9);
    assert_int_equal(n_failures, 0);
    rig_check(s, 8, 0, 64, THAW_WHERE_MEMORY, 8, 24);
    rig_close(s);
}

/* flip() - one byte of the pack */
static void flip(uint64_t off)
{
    unsigned char byte;

    assert_int_equal(pread(rig_pack, &byte, 1, (off_t)off), 1);
    byte ^= 1;
    assert_int_equal(pwrite(rig_pack, &byte, 1, (off_t)off), 1);
}

static void a_broken_frame_is_an_error_that_names_the_place(void **state)
{
    (void)state;
    for (enum frame_codec codec = FRAME_STORED; codec <= FRAME_ZSTD; codec++) {
        struct rig m = rig_begin(64);
        struct source *s;
        uint64_t middle;

        rig_add_pages(&m, 8, 16, codec);
        rig_add_pages(&m, 30, 4, codec);
        middle = m.image->manifest->frames[0].off + m.image->manifest->frames[0].stored_bytes / 2;
        s = rig_end(&m, MIB);
        flip(middle);
        n_reads = 0;
        assert_int_equal(source_fetch(s, 8 * PAGE, 9 * PAGE), -EIO);
        assert_int_equal(n_reads, 4);
        assert_non_null(strstr(err_text(), "/store/packs/feed"));
        assert_non_null(strstr(err_text(), "offset 64"));
        rig_check(s, 8, 0, 64, THAW_WHERE_ELSEWHERE, 8, 24);
        rig_fetch(s, 30, 34);
        rig_check(s, 30, 0, 64, THAW_WHERE_MEMORY, 30, 34);
        flip(middle);
        rig_fetch(s, 8, 9);
        rig_check(s, 8, 0, 64, THAW_WHERE_MEMORY, 8, 24);
        rig_close(s);
    }
}

static void a_pack_that_was_cut_is_an_error(void **state)
{
    struct rig m = rig_begin(64);
    struct source *s;

    (void)state;
    rig_add_pages(&m, 8, 16, FRAME_STORED);
    s = rig_end(&m, MIB);
    assert_int_equal(ftruncate(rig_pack, 5000), 0);
    assert_int_equal(source_fetch(s, 8 * PAGE, 9 * PAGE), -EIO);
    assert_non_null(strstr(err_text(), "ends too early"));
    rig_close(s);
}

/* ---- what stays and what goes ------------------------------------------------------------------------------------ */

#define MANY 400u /* frames of four pages */

static struct source *many_frames(uint64_t cache_bytes)
{
    struct rig m = rig_begin(MANY * 8ull);

    for (unsigned i = 0; i < MANY; i++)
        rig_add_pages(&m, i * 8ull, 4, i % 2 ? FRAME_LZ4 : FRAME_ZSTD);
    return rig_end(&m, cache_bytes);
}

/* count_there() - how many of many_frames() are in memory; each is right */
static unsigned count_there(struct source *s)
{
    unsigned n = 0;

    for (unsigned i = 0; i < MANY; i++) {
        if (rig_look(s, i * 8ull, i * 8ull, i * 8ull + 4).where != THAW_WHERE_MEMORY)
            continue;
        rig_check(s, i * 8ull, 0, MANY * 8ull, THAW_WHERE_MEMORY, i * 8ull, i * 8ull + 4);
        n++;
    }
    return n;
}

static void the_bound_is_kept_and_the_oldest_go_first(void **state)
{
    struct source *s = many_frames(200 * 4 * PAGE);
    const void *first_bytes;
    unsigned char resident = 1;

    (void)state;
    for (unsigned i = 0; i < MANY; i++)
        rig_fetch(s, i * 8ull, i * 8ull + 1);
    assert_int_equal(count_there(s), MANY); /* nothing goes before trim() */
    first_bytes = rig_look(s, 0, 0, 4).bytes;
    source_trim(s);
    assert_int_equal(count_there(s), 200);
    rig_check(s, 0, 0, 8, THAW_WHERE_ELSEWHERE, 0, 4);
    rig_check(s, 199 * 8, 199 * 8, 200 * 8, THAW_WHERE_ELSEWHERE, 199 * 8, 199 * 8 + 4);
    rig_check(s, 200 * 8, 200 * 8, 201 * 8, THAW_WHERE_MEMORY, 200 * 8, 200 * 8 + 4);
    assert_int_equal(mincore((void *)first_bytes, PAGE, &resident), 0);
    assert_false(resident & 1);
    source_trim(s);
    assert_int_equal(count_there(s), 200);
    rig_fetch(s, 0, 1);
    rig_check(s, 0, 0, 8, THAW_WHERE_MEMORY, 0, 4);
    rig_close(s);
}

static void what_is_asked_for_again_counts_as_new(void **state)
{
    struct source *s = many_frames(200 * 4 * PAGE);

    (void)state;
    for (unsigned i = 0; i < 200; i++)
        rig_fetch(s, i * 8ull, i * 8ull + 1);
    rig_fetch(s, 0, 1);
    for (unsigned i = 200; i < 200 + ARENA_KEEPS; i++)
        rig_fetch(s, i * 8ull, i * 8ull + 1);
    source_trim(s);
    assert_int_equal(count_there(s), 200);
    rig_check(s, 0, 0, 8, THAW_WHERE_MEMORY, 0, 4);
    rig_check(s, 8, 8, 16, THAW_WHERE_ELSEWHERE, 8, 12);
    rig_close(s);
}

static void what_the_last_fetches_brought_stays_whatever_the_bound(void **state)
{
    struct source *s = many_frames(1);

    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        rig_fetch(s, i * 8ull, i * 8ull + 1);
        source_trim(s);
        for (unsigned back = 0; back <= i && back < ARENA_KEEPS; back++)
            assert_int_equal(rig_look(s, (i - back) * 8ull, 0, MANY * 8ull).where,
                             THAW_WHERE_MEMORY);
    }
    assert_int_equal(count_there(s), ARENA_KEEPS);
    rig_close(s);
}

static void many_frames_that_are_fetched_at_once_are_there_whatever_was_dropped(void **state)
{
    struct rig m = rig_begin(2048);
    struct source *s;

    (void)state;
    for (unsigned i = 0; i < 2048; i += 16)
        rig_add_pages(&m, i, 16, FRAME_LZ4);
    s = rig_end(&m, 1);
    for (unsigned i = 0; i < 300; i++) {
        uint64_t huge = i % 4;

        rig_fetch(s, (i * 37 % 128) * 16, (i * 37 % 128) * 16 + 1);
        source_trim(s);
        rig_fetch(s, huge * 512, huge * 512 + 512);
        source_trim(s);
        rig_check(s, huge * 512, huge * 512, huge * 512 + 512, THAW_WHERE_MEMORY, huge * 512,
                  huge * 512 + 512);
    }
    rig_close(s);
}

static void hints_change_nothing(void **state)
{
    struct source *s = many_frames(MIB);

    (void)state;
    source_expect(s, 0, MANY * 8 * PAGE);
    source_expect(s, 0, MANY * 8 * PAGE);
    assert_int_equal(count_there(s), 0);
    rig_close(s);
}

/* ---- several threads -------------------------------------------------------------------------------------------- */

#define THREADS 8u
#define FETCHES 1500u

struct fetcher {
    struct source *source;
    struct rng rng;
    pthread_t thread;
};

static unsigned n_running; /* atomic */
static unsigned
    n_seen; /* atomic: looks that found something in memory; they may come late on a busy machine */

static void *fetch_at_random(void *arg)
{
    struct fetcher *f = arg;

    for (unsigned i = 0; i < FETCHES || __atomic_load_n(&n_seen, __ATOMIC_RELAXED) == 0; i++) {
        uint64_t first = rng_below(&f->rng, MANY * 8);
        uint64_t n = 1 + rng_below(&f->rng, min_u64(40, MANY * 8 - first));

        if (source_fetch(f->source, first * PAGE, (first + n) * PAGE) < 0)
            abort();
    }
    __atomic_sub_fetch(&n_running, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* The pager thread's part: whatever it is told is in memory is right until it says that it uses nothing any more. */
static void bytes_are_right_while_many_fetch_and_one_drops(void **state)
{
    struct rng rng = rng_init("bytes_are_right_while_many_fetch_and_one_drops");
    struct source *s = many_frames(60 * 4 * PAGE);
    struct fetcher fetchers[THREADS];

    (void)state;
    n_running = THREADS;
    for (unsigned i = 0; i < THREADS; i++) {
        fetchers[i] = (struct fetcher){.source = s, .rng.state = rng_next(&rng)};
        assert_int_equal(pthread_create(&fetchers[i].thread, NULL, fetch_at_random, &fetchers[i]),
                         0);
    }
    while (__atomic_load_n(&n_running, __ATOMIC_ACQUIRE) > 0) {
        uint64_t p = rng_below(&rng, MANY) * 8 + rng_below(&rng, 4);
        struct thaw_extent x = rig_look(s, p, 0, MANY * 8ull);

        assert_int_not_equal(x.where, THAW_WHERE_ZERO);
        if (x.where == THAW_WHERE_MEMORY) {
            assert_int_equal(x.first, p / 8 * 8 * PAGE);
            for (uint64_t i = x.first / PAGE; i < x.end / PAGE; i++)
                assert_true(rig_is_page((const char *)x.bytes + i * PAGE - x.first, i));
            __atomic_add_fetch(&n_seen, 1, __ATOMIC_RELAXED);
        }
        if (rng_below(&rng, 4) == 0)
            source_trim(s);
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(fetchers[i].thread, NULL), 0);
    assert_true(n_seen > 0);
    (void)count_there(s);
    rig_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_that_fails_is_tried_again),
        cmocka_unit_test(a_broken_frame_is_an_error_that_names_the_place),
        cmocka_unit_test(a_pack_that_was_cut_is_an_error),
        cmocka_unit_test(the_bound_is_kept_and_the_oldest_go_first),
        cmocka_unit_test(what_is_asked_for_again_counts_as_new),
        cmocka_unit_test(what_the_last_fetches_brought_stays_whatever_the_bound),
        cmocka_unit_test(many_frames_that_are_fetched_at_once_are_there_whatever_was_dropped),
        cmocka_unit_test(hints_change_nothing),
        cmocka_unit_test(bytes_are_right_while_many_fetch_and_one_drops),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
