/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_install.c - what the kernel's answers mean, and what it is asked: ioctl(2) is replaced by one that does as told
 *
 * Kernels differ in how they say that only a part was done, or nothing: see decode() in uffd/install.c.
 */
#include "testing.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/linux_compat.h"
#include "uffd/install.h"

#define PAGE 4096ull

/* What the next ioctl does, and what it was asked. */
static struct {
    int error; /* 0: succeeds */
    int64_t field;
    uint64_t ioctls;        /* what UFFDIO_REGISTER says is possible */
    unsigned n_interrupted; /* so often EINTR first */
    unsigned long request;
    uint64_t dst;
    uint64_t len;
    uint64_t mode;
    unsigned n_calls;
} kernel;

static void note(uint64_t dst, uint64_t len, uint64_t mode)
{
    kernel.dst = dst;
    kernel.len = len;
    kernel.mode = mode;
}

int __wrap_ioctl(int fd, unsigned long request, void *arg);

int __wrap_ioctl(int fd, unsigned long request, void *arg)
{
    struct uffdio_copy *copy = arg;
    struct uffdio_zeropage *zero = arg;
    const struct uffdio_writeprotect *protect = arg;
    const struct uffdio_range *range = arg;
    struct uffdio_register *reg = arg;

    (void)fd;
    kernel.request = request;
    kernel.n_calls++;
    if (kernel.n_interrupted > 0) {
        kernel.n_interrupted--;
        errno = EINTR;
        return -1;
    }
    switch (request) {
    case UFFDIO_COPY:
        note(copy->dst, copy->len, copy->mode);
        copy->copy = kernel.error ? kernel.field : (int64_t)copy->len;
        break;
    case UFFDIO_ZEROPAGE:
        note(zero->range.start, zero->range.len, zero->mode);
        zero->zeropage = kernel.error ? kernel.field : (int64_t)zero->range.len;
        break;
    case UFFDIO_WRITEPROTECT:
        note(protect->range.start, protect->range.len, protect->mode);
        break;
    case UFFDIO_REGISTER:
        note(reg->range.start, reg->range.len, reg->mode);
        reg->ioctls = kernel.ioctls;
        break;
    default:
        note(range->start, range->len, 0);
        break;
    }
    errno = kernel.error ? kernel.error : EBADMSG; /* a call that works may leave anything there */
    return kernel.error ? -1 : 0;
}

static struct install_result copy_with(int error, int64_t field)
{
    memset(&kernel, 0, sizeof(kernel));
    kernel.error = error;
    kernel.field = field;
    return uffd_copy(3, 0x10000, (const void *)0x20000, 4 * PAGE, false);
}

static struct install_result zero_with(int error, int64_t field)
{
    memset(&kernel, 0, sizeof(kernel));
    kernel.error = error;
    kernel.field = field;
    return uffd_zeropage(3, 0x10000, 4 * PAGE);
}

static void check(struct install_result r, enum outcome outcome, uint64_t bytes_done)
{
    assert_int_equal(r.outcome, outcome);
    assert_int_equal(r.bytes_done, bytes_done);
}

static void a_refusal_is_told_by_every_kernel_in_its_own_way(void **state)
{
    (void)state;
    check(copy_with(EAGAIN, -EAGAIN), OUTCOME_AGAIN, 0); /* 6.15 and later */
    check(copy_with(EAGAIN, 0), OUTCOME_AGAIN, 0);       /* before: the field is left as it was */
    check(copy_with(EAGAIN, PAGE), OUTCOME_AGAIN, PAGE); /* a part: progress */
    check(copy_with(EAGAIN, 3 * PAGE), OUTCOME_AGAIN, 3 * PAGE);
    check(zero_with(EAGAIN, -EAGAIN), OUTCOME_AGAIN, 0);
    check(zero_with(EAGAIN, 0), OUTCOME_AGAIN, 0);
    check(zero_with(EAGAIN, 2 * PAGE), OUTCOME_AGAIN, 2 * PAGE);
}

static void what_the_field_says_counts_when_errno_says_again(void **state)
{
    (void)state;
    check(copy_with(EAGAIN, -EEXIST), OUTCOME_EXISTS, 0);
    check(copy_with(EAGAIN, -ENOMEM), OUTCOME_NOMEM, 0);
}

static void every_error_of_an_install_is_told_from_the_others(void **state)
{
    static const struct {
        int error;
        enum outcome outcome;
    } cases[] = {
        {EEXIST, OUTCOME_EXISTS},  {ENOENT, OUTCOME_UNMAPPED}, {ENOMEM, OUTCOME_NOMEM},
        {ENOSPC, OUTCOME_NOMEM},   {EFAULT, OUTCOME_SOURCE},   {ESRCH, OUTCOME_GONE},
        {EINVAL, OUTCOME_REFUSED}, {EPERM, OUTCOME_REFUSED},   {EBADF, OUTCOME_REFUSED},
        {ENOTTY, OUTCOME_REFUSED},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        check(copy_with(cases[i].error, 0), cases[i].outcome, 0);
        check(copy_with(cases[i].error, -cases[i].error), cases[i].outcome, 0);
        check(zero_with(cases[i].error, -cases[i].error), cases[i].outcome, 0);
    }
}

static void no_count_is_larger_than_what_was_asked_for(void **state)
{
    (void)state;
    check(copy_with(EAGAIN, INT64_MAX), OUTCOME_AGAIN, 4 * PAGE);
}

static void an_install_that_works_is_done_whatever_errno_is(void **state)
{
    (void)state;
    check(copy_with(0, 0), OUTCOME_DONE, 4 * PAGE);
    check(zero_with(0, 0), OUTCOME_DONE, 4 * PAGE);
}

static void a_signal_is_no_answer(void **state)
{
    (void)state;
    memset(&kernel, 0, sizeof(kernel));
    kernel.n_interrupted = 3;
    check(uffd_copy(3, 0x10000, (const void *)0x20000, PAGE, false), OUTCOME_DONE, PAGE);
    assert_int_equal(kernel.n_calls, 4);
}

static void an_armed_install_is_one_call(void **state)
{
    (void)state;
    memset(&kernel, 0, sizeof(kernel));
    (void)uffd_copy(3, 0x10000, (const void *)0x20000, PAGE, true);
    assert_int_equal(kernel.n_calls, 1);
    assert_int_equal(kernel.request, UFFDIO_COPY);
    assert_int_equal(kernel.mode, UFFDIO_COPY_MODE_WP);
}

static void zero_pages_are_asked_for_without_any_mode(void **state)
{
    (void)state;
    (void)zero_with(0, 0);
    assert_int_equal(kernel.request, UFFDIO_ZEROPAGE);
    assert_int_equal(kernel.mode, 0); /* it has no flag for write protection: EINVAL */
}

static void lifting_protection_wakes(void **state)
{
    (void)state;
    memset(&kernel, 0, sizeof(kernel));
    check(uffd_unprotect(3, 0x10000, PAGE), OUTCOME_DONE, PAGE);
    assert_int_equal(kernel.request, UFFDIO_WRITEPROTECT);
    assert_int_equal(kernel.mode, 0); /* neither WP nor DONTWAKE */
}

static void a_wake_is_the_number_that_the_kernel_knows(void **state)
{
    (void)state;
    memset(&kernel, 0, sizeof(kernel));
    check(uffd_wake(3, 0x10000, PAGE), OUTCOME_DONE, PAGE);
    assert_int_equal(kernel.request, 0x8010aa02);
    assert_int_equal(kernel.dst, 0x10000);
    assert_int_equal(kernel.len, PAGE);
}

static void huge_pages_are_told_from_small_ones_without_touching_them(void **state)
{
    static const struct {
        int error;
        int expected;
    } cases[] = {{EINVAL, 0}, {EFAULT, -EINVAL}, {EAGAIN, 0}, {ENOENT, 0}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memset(&kernel, 0, sizeof(kernel));
        kernel.error = cases[i].error;
        assert_int_equal(uffd_check_huge(3, 0x200000), cases[i].expected);
        assert_int_equal(kernel.request, UFFDIO_COPY);
        assert_int_equal(kernel.len, 4096);
    }
}

static void what_a_later_kernel_can_do_besides_is_passed_over(void **state)
{
    (void)state;
    memset(&kernel, 0, sizeof(kernel));
    kernel.ioctls = UINT64_MAX;
    assert_int_equal(uffd_track(3, 0x10000, PAGE), 0);
    assert_int_equal(kernel.mode, UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
}

static void memory_that_cannot_be_write_protected_is_not_taken_for_tracked(void **state)
{
    (void)state;
    memset(&kernel, 0, sizeof(kernel));
    kernel.ioctls = UINT64_MAX & ~(1ull << _UFFDIO_WRITEPROTECT);
    assert_int_equal(uffd_track(3, 0x10000, PAGE), -EOPNOTSUPP);
    memset(&kernel, 0, sizeof(kernel));
    kernel.error = EINVAL;
    assert_int_equal(uffd_track(3, 0x10000, PAGE), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refusal_is_told_by_every_kernel_in_its_own_way),
        cmocka_unit_test(what_the_field_says_counts_when_errno_says_again),
        cmocka_unit_test(every_error_of_an_install_is_told_from_the_others),
        cmocka_unit_test(no_count_is_larger_than_what_was_asked_for),
        cmocka_unit_test(an_install_that_works_is_done_whatever_errno_is),
        cmocka_unit_test(a_signal_is_no_answer),
        cmocka_unit_test(an_armed_install_is_one_call),
        cmocka_unit_test(zero_pages_are_asked_for_without_any_mode),
        cmocka_unit_test(lifting_protection_wakes),
        cmocka_unit_test(huge_pages_are_told_from_small_ones_without_touching_them),
        cmocka_unit_test(what_a_later_kernel_can_do_besides_is_passed_over),
        cmocka_unit_test(memory_that_cannot_be_write_protected_is_not_taken_for_tracked),
        cmocka_unit_test(a_wake_is_the_number_that_the_kernel_knows),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
