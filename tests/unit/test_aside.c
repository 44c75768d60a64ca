/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_aside.c - a thread that installs only while it may
 *
 * ioctl(2) is replaced by a kernel of a few pages: it copies nothing, but knows what is there, and fails the test if it is
 * called by anybody who was not lent the userfaultfd.
 */
#include "testing.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/linux_compat.h"
#include "pager/aside.h"

#define PAGE      4096ull
#define FIRST     0x100000ull /* address of page 0 */
#define PAGES     512u
#define PATIENCE  (20 * NS_PER_S)
#define SOURCE    ((const char *)0x20000000)
#define MANY      20000u
#define NO_REFUSE UINT64_MAX

/* What the kernel has, and what it was asked. Everything is atomic: two threads look at it. */
static struct {
    bool there[PAGES];
    bool lent;         /* may anybody install? */
    bool is_wrong;     /* somebody did who might not */
    bool is_held;      /* an install does not return */
    unsigned n_inside; /* installs under way */
    unsigned n_calls;
    uint64_t refused; /* the page that is refused, NO_REFUSE: none */
    int error;        /* ... with this errno */
} kernel;

static bool get(const bool *flag)
{
    return __atomic_load_n(flag, __ATOMIC_SEQ_CST);
}

static void set(bool *flag, bool value)
{
    __atomic_store_n(flag, value, __ATOMIC_SEQ_CST);
}

/* copy_pages() - as UFFDIO_COPY does. Return: 0 or an errno; *field as in struct uffdio_copy */
static int copy_pages(uint64_t dst, uint64_t src, uint64_t len, int64_t *field)
{
    uint64_t first = (dst - FIRST) / PAGE;

    *field = 0;
    if (src - (uintptr_t)SOURCE != dst - FIRST)
        return EFAULT;
    for (uint64_t i = 0; i < len / PAGE; i++) {
        int error = get(&kernel.there[first + i]) ? EEXIST
                    : first + i == kernel.refused ? kernel.error
                                                  : 0;

        if (error != 0) {
            *field = i > 0 ? (int64_t)(i * PAGE) : -error;
            return i > 0 ? EAGAIN : error;
        }
        set(&kernel.there[first + i], true);
    }
    *field = (int64_t)len;
    return 0;
}

int __wrap_ioctl(int fd, unsigned long request, void *arg);

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
    struct uffdio_copy *copy = arg;
    int64_t field;
    int error;

    (void)fd;
    if (request != UFFDIO_COPY || !get(&kernel.lent))
        set(&kernel.is_wrong, true);
    (void)__atomic_add_fetch(&kernel.n_inside, 1, __ATOMIC_SEQ_CST);
    (void)__atomic_add_fetch(&kernel.n_calls, 1, __ATOMIC_SEQ_CST);
    while (get(&kernel.is_held))
        continue;
    error = copy_pages(copy->dst, copy->src, copy->len, &field);
    copy->copy = field;
    if (!get(&kernel.lent))
        set(&kernel.is_wrong, true);
    (void)__atomic_sub_fetch(&kernel.n_inside, 1, __ATOMIC_SEQ_CST);
    errno = error;
    return error ? -1 : 0;
}

static unsigned calls(void)
{
    return __atomic_load_n(&kernel.n_calls, __ATOMIC_SEQ_CST);
}

static int begin(void **state)
{
    struct aside *a;

    memset(&kernel, 0, sizeof(kernel));
    kernel.refused = NO_REFUSE;
    assert_int_equal(aside_new(&a, 3, PAGE), 0);
    *state = a;
    return 0;
}

static int end(void **state)
{
    set(&kernel.is_held, false);
    return aside_free(*state) != NULL;
}

static void lend(struct aside *a)
{
    set(&kernel.lent, true);
    aside_lend(a, 0);
}

static void take_back(struct aside *a)
{
    aside_take_back(a);
    set(&kernel.lent, false);
    assert_false(get(&kernel.is_wrong));
}

static void give(struct aside *a, unsigned first, unsigned n)
{
    const struct burst_op op = {
        .dst = FIRST + first * PAGE, .src = SOURCE + first * PAGE, .len = n * PAGE};

    aside_give(a, &op);
}

/* wait_left() - until so many are left */
static void wait_left(struct aside *a, unsigned n)
{
    uint64_t until_ns = clock_now_ns() + PATIENCE;

    while (aside_left(a) > n)
        assert_true(clock_now_ns() < until_ns);
}

static void nothing_is_installed_before_it_is_lent(void **state)
{
    struct aside *a = *state;
    struct aside_op op;

    give(a, 0, 4);
    (void)usleep(2000);
    assert_int_equal(calls(), 0);
    assert_int_equal(aside_left(a), 1);
    assert_false(aside_take_done(a, &op));
    lend(a);
    wait_left(a, 0);
    take_back(a);
    assert_true(aside_take_done(a, &op));
    assert_int_equal(op.op.result.outcome, OUTCOME_DONE);
    assert_int_equal(op.op.result.bytes_done, 4 * PAGE);
    assert_int_equal(op.found, 0);
    assert_true(aside_is_empty(a));
}

static void what_is_done_comes_back_in_the_order_in_which_it_was_given(void **state)
{
    struct aside *a = *state;
    struct aside_op op;

    for (unsigned i = 0; i < ASIDE_OPS; i++)
        give(a, 2 * i, 2);
    assert_int_equal(aside_room(a), 0);
    lend(a);
    wait_left(a, 0);
    take_back(a);
    for (unsigned i = 0; i < ASIDE_OPS; i++) {
        assert_true(aside_take_done(a, &op));
        assert_int_equal(op.op.dst, FIRST + 2 * i * PAGE);
    }
    assert_false(aside_take_done(a, &op));
    assert_int_equal(aside_room(a), ASIDE_OPS);
}

static void *let_go(void *arg)
{
    (void)arg;
    (void)usleep(30000); /* longer than anybody looks out without sleeping */
    set(&kernel.is_held, false);
    return NULL;
}

static void taking_back_waits_for_the_install_under_way_and_for_no_other(void **state)
{
    struct aside *a = *state;
    uint64_t until_ns = clock_now_ns() + PATIENCE;
    pthread_t thread;

    give(a, 0, 1);
    give(a, 1, 1);
    set(&kernel.is_held, true);
    lend(a);
    while (calls() == 0)
        assert_true(clock_now_ns() < until_ns);
    assert_int_equal(pthread_create(&thread, NULL, let_go, NULL), 0);
    take_back(a);
    assert_false(get(&kernel.is_held));
    assert_int_equal(__atomic_load_n(&kernel.n_inside, __ATOMIC_SEQ_CST), 0);
    assert_int_equal(calls(), 1);
    assert_int_equal(aside_left(a), 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void pages_that_are_there_already_are_noted_and_the_others_installed(void **state)
{
    struct aside *a = *state;
    struct aside_op op;

    kernel.there[0] = kernel.there[3] = kernel.there[7] = true;
    give(a, 0, 8);
    lend(a);
    wait_left(a, 0);
    take_back(a);
    assert_true(aside_take_done(a, &op));
    assert_int_equal(op.op.result.outcome, OUTCOME_DONE);
    assert_int_equal(op.op.result.bytes_done, 8 * PAGE);
    assert_int_equal(op.found, 0x89);
    for (unsigned i = 0; i < 8; i++)
        assert_true(kernel.there[i]);
}

static void one_that_is_refused_ends_it_until_it_is_lent_again(void **state)
{
    static const struct {
        int error;
        enum outcome outcome;
    } refusals[] = {{EAGAIN, OUTCOME_AGAIN}, {ENOMEM, OUTCOME_NOMEM}, {ESRCH, OUTCOME_GONE}};
    struct aside *a = *state;
    struct aside_op op;
    eventfd_t told;

    for (unsigned i = 0; i < ARRAY_LEN(refusals); i++) {
        unsigned first = 16 * i;

        kernel.refused = first + 2;
        kernel.error = refusals[i].error;
        give(a, first, 8);
        give(a, first + 8, 8);
        lend(a);
        wait_left(a, 1);
        (void)usleep(2000);
        take_back(a);
        assert_int_equal(aside_left(a), 1);
        assert_int_equal(eventfd_read(aside_fd(a), &told), 0);
        assert_true(aside_take_done(a, &op));
        assert_int_equal(op.op.result.outcome, refusals[i].outcome);
        assert_int_equal(op.op.result.bytes_done, 2 * PAGE);
        assert_false(aside_take_done(a, &op));
        lend(a);
        wait_left(a, 0);
        take_back(a);
        assert_true(aside_take_done(a, &op));
        assert_int_equal(op.op.result.outcome, OUTCOME_DONE);
    }
}

static void what_is_dropped_is_never_installed(void **state)
{
    struct aside *a = *state;
    struct aside_op op;

    give(a, 0, 1);
    give(a, 1, 1);
    aside_drop(a);
    assert_true(aside_is_empty(a));
    give(a, 2, 1);
    lend(a);
    wait_left(a, 0);
    take_back(a);
    assert_true(aside_take_done(a, &op));
    assert_int_equal(op.op.dst, FIRST + 2 * PAGE);
    assert_false(kernel.there[0] || kernel.there[1]);
}

static void it_says_when_little_is_left(void **state)
{
    struct aside *a = *state;
    uint64_t until_ns = clock_now_ns() + PATIENCE;
    eventfd_t told;

    give(a, 0, 1);
    lend(a);
    while (eventfd_read(aside_fd(a), &told) < 0)
        assert_true(clock_now_ns() < until_ns);
    take_back(a);
}

/* The kernel above fails the test if an install begins or ends while nothing is lent. */
static void however_often_it_is_lent_and_taken_back_nothing_is_installed_in_between(void **state)
{
    struct aside *a = *state;
    struct aside_op op;
    unsigned seed = (unsigned)time(NULL);
    unsigned given = 0, taken = 0;

    print_message("seed %u\n", seed);
    for (unsigned i = 0; i < MANY; i++) {
        for (unsigned n = (unsigned)rand_r(&seed) % 4; n > 0 && aside_room(a) > 0; n--)
            give(a, given++ % PAGES, 1);
        lend(a);
        for (unsigned n = (unsigned)rand_r(&seed) % 64; n > 0; n--)
            (void)calls();
        take_back(a);
        while (aside_take_done(a, &op)) {
            assert_int_equal(op.op.dst, FIRST + (taken++ % PAGES) * PAGE);
            assert_int_equal(op.op.result.outcome, OUTCOME_DONE);
        }
    }
    lend(a);
    wait_left(a, 0);
    take_back(a);
    while (aside_take_done(a, &op))
        taken++;
    assert_int_equal(taken, given);
}

static void it_ends_while_it_sleeps_and_with_work_left(void **state)
{
    struct aside *a = *state;

    (void)usleep(2000);
    give(a, 0, 1);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, begin, end)
    const struct CMUnitTest tests[] = {
        T(nothing_is_installed_before_it_is_lent),
        T(what_is_done_comes_back_in_the_order_in_which_it_was_given),
        T(taking_back_waits_for_the_install_under_way_and_for_no_other),
        T(pages_that_are_there_already_are_noted_and_the_others_installed),
        T(one_that_is_refused_ends_it_until_it_is_lent_again),
        T(what_is_dropped_is_never_installed),
        T(it_says_when_little_is_left),
        T(however_often_it_is_lent_and_taken_back_nothing_is_installed_in_between),
        T(it_ends_while_it_sleeps_and_with_work_left),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("aside", tests, NULL, NULL);
}
