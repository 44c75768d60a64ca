/* SPDX-License-Identifier: Apache-2.0 */
/* test_share.c - what pagers of an image have in common, and the process that fills it in */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "image_rig.h"
#include "source/filler.h"
#include "source/image.h"
#include "source/share.h"

#define FRAMES      16u
#define FRAME_PAGES 4u
#define FRAME_BYTES (FRAME_PAGES * PAGE)

static struct image *image; /* of FRAMES frames, one behind the other */
static pid_t filler;
static struct filler *own_filler; /* in the process that fills in; kept to its end */

static int make_image(void **state)
{
    struct rig m = rig_begin(FRAMES * FRAME_PAGES);
    uint64_t words[] = {clock_wall_ns(), (uint64_t)getpid()};

    (void)state;
    for (unsigned i = 0; i < FRAMES; i++)
        rig_add_pages(&m, i * FRAME_PAGES, FRAME_PAGES, FRAME_LZ4);
    image = rig_image(&m);
    memcpy(image->manifest->id, words, sizeof(words)); /* another one in each test */
    return 0;
}

/* ends_by_itself() - as it does when nobody is connected any more; so what it did is counted as covered */
static bool ends_by_itself(void)
{
    for (unsigned i = 0; i < 200; i++) {
        if (waitpid(filler, NULL, WNOHANG) == filler)
            return true;
        (void)usleep(1000);
    }
    return false;
}

static int drop_image(void **state)
{
    (void)state;
    if (filler > 0 && !ends_by_itself()) {
        (void)kill(filler, SIGKILL);
        (void)waitpid(filler, NULL, 0);
    }
    filler = 0;
    image = image_close(image);
    rig_pack = fd_close(rig_pack);
    return 0;
}

static void start_filler(uint64_t bytes_max)
{
    int listener = filler_listen(image->manifest);

    assert_true(listener >= 0);
    (void)fflush(NULL);
    filler = fork();
    assert_true(filler >= 0);
    if (filler == 0) {
        (void)signal(SIGPIPE, SIG_IGN);
        test_watchdog();
        if (filler_new(&own_filler, image, bytes_max) < 0)
            _exit(1);
        filler_run(own_filler, listener);
        exit(0);
    }
    (void)fd_close(listener);
}

static struct share *join(void)
{
    struct share *s = NULL;

    assert_int_equal(share_join(&s, image->manifest), 0);
    return s;
}

/* check() - is a frame there, and right? */
static void check(const struct share *s, unsigned frame, bool there)
{
    for (uint64_t p = frame * FRAME_PAGES; p < (frame + 1) * FRAME_PAGES; p++) {
        assert_int_equal(share_has(s, p), there);
        if (there)
            assert_true(rig_is_page(share_page(s, p), p));
    }
}

static void nobody_is_there_before_a_filler_is(void **state)
{
    struct share *s = NULL;

    (void)state;
    assert_int_equal(share_join(&s, image->manifest), SHARE_E_NOBODY);
    assert_null(s);
}

static void an_image_has_one_filler(void **state)
{
    int listener = filler_listen(image->manifest);

    (void)state;
    assert_true(listener >= 0);
    assert_int_equal(filler_listen(image->manifest), -EADDRINUSE);
    (void)fd_close(listener);
    listener = filler_listen(image->manifest);
    assert_true(listener >= 0);
    (void)fd_close(listener);
}

static void what_one_asks_for_is_there_for_all(void **state)
{
    struct share *one;
    struct share *other;

    (void)state;
    start_filler(MIB);
    one = join();
    check(one, 3, false);
    assert_true(share_ask(one, 0, 3));
    check(one, 3, true);
    other = join();
    check(other, 3, true);
    check(other, 4, false);
    assert_true(share_ask(other, 8, 4));
    assert_true(share_ask(other, 0, 4));
    check(one, 4, true);
    (void)share_free(one);
    (void)share_free(other);
}

static void a_pager_knows_whether_it_has_others_beside_it(void **state)
{
    struct share *one;
    struct share *other;

    (void)state;
    start_filler(MIB);
    one = join();
    assert_false(share_is_worth_it(one));
    other = join();
    assert_true(share_is_worth_it(one) && share_is_worth_it(other));
    (void)share_free(other);
    while (share_is_worth_it(one)) /* as long as the watchdog allows */
        (void)usleep(1000);
    (void)share_free(one);
}

static void the_filler_ends_with_the_last_pager(void **state)
{
    struct share *one;
    struct share *other;
    int status;

    (void)state;
    start_filler(MIB);
    one = join();
    other = join();
    (void)share_free(one);
    assert_true(share_ask(other, 0, 0));
    (void)share_free(other);
    assert_int_equal(waitpid(filler, &status, 0), filler);
    filler = 0;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(share_join(&other, image->manifest), SHARE_E_NOBODY);
}

static void no_more_is_filled_in_than_may_be(void **state)
{
    struct share *s;

    (void)state;
    start_filler(3 * FRAME_BYTES);
    s = join();
    for (unsigned i = 0; i < FRAMES; i++)
        assert_int_equal(share_ask(s, 0, i), i < 3);
    assert_true(share_ask(s, 0, 1)); /* that is there */
    check(s, 2, true);
    check(s, 3, false);
    (void)share_free(s);
}

static void a_broken_frame_is_not_filled_in(void **state)
{
    const struct manifest_frame *frame = &image->manifest->frames[5];
    char junk[16];
    struct share *s;

    (void)state;
    memset(junk, 0xee, sizeof(junk));
    assert_true(pwrite(rig_pack, junk, sizeof(junk), (off_t)frame->off) == (ssize_t)sizeof(junk));
    start_filler(MIB);
    s = join();
    assert_false(share_ask(s, 0, 5));
    check(s, 5, false);
    assert_true(share_ask(s, 0, 6));
    (void)share_free(s);
}

static void what_a_dead_filler_has_filled_in_stays(void **state)
{
    struct share *s;

    (void)state;
    start_filler(MIB);
    s = join();
    assert_true(share_ask(s, 0, 7));
    (void)kill(filler, SIGKILL);
    assert_int_equal(waitpid(filler, NULL, 0), filler);
    filler = 0;
    check(s, 7, true);
    for (unsigned i = 0; i < SHARE_CONNECTIONS; i++)
        assert_false(share_ask(s, i, 8));
    assert_false(share_ask(s, 0, 8));
    check(s, 8, false);
    (void)share_free(s);
}

/* ---- a filler that dies over a frame ------------------------------------------------------------------------------ */

/* file_of() - in memory, as a filler's: sealed. @map: for writing, for as long as the test runs */
static int file_of(uint64_t bytes, void **map)
{
    int fd = memfd_create("thaw-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(*map, MAP_FAILED);
    return fd;
}

struct dying_filler {
    const struct manifest *m;
    int listener;
    int files[2];
    pthread_t thread;
};

/* say_hello_and_die() - to one pager, on each of its connections */
static void *say_hello_and_die(void *arg)
{
    const struct dying_filler *f = arg;
    struct share_hello hello = {.magic = SHARE_MAGIC, .image_bytes = f->m->image_bytes};
    int fds[SHARE_CONNECTIONS];

    memcpy(hello.id, f->m->id, IMAGE_ID_BYTES);
    for (unsigned i = 0; i < SHARE_CONNECTIONS; i++) {
        union {
            struct cmsghdr header;
            char bytes[CMSG_SPACE(2 * sizeof(int))];
        } control = {0};
        struct iovec from = {.iov_base = &hello, .iov_len = sizeof(hello)};
        struct msghdr msg = {.msg_iov = &from,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control)};
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(f->files));
        memcpy(CMSG_DATA(cmsg), f->files, sizeof(f->files));
        fds[i] = accept(f->listener, NULL, NULL);
        if (fds[i] < 0 || sendmsg(fds[i], &msg, MSG_NOSIGNAL) != (ssize_t)sizeof(hello))
            abort();
    }
    for (unsigned i = 0; i < SHARE_CONNECTIONS; i++)
        (void)fd_close(fds[i]);
    return NULL;
}

/*
 * A frame has pages 60 to 67 and 200 to 203, in other places of the guest and of the bits. The filler was killed when it had
 * set the first word of the bits, or was not begun with the second run.
 */
static void a_frame_that_a_filler_died_over_is_brought_by_the_pager(void **state)
{
    static const uint64_t there[] = {0xfull << 60, 0xf}; /* pages 60 to 63; 64 to 67 */
    static const uint64_t pages[] = {60, 61, 62, 63, 64, 65, 66, 67, 200, 201, 202, 203};

    (void)state;
    for (unsigned n_words = 1; n_words <= ARRAY_LEN(there); n_words++) {
        struct rig m = rig_begin(256);
        uint32_t f = rig_add_frame(&m, pages, ARRAY_LEN(pages), FRAME_ZSTD);
        struct dying_filler dying;
        struct share *share = NULL;
        struct source *s = NULL;
        char *memory;
        uint64_t *bits;

        rig_add_run(&m, 60, 8, f, 0);
        rig_add_run(&m, 200, 4, f, 8);
        dying.m = rig_image(&m)->manifest;
        m.image->manifest->id[0] = (uint8_t)getpid();
        m.image->manifest->id[1] = (uint8_t)(getpid() >> 8);
        dying.files[0] = file_of(256 * PAGE, (void **)&memory);
        dying.files[1] = file_of((share_bits_words(256 * PAGE) + 1) * 8, (void **)&bits);
        for (uint64_t p = 60; p < 60 + 4 * n_words; p++)
            rig_fill_page(memory + p * PAGE, p);
        memcpy(bits, there, n_words * sizeof(*bits));
        bits[share_bits_words(256 * PAGE)] = 2 * SHARE_CONNECTIONS;
        dying.listener = filler_listen(m.image->manifest);
        assert_true(dying.listener >= 0);
        assert_int_equal(pthread_create(&dying.thread, NULL, say_hello_and_die, &dying), 0);
        assert_int_equal(share_join(&share, m.image->manifest), 0);
        assert_int_equal(pthread_join(dying.thread, NULL), 0);
        (void)fd_close(dying.listener);

        assert_int_equal(source_open_image(&s, m.image, MIB, share), 0);
        rig_fetch(s, 201, 202);
        rig_check(s, 201, 0, 256, THAW_WHERE_MEMORY, 200, 204);
        rig_fetch(s, 66, 67);
        assert_int_equal(rig_look(s, 66, 0, 256).where, THAW_WHERE_MEMORY);
        assert_int_equal(rig_look(s, 60, 0, 256).where, THAW_WHERE_MEMORY);
        rig_close(s);
        for (unsigned i = 0; i < 2; i++)
            (void)fd_close(dying.files[i]);
        (void)munmap(memory, 256 * PAGE);
        (void)munmap(bits, (share_bits_words(256 * PAGE) + 1) * 8);
    }
}

/* ---- others than pagers ----------------------------------------------------------------------------------------- */

/* hello() - connect without being a pager. Return: the socket; @files: the memory and the bits */
static int hello(int files[2])
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    struct share_hello hello;
    struct iovec into = {.iov_base = &hello, .iov_len = sizeof(hello)};
    struct msghdr msg = {.msg_iov = &into,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control)};
    struct sockaddr_un addr;
    socklen_t len = share_address(&addr, image->manifest->id);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&addr, len), 0);
    assert_int_equal(recvmsg(fd, &msg, MSG_CMSG_CLOEXEC), sizeof(hello));
    assert_non_null(CMSG_FIRSTHDR(&msg));
    memcpy(files, CMSG_DATA(CMSG_FIRSTHDR(&msg)), 2 * sizeof(int));
    return fd;
}

static void nobody_else_can_write_to_what_is_shared(void **state)
{
    int files[2];
    int fd;

    (void)state;
    start_filler(MIB);
    fd = hello(files);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(write(files[i], "x", 1) < 0);
        assert_ptr_equal(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, files[i], 0),
                         MAP_FAILED);
        assert_true(ftruncate(files[i], 0) < 0);
        assert_true(fallocate(files[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) < 0);
        assert_true(fcntl(files[i], F_GET_SEALS) & F_SEAL_SHRINK);
        (void)fd_close(files[i]);
    }
    (void)fd_close(fd);
}

static void nonsense_ends_a_connection_and_no_other(void **state)
{
    const struct share_request beyond = {.tag = 1, .frame = FRAMES};
    struct share *s;
    char answer[64];
    int files[2];
    int fds[3];

    (void)state;
    start_filler(MIB);
    s = join();
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = hello(files);
        (void)fd_close(files[0]);
        (void)fd_close(files[1]);
    }
    assert_int_equal(write(fds[0], &beyond, sizeof(beyond)), sizeof(beyond));
    assert_int_equal(write(fds[1], "?", 1), 1);
    assert_int_equal(write(fds[2], answer, 0), 0);
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
        assert_true(read(fds[i], answer, sizeof(answer)) <= 0);
        (void)fd_close(fds[i]);
    }
    assert_true(share_ask(s, 0, 0));
    (void)share_free(s);
}

int main(void)
{
#define WITH_IMAGE(test) cmocka_unit_test_setup_teardown(test, make_image, drop_image)
    const struct CMUnitTest tests[] = {
        WITH_IMAGE(nobody_is_there_before_a_filler_is),
        WITH_IMAGE(an_image_has_one_filler),
        WITH_IMAGE(what_one_asks_for_is_there_for_all),
        WITH_IMAGE(a_pager_knows_whether_it_has_others_beside_it),
        WITH_IMAGE(the_filler_ends_with_the_last_pager),
        WITH_IMAGE(no_more_is_filled_in_than_may_be),
        WITH_IMAGE(a_broken_frame_is_not_filled_in),
        WITH_IMAGE(what_a_dead_filler_has_filled_in_stays),
        cmocka_unit_test(a_frame_that_a_filler_died_over_is_brought_by_the_pager),
        WITH_IMAGE(nobody_else_can_write_to_what_is_shared),
        WITH_IMAGE(nonsense_ends_a_connection_and_no_other),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
