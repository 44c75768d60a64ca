/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_qmp.c - what a QEMU may say at its control socket, and what becomes of it (vmm/qmp.c)
 *
 * The other end is played by the test itself. Numbers of commands are known (the greeting's is 1), so whatever fits into the
 * socket's buffer is said before anybody listens, and needs no second thread.
 */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "vmm/qmp.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"
#define HELLO    GREETING "{\"return\": {}, \"id\": 1}\r\n"
#define LONG_MS  20000u
#define SHORT_MS 50u

static int qemu = -1; /* its end of the socket */

static void say_bytes(const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = send(qemu, text, len, MSG_NOSIGNAL);

        if (n <= 0)
            return; /* nobody listens any more */
        text += n;
        len -= (size_t)n;
    }
}

static void say(const char *text)
{
    say_bytes(text, strlen(text));
}

/* meet() - a connection to which @first was said. Return: as qmp_new() */
static int meet(struct qmp **out, const char *first, unsigned timeout_ms)
{
    int ends[2];

    *out = NULL;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    qemu = ends[1];
    say(first);
    return qmp_new(out, ends[0], clock_now_ns() + timeout_ms * NS_PER_MS);
}

static int leave(void **state)
{
    (void)state;
    qemu = fd_close(qemu);
    return 0;
}

/* heard() - the next line that was sent to QEMU, without its end */
static const char *heard(void)
{
    static char line[512];
    size_t len = 0;

    while (len < sizeof(line) - 1 && recv(qemu, line + len, 1, MSG_DONTWAIT) == 1 &&
           line[len] != '\n')
        len++;
    line[len] = '\0';
    return line;
}

static void an_answer_is_the_one_with_the_command_s_number(void **state)
{
    struct qmp *qmp;
    json_t *out = NULL;

    (void)state;
    assert_int_equal(meet(&qmp, HELLO, LONG_MS), 0);
    say("{\"event\": \"STOP\", \"timestamp\": {}}\r\n{\"return\": {\"status\": \"old\"}, \"id\": "
        "1}\r\n"
        "{\"return\": {}, \"id\": \"2\"}\r\n{\"return\": {\"status\": \"running\"}, \"id\": 2}\r\n"
        "{\"event\": \"RESUME\"}\r\n{\"return\": {}, \"id\": 3}\r\n");
    assert_int_equal(qmp_execute(qmp, "query-status", NULL, &out), 0);
    assert_string_equal(json_string_value(json_object_get(out, "status")), "running");
    json_decref(out);
    assert_int_equal(qmp_execute(qmp, "balloon", json_pack("{s:i}", "value", 7), NULL), 0);
    assert_string_equal(heard(), "{\"execute\":\"qmp_capabilities\",\"arguments\":{},\"id\":1}");
    assert_string_equal(heard(), "{\"execute\":\"query-status\",\"arguments\":{},\"id\":2}");
    assert_string_equal(heard(), "{\"execute\":\"balloon\",\"arguments\":{\"value\":7},\"id\":3}");
    assert_null(qmp_free(qmp));
    assert_null(qmp_free(NULL));
}

static void what_qemu_refuses_is_told_in_its_own_words(void **state)
{
    struct qmp *qmp;

    (void)state;
    assert_int_equal(meet(&qmp, HELLO, LONG_MS), 0);
    say("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no balloon here\"}, \"id\": 2}\n");
    assert_int_equal(qmp_execute(qmp, "balloon", NULL, NULL), -EIO);
    assert_string_equal(err_text(), "QEMU refuses balloon: no balloon here");
    say("{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"unknown\"}, \"id\": 3}\n");
    assert_int_equal(qmp_execute(qmp, "x-hint", NULL, NULL), -EOPNOTSUPP);
    say("{\"error\": {\"class\": \"GenericError\", \"desc\": \"bad JSON\"}}\n"); /* of what it could not read */
    assert_int_equal(qmp_execute(qmp, "cont", NULL, NULL), -EIO);
    say("{\"error\": {}, \"id\": 5}\n");
    assert_int_equal(qmp_execute(qmp, "cont", NULL, NULL), -EIO);
    assert_non_null(strstr(err_text(), "does not say why"));
    say("{\"return\": {}, \"id\": 6}\n"); /* and goes on */
    assert_int_equal(qmp_execute(qmp, "cont", NULL, NULL), 0);
    qmp_free(qmp);
}

static void who_does_not_speak_as_qemu_is_not_taken_for_it(void **state)
{
    static const char *const cases[] = {
        "{\"hello\": 1}\n",           "SSH-2.0-server\r\n", "[]\n", "\n",
        "{\"QMP\": 1, \"QMP\": 2}\n", "\xff\xfe\n",
    };
    struct qmp *qmp;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(meet(&qmp, cases[i], LONG_MS), -EPROTO);
        assert_null(qmp);
        leave(NULL);
    }
    assert_int_equal(meet(&qmp, GREETING "{\"error\": {\"desc\": \"busy\"}, \"id\": 1}\n", LONG_MS),
                     -EIO);
}

static void a_qemu_that_ends_or_is_silent_is_an_error_in_time(void **state)
{
    struct qmp *qmp;

    (void)state;
    assert_int_equal(meet(&qmp, GREETING "{\"ret", SHORT_MS), -ETIMEDOUT);
    assert_non_null(strstr(err_text(), "qmp_capabilities"));
    leave(NULL);
    assert_int_equal(meet(&qmp, "", SHORT_MS), -ETIMEDOUT);
    leave(NULL);
    assert_int_equal(meet(&qmp, HELLO "{\"return\"", LONG_MS), 0);
    qemu = fd_close(qemu);
    assert_int_equal(qmp_execute(qmp, "cont", NULL, NULL), -ECONNRESET);
    qmp_free(qmp);
}

static void events_without_end_do_not_outlast_the_deadline(void **state)
{
    struct qmp *qmp;

    (void)state;
    assert_int_equal(meet(&qmp, HELLO, 0), 0); /* an answer that is there is never too late */
    qmp_free(qmp);
    leave(NULL);
    assert_int_equal(meet(&qmp, GREETING "{\"event\": \"TICK\"}\n{\"return\": {}, \"id\": 1}\n", 0),
                     -ETIMEDOUT);
}

static void a_descriptor_goes_with_the_command_that_names_it(void **state)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    char line[256];
    struct iovec iov = {.iov_base = line, .iov_len = sizeof(line)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space};
    struct stat given, taken;
    struct qmp *qmp;
    int fd = -1;
    int pipe_fds[2];

    (void)state;
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    assert_int_equal(meet(&qmp, HELLO "{\"return\": {}, \"id\": 2}\n", LONG_MS), 0);
    assert_int_equal(qmp_give_fd(qmp, "state", pipe_fds[1]), 0);
    (void)heard();
    msg.msg_controllen = sizeof(control.space);
    assert_true(recvmsg(qemu, &msg, MSG_CMSG_CLOEXEC) > 0);
    assert_memory_equal(
        line, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"state\"},\"id\":2}\n", 58);
    assert_non_null(CMSG_FIRSTHDR(&msg));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
    assert_int_equal(fstat(pipe_fds[1], &given), 0); /* it was lent only */
    assert_int_equal(fstat(fd, &taken), 0);
    assert_int_equal(given.st_ino, taken.st_ino);
    (void)close(fd);
    (void)close(pipe_fds[0]);
    (void)close(pipe_fds[1]);
    qmp_free(qmp);
}

/* ---- more than fits into the socket ------------------------------------------------------------------------------ */

static void *say_a_long_line(void *arg)
{
    static const char piece[64 * 1024] = {[0 ... sizeof(piece) - 1] = 'x'};

    (void)arg;
    say("{\"return\": \"");
    for (unsigned i = 0; i < 32; i++)
        say_bytes(piece, sizeof(piece));
    return NULL;
}

static void a_line_without_end_is_refused(void **state)
{
    pthread_t thread;
    struct qmp *qmp;

    (void)state;
    assert_int_equal(meet(&qmp, HELLO, LONG_MS), 0);
    assert_int_equal(pthread_create(&thread, NULL, say_a_long_line, NULL), 0);
    assert_int_equal(qmp_execute(qmp, "query-status", NULL, NULL), -EPROTO);
    assert_non_null(strstr(err_text(), "a line of more than 1048576 bytes"));
    qmp_free(qmp);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

#define TEST(name) cmocka_unit_test_teardown(name, leave)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_answer_is_the_one_with_the_command_s_number),
        TEST(what_qemu_refuses_is_told_in_its_own_words),
        TEST(who_does_not_speak_as_qemu_is_not_taken_for_it),
        TEST(a_qemu_that_ends_or_is_silent_is_an_error_in_time),
        TEST(events_without_end_do_not_outlast_the_deadline),
        TEST(a_descriptor_goes_with_the_command_that_names_it),
        TEST(a_line_without_end_is_refused),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("qmp", tests, NULL, NULL);
}
