/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_attach.c - the VMM's half without a VMM: what is refused, what is sent, what stays behind
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <thaw/vmm.h>

#include "base/err.h"
#include "vmm/attach.h"

#define WATCHDOG_SECONDS 60
#define AT(mib)          ((void *)(uintptr_t)((mib)*MIB))

static void regions_that_cannot_be_served_are_refused(void **state)
{
    const struct {
        struct thaw_region r[2];
        unsigned n;
        const char *words;
    } cases[] = {
        {{{AT(16), MIB, 0, 4096}}, 0, "0 regions"},
        {{{AT(16), MIB, 0, 4096}}, 8193, "8193 regions"},
        {{{AT(16), MIB, 0, 8192}}, 1, "neither 4096 nor 2097152"},
        {{{NULL, MIB, 0, 4096}}, 1, "no address"},
        {{{AT(16), 0, 0, 4096}}, 1, "its length is 0"},
        {{{(char *)AT(16) + 1, MIB, 0, 4096}}, 1, "must be multiples of 4096"},
        {{{AT(16), MIB + 1, 0, 4096}}, 1, "must be multiples of 4096"},
        {{{AT(16), MIB, 1, 4096}}, 1, "must be multiples of 4096"},
        {{{AT(16), MIB, 0, 2 * MIB}}, 1, "must be multiples of 2097152"},
        {{{AT(16), MIB, UINT64_MAX - MIB + 1, 4096}}, 1, "overflows"},
        {{{(void *)(UINTPTR_MAX - MIB + 1), 2 * MIB, 0, 4096}}, 1, "overflows"},
        {{{AT(16), MIB, 0, 4096}, {AT(32), MIB, 2 * MIB, 2 * MIB}}, 2, "the first region's 4096"},
        {{{AT(17), MIB, 0, 4096}, {AT(16), 2 * MIB, MIB, 4096}}, 2, "inside another region"},
        {{{AT(16), MIB, MIB, 4096}, {AT(32), 2 * MIB, 0, 4096}}, 2, "part of the snapshot"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(regions_check(cases[i].r, cases[i].n), -EINVAL);
        if (!strstr(err_text(), cases[i].words))
            fail_msg("case %zu: '%s' does not say '%s'", i, err_text(), cases[i].words);
    }
}

static void regions_in_any_order_with_gaps_are_accepted(void **state)
{
    const struct thaw_region regions[] = {
        {AT(64), 4 * MIB, 2 * MIB, 2 * MIB},
        {AT(16), 2 * MIB, 0, 2 * MIB},
        {AT(18), 2 * MIB, 16 * MIB, 2 * MIB},
    };

    (void)state;
    assert_int_equal(regions_check(regions, 3), 0);
}

static void the_message_is_the_one_that_firecracker_sends(void **state)
{
    const struct thaw_region regions[] = {{AT(16), MIB, 0, 4096}, {AT(32), 2 * MIB, MIB, 4096}};
    char *json;

    (void)state;
    assert_int_equal(regions_json(&json, regions, 2), 0);
    assert_string_equal(json,
                        "[{\"base_host_virt_addr\":16777216,\"size\":1048576,\"offset\":0,"
                        "\"page_size\":4096,\"page_size_kib\":4096},"
                        "{\"base_host_virt_addr\":33554432,\"size\":2097152,\"offset\":1048576,"
                        "\"page_size\":4096,\"page_size_kib\":4096}]");
    free(json);
}

struct receiver {
    int sock;
    char *text;
    size_t len;
    unsigned n_messages;
    unsigned n_fds;
    ino_t inode; /* of the fd that came */
};

/* Reads small pieces until the sender closes. */
static void *receive_all(void *arg)
{
    struct receiver *rx = arg;

    for (;;) {
        union {
            char space[CMSG_SPACE(4 * sizeof(int))];
            struct cmsghdr align;
        } control;
        char piece[4096];
        struct iovec iov = {piece, sizeof(piece)};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};
        ssize_t n = recvmsg(rx->sock, &msg, MSG_CMSG_CLOEXEC);
        struct cmsghdr *c;

        if (n <= 0)
            return NULL;
        for (c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
            struct stat st;
            int fd;

            memcpy(&fd, CMSG_DATA(c), sizeof(fd));
            if (fstat(fd, &st) == 0)
                rx->inode = st.st_ino;
            close(fd);
            rx->n_fds += (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        }
        rx->text = realloc(rx->text, rx->len + (size_t)n + 1);
        memcpy(rx->text + rx->len, piece, (size_t)n);
        rx->len += (size_t)n;
        rx->text[rx->len] = '\0';
        rx->n_messages++;
    }
}

static void a_message_longer_than_the_socket_takes_arrives_whole_with_one_fd(void **state)
{
    struct thaw_region *regions = calloc(ATTACH_MAX_REGIONS, sizeof(*regions));
    struct receiver rx = {0};
    const int small = 4096;
    int socks[2], file[2];
    pthread_t thread;
    struct stat st;
    char *json;

    (void)state;
    for (unsigned i = 0; i < ATTACH_MAX_REGIONS; i++)
        regions[i] = (struct thaw_region){AT(16 + 2ull * i), MIB, i * MIB, 4096};
    assert_int_equal(regions_check(regions, ATTACH_MAX_REGIONS), 0);
    assert_int_equal(regions_json(&json, regions, ATTACH_MAX_REGIONS), 0);
    assert_true(strlen(json) > 500000);

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
    assert_int_equal(setsockopt(socks[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    assert_int_equal(pipe(file), 0);
    assert_int_equal(fstat(file[0], &st), 0);
    rx.sock = socks[1];
    assert_int_equal(pthread_create(&thread, NULL, receive_all, &rx), 0);

    assert_int_equal(handshake_send(socks[0], json, file[0]), 0);
    close(socks[0]);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(rx.n_messages > 1);
    assert_int_equal(rx.n_fds, 1);
    assert_int_equal(rx.inode, st.st_ino);
    assert_string_equal(rx.text, json);

    free(rx.text);
    free(json);
    free(regions);
    close(file[0]);
    close(file[1]);
    close(socks[1]);
}

/* A socket in a fresh folder that listens, or only its path. */
static int listener_at(char path[static 108], const char *folder, bool listening)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = -1;

    snprintf(path, 108, "%s/pager", folder);
    if (!listening)
        return -1;
    memcpy(addr.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static int next_fd(void)
{
    int fd = dup(STDERR_FILENO);

    close(fd);
    return fd;
}

static void attaching_to_nobody_says_so_and_leaves_nothing_open(void **state)
{
    char folder[] = "/tmp/thaw-attach-XXXXXX";
    struct thaw_attachment *a = NULL;
    struct thaw_region region = {0};
    char path[108];
    int before;

    (void)state;
    assert_non_null(mkdtemp(folder));
    listener_at(path, folder, false);
    region.addr = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(region.addr, MAP_FAILED);
    region.len_bytes = MIB;
    region.page_bytes = 4096;
    before = next_fd();
    assert_int_equal(thaw_vmm_attach(&a, path, &region, 1), -ENOENT);
    assert_non_null(strstr(thaw_last_error(), path));
    assert_null(a);
    assert_int_equal(next_fd(), before);
    munmap(region.addr, MIB);
    rmdir(folder);
}

static void after_a_failed_attach_the_memory_is_ordinary_again(void **state)
{
    char folder[] = "/tmp/thaw-attach-XXXXXX";
    struct thaw_region regions[2] = {{NULL, MIB, 0, 4096}, {NULL, MIB, MIB, 4096}};
    struct thaw_attachment *a = NULL;
    char path[108];
    int listener;
    FILE *file;
    int before;
    int r;

    (void)state;
    assert_non_null(mkdtemp(folder));
    listener = listener_at(path, folder, true);
    file = tmpfile();
    assert_non_null(file);
    /* The second region is a private mapping of a file on a disk, which cannot be registered. */
    regions[0].addr = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    regions[1].addr = mmap(NULL, MIB, PROT_READ, MAP_SHARED, fileno(file), 0);
    assert_ptr_not_equal(regions[1].addr, MAP_FAILED);
    before = next_fd();
    r = thaw_vmm_attach(&a, path, regions, 2);
    assert_true(r < 0);
    assert_null(a);
    assert_int_equal(next_fd(), before);
    /* Would wait for ever if it were still registered. */
    assert_int_equal(*(volatile char *)regions[0].addr, 0);
    munmap(regions[0].addr, MIB);
    munmap(regions[1].addr, MIB);
    fclose(file);
    close(listener);
    unlink(path);
    rmdir(folder);
}

static void detaching_nothing_is_allowed(void **state)
{
    (void)state;
    assert_null(thaw_vmm_detach(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regions_that_cannot_be_served_are_refused),
        cmocka_unit_test(regions_in_any_order_with_gaps_are_accepted),
        cmocka_unit_test(the_message_is_the_one_that_firecracker_sends),
        cmocka_unit_test(a_message_longer_than_the_socket_takes_arrives_whole_with_one_fd),
        cmocka_unit_test(attaching_to_nobody_says_so_and_leaves_nothing_open),
        cmocka_unit_test(after_a_failed_attach_the_memory_is_ordinary_again),
        cmocka_unit_test(detaching_nothing_is_allowed),
    };

    alarm(WATCHDOG_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
