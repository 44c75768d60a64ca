/* SPDX-License-Identifier: Apache-2.0 */
/* test_driver_vsock.c - what may come back when a port of the guest is asked for (vmm/driver_vsock.c) */
#include "testing.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "vmm/driver.h"

#define LONG_MS  20000u
#define SHORT_MS 50u

static char folder[64];
static struct vmm *vm;
static int listener = -1;
static const char *answer; /* NULL: none, until the other side closes */
static char asked[64];

static int make_vm(void **state)
{
    const struct vmm_spec spec = {
        .program = "/bin/sh", .memory_mib = VMM_MEMORY_MIB_MIN, .n_vcpus = 1, .vsock = true};
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    (void)state;
    (void)snprintf(folder, sizeof(folder), "%s", "/tmp/thaw-test-vsock.XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_int_equal(vmm_new(&vm, vmm_driver_find("firecracker"), &spec, folder), 0);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", folder, VMM_FILE_VSOCK);
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(listener, 4), 0);
    return 0;
}

static int remove_vm(void **state)
{
    char path[96];

    (void)state;
    vm = vmm_free(vm);
    listener = fd_close(listener);
    (void)snprintf(path, sizeof(path), "%s/%s", folder, VMM_FILE_VSOCK);
    (void)unlink(path);
    return rmdir(folder);
}

/* serve() - one connection: keep what it asks, say the answer */
static void *serve(void *arg)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    ssize_t n = recv(fd, asked, sizeof(asked) - 1, 0);

    (void)arg;
    asked[n > 0 ? n : 0] = '\0';
    if (answer)
        (void)send(fd, answer, strlen(answer), MSG_NOSIGNAL);
    else
        (void)recv(fd, asked + n, 1, 0);
    (void)close(fd);
    return NULL;
}

/* connect_to() - with that answer. Return: as vmm_vsock_connect() */
static int connect_to(unsigned port, const char *text, unsigned timeout_ms)
{
    pthread_t thread;
    int fd;

    answer = text;
    assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
    fd = vmm_vsock_connect(vm, port, timeout_ms);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return fd;
}

static void what_comes_after_the_answer_is_the_guest_s(void **state)
{
    char text[16];
    int fd = connect_to(52, "OK 1073741824\nhello", LONG_MS);

    (void)state;
    assert_true(fd >= 0);
    assert_string_equal(asked, "CONNECT 52\n");
    assert_int_equal(recv(fd, text, sizeof(text), 0), 5);
    assert_memory_equal(text, "hello", 5);
    (void)close(fd);
}

static void a_port_without_anybody_is_told_from_one_that_is_silent_and_from_nonsense(void **state)
{
    static const struct {
        const char *answer;
        int is;
    } cases[] = {
        {"", -ECONNREFUSED}, {"OK", -ECONNREFUSED}, {"NO 7\n", -EPROTO},
        {"\n", -EPROTO},     {"OKAY 1\n", -EPROTO}, {"HTTP/1.1 400 Bad Request\r\n\r\n", -EPROTO},
        {NULL, -ETIMEDOUT},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(
            connect_to(4294967294u, cases[i].answer, cases[i].answer ? LONG_MS : SHORT_MS),
            cases[i].is);
        assert_string_equal(asked, "CONNECT 4294967294\n");
        assert_non_null(strstr(err_text(), "4294967294"));
    }
}

static void a_line_without_end_is_read_no_further_than_an_answer_can_be(void **state)
{
    char text[4097];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(connect_to(1, text, LONG_MS), -EPROTO);
}

static void without_a_listener_or_a_vsock_there_is_no_way(void **state)
{
    struct vmm_spec spec = {.program = "/bin/sh", .memory_mib = VMM_MEMORY_MIB_MIN, .n_vcpus = 1};
    struct vmm *other;

    (void)state;
    listener = fd_close(listener);
    assert_int_equal(vmm_vsock_connect(vm, 52, LONG_MS), -ECONNREFUSED);
    assert_int_equal(vmm_new(&other, vmm_driver_find("firecracker"), &spec, folder), 0);
    assert_int_equal(vmm_vsock_connect(other, 52, LONG_MS), -EOPNOTSUPP);
    vmm_free(other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_vm, remove_vm)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_comes_after_the_answer_is_the_guest_s),
        TEST(a_port_without_anybody_is_told_from_one_that_is_silent_and_from_nonsense),
        TEST(a_line_without_end_is_read_no_further_than_an_answer_can_be),
        TEST(without_a_listener_or_a_vsock_there_is_no_way),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("driver_vsock", tests, NULL, NULL);
}
