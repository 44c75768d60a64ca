/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_driver_qemu.c - what a QEMU may do to who drives it (vmm/driver_qemu.c, qemu_migrate.c)
 *
 * The QEMU is a thread that answers at the control socket what a table has for each command. Its process is the test's own: it
 * must live, and nothing here ends it.
 */
#include "testing.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/procfs.h"
#include "vmm/driver.h"

#define LONG_MS    20000u
#define SHORT_MS   50u
#define TALK_BYTES (512 * MIB) /* of who talks without end: more than can be heard in that time */

static char folder[64];
static struct vmm *vm;
static int listener = -1;
static bool refuses_to_save;
static bool state_was_there; /* when the memory was written */

static void path_of(const char *name, char path[static 96])
{
    (void)snprintf(path, 96, "%s/%s", folder, name);
}

static bool is_there(const char *name)
{
    char path[96];

    path_of(name, path);
    return access(path, F_OK) == 0;
}

static int listen_at(const char *name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    path_of(name, addr.sun_path);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

/* ---- a QEMU ---------------------------------------------------------------------------------------------------- */

/* answer_to() - Return: (give) what is returned; NULL: it is refused */
static json_t *answer_to(const char *command, json_t *arguments)
{
    const char *property = json_string_value(json_object_get(arguments, "property"));
    char path[96];

    if (strcmp(command, "query-status") == 0)
        return json_pack("{s:s}", "status", "paused");
    if (strcmp(command, "query-migrate") == 0)
        return json_pack("{s:s}", "status", "completed");
    if (strcmp(command, "qom-get") == 0)
        return strcmp(property, "share") == 0 ? json_true() : json_string("memory-backend-memfd");
    if (strcmp(command, "pmemsave") == 0) {
        state_was_there = is_there(VMM_FILE_STATE);
        path_of(VMM_FILE_MEMORY, path);
        (void)file_replace(path, "memory", 6);
    }
    if (strcmp(command, "migrate") == 0 && refuses_to_save)
        return NULL;
    return json_object();
}

/* hear() - a line, and a descriptor that came with it. Return: whether there is one */
static bool hear(int fd, char *line, size_t len, int *with)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    size_t n = 0;

    while (n + 1 < len) {
        struct iovec iov = {.iov_base = line + n, .iov_len = 1};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};

        if (recvmsg(fd, &msg, MSG_CMSG_CLOEXEC) != 1)
            return false;
        if (msg.msg_controllen > 0 && CMSG_FIRSTHDR(&msg))
            memcpy(with, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(*with));
        if (line[n] == '\n')
            break;
        n++;
    }
    line[n] = '\0';
    return true;
}

static void say(int fd, json_t *message)
{
    char *text = json_dumps(message, JSON_COMPACT);

    (void)send(fd, text, strlen(text), MSG_NOSIGNAL);
    (void)send(fd, "\n", 1, MSG_NOSIGNAL);
    free(text);
    json_decref(message);
}

/* be_qemu() - for one connection */
static void *be_qemu(void *arg)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    int state = -1;
    char line[512];

    (void)arg;
    say(fd, json_pack("{s:{}}", "QMP"));
    while (hear(fd, line, sizeof(line), &state)) {
        json_t *asked = json_loads(line, 0, NULL);
        const char *command = json_string_value(json_object_get(asked, "execute"));
        json_t *id = json_object_get(asked, "id");
        json_t *answer = answer_to(command, json_object_get(asked, "arguments"));

        if (answer)
            say(fd, json_pack("{s:o, s:O}", "return", answer, "id", id));
        else
            say(fd, json_pack("{s:{s:s}, s:O}", "error", "desc", "not now", "id", id));
        if (strcmp(command, "migrate") == 0 && answer) {
            (void)send(state, "s", 1, MSG_NOSIGNAL);
            state = fd_close(state);
        }
        json_decref(asked);
    }
    (void)fd_close(state);
    (void)close(fd);
    return NULL;
}

/* ---- a VM of it ------------------------------------------------------------------------------------------------ */

static int make_vm(void **state)
{
    const struct vmm_spec spec = {
        .program = "/bin/sh", .memory_mib = VMM_MEMORY_MIB_MIN, .n_vcpus = 1};
    struct vmm_id id = {.pid = getpid()};

    (void)state;
    refuses_to_save = state_was_there = false;
    (void)snprintf(folder, sizeof(folder), "%s", "/tmp/thaw-test-qemu.XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_int_equal(procfs_start_ticks(id.pid, &id.start_ticks), 0);
    assert_int_equal(vmm_adopt(&vm, vmm_driver_find("qemu"), &spec, folder, id), 0);
    return 0;
}

static int remove_vm(void **state)
{
    static const char *const names[] = {VMM_FILE_API, VMM_FILE_SERIAL, VMM_FILE_STATE,
                                        VMM_FILE_MEMORY};
    char path[96];

    (void)state;
    vm = vmm_free(vm);
    listener = fd_close(listener);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        path_of(names[i], path);
        (void)unlink(path);
    }
    return rmdir(folder);
}

/* snapshot() - with the memory. Return: as vmm_snapshot() */
static int snapshot(unsigned timeout_ms)
{
    pthread_t thread;
    int r;

    listener = listen_at(VMM_FILE_API);
    assert_int_equal(pthread_create(&thread, NULL, be_qemu, NULL), 0);
    r = vmm_snapshot(vm, true, timeout_ms);
    assert_int_equal(pthread_join(thread, NULL), 0);
    return r;
}

static void memory_is_written_after_the_state_that_needs_it(void **state)
{
    (void)state;
    assert_int_equal(snapshot(LONG_MS), 0);
    assert_true(is_there(VMM_FILE_STATE) && is_there(VMM_FILE_MEMORY));
    assert_true(state_was_there);
}

static void a_snapshot_that_fails_leaves_neither_file(void **state)
{
    (void)state;
    refuses_to_save = true;
    assert_int_equal(snapshot(LONG_MS), -EIO);
    assert_non_null(strstr(err_text(), "not now"));
    assert_false(is_there(VMM_FILE_STATE) || is_there(VMM_FILE_MEMORY));
}

/* be_loud() - a guest that writes to its console faster than it is read, and never reads from it itself */
static void *be_loud(void *arg)
{
    static const char piece[1 * MIB];
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    ssize_t n = 0;

    (void)arg;
    for (uint64_t done = 0; n >= 0 && done < TALK_BYTES; done += (uint64_t)n)
        n = send(fd, piece, sizeof(piece), MSG_NOSIGNAL);
    (void)close(fd);
    return NULL;
}

static void a_guest_that_only_talks_does_not_outlast_the_deadline(void **state)
{
    pthread_t thread;

    (void)state;
    listener = listen_at(VMM_FILE_SERIAL);
    assert_int_equal(pthread_create(&thread, NULL, be_loud, NULL), 0);
    assert_int_equal(vmm_console_write(vm, "hello\n", 6, SHORT_MS), -ETIMEDOUT);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

#define WITH_VM(name) cmocka_unit_test_setup_teardown(name, make_vm, remove_vm)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_VM(memory_is_written_after_the_state_that_needs_it),
        WITH_VM(a_snapshot_that_fails_leaves_neither_file),
        WITH_VM(a_guest_that_only_talks_does_not_outlast_the_deadline),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("driver_qemu", tests, NULL, NULL);
}
