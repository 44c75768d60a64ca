/* SPDX-License-Identifier: Apache-2.0 */
/* test_receive.c - messages: from bytes of the kernel's to events, with a pipe in the kernel's place */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>

#include "base/fd.h"
#include "uffd/receive.h"

#define N_MAX 8u

static int ends[2];

static int make_pipe(void **state)
{
    (void)state;
    return pipe2(ends, O_NONBLOCK | O_CLOEXEC);
}

static int close_pipe(void **state)
{
    (void)state;
    ends[0] = fd_close(ends[0]);
    ends[1] = fd_close(ends[1]);
    return 0;
}

static struct uffd_msg fault_at(uint64_t addr, uint64_t flags)
{
    struct uffd_msg msg = {.event = UFFD_EVENT_PAGEFAULT};

    msg.arg.pagefault.address = addr;
    msg.arg.pagefault.flags = flags;
    return msg;
}

static void put(const struct uffd_msg *msgs, size_t n)
{
    assert_int_equal(fd_write_all(ends[1], msgs, n * sizeof(*msgs)), 0);
}

static void a_message_that_was_read_is_taken_whatever_errno_was_before(void **state)
{
    struct uffd_msg msgs[N_MAX];
    struct uffd_msg one = fault_at(0x1000, 0);

    (void)state;
    for (int stale = EPERM; stale <= EAGAIN; stale++) {
        put(&one, 1);
        errno = stale;
        assert_int_equal(uffd_receive(ends[0], msgs, N_MAX), 1);
        assert_int_equal(msgs[0].arg.pagefault.address, 0x1000);
        errno = stale;
        assert_int_equal(uffd_receive(ends[0], msgs, N_MAX), 0);
    }
}

static void each_message_of_a_read_is_itself(void **state)
{
    struct uffd_msg sent[N_MAX];
    struct uffd_msg msgs[N_MAX];

    (void)state;
    for (unsigned i = 0; i < N_MAX; i++)
        sent[i] = fault_at(0x1000 * (i + 1), i % 2 ? UFFD_PAGEFAULT_FLAG_WRITE : 0);
    put(sent, N_MAX);
    assert_int_equal(uffd_receive(ends[0], msgs, N_MAX), N_MAX);
    for (unsigned i = 0; i < N_MAX; i++) {
        struct event ev = {0};

        assert_int_equal(uffd_decode(&msgs[i], &ev), 0);
        assert_int_equal(ev.kind, EVENT_FAULT);
        assert_int_equal(ev.fault.addr, 0x1000 * (i + 1));
        assert_int_equal(ev.fault.write, i % 2);
    }
}

static void a_descriptor_that_cannot_be_read_is_an_error_and_not_silence(void **state)
{
    struct uffd_msg msgs[N_MAX];

    (void)state;
    assert_int_equal(uffd_receive(ends[1], msgs, N_MAX), -EBADF);
}

static void events_are_what_they_say(void **state)
{
    struct uffd_msg remove = {.event = UFFD_EVENT_REMOVE};
    struct uffd_msg minor = fault_at(0x1000, UFFD_PAGEFAULT_FLAG_MINOR);
    struct uffd_msg protected =
        fault_at(0x1000, UFFD_PAGEFAULT_FLAG_WP | UFFD_PAGEFAULT_FLAG_WRITE);
    struct uffd_msg unknown = {.event = 0x7f};
    struct event ev = {0};

    (void)state;
    remove.arg.remove.start = 0x1000;
    remove.arg.remove.end = 0x3000;
    assert_int_equal(uffd_decode(&remove, &ev), 0);
    assert_int_equal(ev.kind, EVENT_REMOVE);
    assert_int_equal(ev.remove.start, 0x1000);
    assert_int_equal(ev.remove.end, 0x3000);
    assert_true(uffd_is_discard(&remove));
    assert_int_equal(uffd_decode(&protected, &ev), 0);
    assert_int_equal(ev.kind, EVENT_WP_FAULT);
    assert_false(uffd_is_discard(&protected));
    assert_int_equal(uffd_decode(&minor, &ev), UFFD_E_UNKNOWN);
    assert_int_equal(uffd_decode(&unknown, &ev), UFFD_E_UNKNOWN);
}

static void the_descriptor_that_comes_with_a_fork_is_closed(void **state)
{
    struct uffd_msg fork_msg = {.event = UFFD_EVENT_FORK};
    struct event ev = {0};
    int fd = dup(ends[0]);

    (void)state;
    assert_true(fd >= 0);
    fork_msg.arg.fork.ufd = (uint32_t)fd;
    assert_int_equal(uffd_decode(&fork_msg, &ev), UFFD_E_UNKNOWN);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

#define PIPE_TEST(f) cmocka_unit_test_setup_teardown(f, make_pipe, close_pipe)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PIPE_TEST(a_message_that_was_read_is_taken_whatever_errno_was_before),
        PIPE_TEST(each_message_of_a_read_is_itself),
        PIPE_TEST(a_descriptor_that_cannot_be_read_is_an_error_and_not_silence),
        PIPE_TEST(events_are_what_they_say),
        PIPE_TEST(the_descriptor_that_comes_with_a_fork_is_closed),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
