/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm.c - the faulting process of a run
 *
 * It plays a VMM by hand, from the kernel's and Firecracker's contract alone and without libthaw's
 * VMM half: a mistake there must not cancel out here. A process of its own, for three reasons: a
 * thread that waits for a fault can be freed only by an answer or by SIGKILL; a handler may kill
 * the VMM, and must not hit the benchmark; and every run starts with an empty address space.
 *
 * Guest memory is one region. Its last bytes are not in any plan: they are touched first, so that
 * the handshake is over, the handler's code is warm and all start-up is done when the clock starts.
 *
 * After the clock has stopped, every byte of every page that is present is compared, pages that the
 * handler installed on its own account included (mincore(2) tells which).
 */

#include "cli/bench/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"
#include "cli/bench/base.h"
#include "cli/bench/touch.h"
#include "uffd/probe.h"

#define CONNECT_PAUSE_NS NS_PER_MS

uint64_t bench_reserved_bytes(uint64_t page_bytes)
{
    return max_u64(page_bytes, 2 * MIB);
}

/* Connects; waits for a handler that does not listen yet. The parent ends a wait that lasts too
 * long. */
static int connect_handler(const char *path, int *out)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    _cleanup_fd_ int fd = -1;

    if (strlen(path) >= sizeof(addr.sun_path))
        return err_origin(-ENAMETOOLONG, "the socket's path is too long: %s", path);
    memcpy(addr.sun_path, path, strlen(path));
    for (;;) {
        (void)fd_close(fd);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            return err_origin_errno(-errno, "socket");
        if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
            break;
        if (errno != ENOENT && errno != ECONNREFUSED && errno != EINTR)
            return err_origin_errno(-errno, "cannot connect to %s", path);
        clock_sleep_ns(CONNECT_PAUSE_NS);
    }
    *out = TAKE_FD(fd);
    return 0;
}

/* Firecracker's handshake: one message, a JSON array of regions, and the userfaultfd. */
static int send_handshake(int sock, int uffd, const struct bench_task *t, const char *memory)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    char json[256];
    int len =
        snprintf(json, sizeof(json),
                 "[{\"base_host_virt_addr\":%" PRIu64 ",\"size\":%" PRIu64
                 ",\"offset\":0,\"page_size\":%" PRIu64 ",\"page_size_kib\":%" PRIu64 "}]",
                 (uint64_t)(uintptr_t)memory, t->image->size_bytes, t->page_bytes, t->page_bytes);
    struct iovec iov = {.iov_base = json, .iov_len = (size_t)len};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.space,
        .msg_controllen = sizeof(control.space),
    };
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &uffd, sizeof(int));
    if (sendmsg(sock, &msg, MSG_NOSIGNAL) != len)
        return err_origin_errno(-errno, "cannot send the handshake");
    return 0;
}

int bench_vmm_attach(const struct bench_task *t, char **out)
{
    struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *memory;
    int uffd = -1, sock = -1;
    int r;

    if (t->page_bytes != 4096)
        flags |= MAP_HUGETLB | MAP_HUGE_2MB;
    memory = mmap(NULL, t->image->size_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED)
        return err_origin_errno(-errno, "cannot map the guest's memory");
    r = uffd_open(t->no_events ? 0 : UFFD_FEATURE_EVENT_REMOVE, &uffd);
    if (r < 0)
        return r;
    reg.range.start = (uintptr_t)memory;
    reg.range.len = t->image->size_bytes;
    if (ioctl(uffd, UFFDIO_REGISTER, &reg) < 0)
        return err_origin_errno(-errno, "UFFDIO_REGISTER");
    r = connect_handler(t->socket_path, &sock);
    if (r == 0)
        r = send_handshake(sock, uffd, t, memory);
    if (r < 0)
        return r;
    *out = memory;
    return 0;
}

static void warm_up(const struct bench_task *t, const char *memory)
{
    uint64_t first = t->image->size_bytes - bench_reserved_bytes(t->page_bytes);

    for (uint64_t off = first; off < t->image->size_bytes; off += t->page_bytes)
        (void)*(volatile const char *)(memory + off);
}

static uint64_t count_present(const unsigned char *present, uint64_t n_pages)
{
    uint64_t n = 0;

    for (uint64_t page = 0; page < n_pages; page++)
        n += present[page] & 1;
    return n;
}

int bench_vmm_compare(const struct bench_task *t, char *memory, struct bench_report *rep)
{
    uint64_t n_pages = t->image->size_bytes / 4096;
    uint64_t per_page = t->page_bytes / 4096;
    unsigned char *present = calloc(n_pages, 1);
    int r = 0;

    if (!present)
        return err_origin(-ENOMEM, "no memory for a map of the guest");
    if (mincore(memory, t->image->size_bytes, present) < 0)
        r = err_origin_errno(-errno, "mincore");
    rep->n_present = count_present(present, n_pages - bench_reserved_bytes(t->page_bytes) / 4096);
    for (uint32_t i = 0; i < t->plan->n; i++)
        memset(present + t->plan->pages[i] * per_page, 1, per_page);
    for (uint64_t page = 0; r == 0 && page < n_pages; page++) {
        int byte;

        if (!(present[page] & 1))
            continue;
        byte = bench_image_check(t->image, page, memory + page * 4096);
        if (byte < 0)
            continue;
        if (rep->n_wrong++ == 0) {
            rep->first_wrong = page;
            rep->first_wrong_byte = byte;
        }
    }
    free(present);
    return r;
}

static int say(int channel, enum bench_step step)
{
    char byte = (char)step;

    return write(channel, &byte, 1) == 1 ? 0 : err_origin(-EPIPE, "the benchmark is gone");
}

static int say_and_wait(int channel, enum bench_step step)
{
    char byte;
    int r = say(channel, step);

    if (r < 0)
        return r;
    if (read(channel, &byte, 1) != 1 || byte != BENCH_GO)
        return err_origin(-EPIPE, "the benchmark is gone");
    return 0;
}

static int play_ping_pong(const struct bench_task *t, struct bench_report *rep, int channel)
{
    struct bench_ping ping;
    int r;

    r = bench_ping_start(&ping, t);
    if (r == 0)
        r = say_and_wait(channel, BENCH_READY);
    if (r == 0)
        r = bench_ping_measure(&ping, t, rep);
    if (r == 0) {
        bench_ping_stop(&ping);
        r = say_and_wait(channel, BENCH_DONE);
    }
    if (r == 0)
        r = say(channel, BENCH_CHECKED);
    return r;
}

static int play_memory(const struct bench_task *t, struct bench_report *rep, int channel)
{
    char *memory = NULL;
    int r;

    r = bench_memory_wake(t->image->size_bytes, t->page_bytes);
    if (r == 0)
        r = t->kind == BENCH_HANDLER ? bench_vmm_attach(t, &memory) : bench_base_map(t, &memory);
    if (r < 0 || !memory)
        return r;
    warm_up(t, memory);
    r = say_and_wait(channel, BENCH_READY);
    if (r == 0)
        r = bench_touch(t, memory, rep);
    if (r == 0)
        r = say_and_wait(channel, BENCH_DONE);
    if (r == 0 && t->kind == BENCH_HANDLER && rep->n_wrong == 0)
        r = bench_vmm_compare(t, memory, rep);
    if (r == 0)
        r = say(channel, BENCH_CHECKED);
    return r;
}

static void vmm_main(const struct bench_task *t, struct bench_report *rep, int channel,
                     pid_t parent) __attribute__((noreturn));

static void vmm_main(const struct bench_task *t, struct bench_report *rep, int channel,
                     pid_t parent)
{
    int r;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    (void)signal(SIGINT, SIG_IGN); /* the parent hears it and ends the run */
    (void)signal(SIGTERM, SIG_DFL);
    (void)signal(SIGPIPE, SIG_IGN);
    r = bench_cpu_bind(t->cpu);
    if (r == 0)
        r = t->kind == BENCH_PING_PONG ? play_ping_pong(t, rep, channel)
                                       : play_memory(t, rep, channel);
    if (r < 0) {
        (void)snprintf(rep->error, sizeof(rep->error), "%s", err_text());
        (void)say(channel, BENCH_ERROR);
    }
    _exit(r < 0);
}

int bench_vmm_start(struct bench_vmm *v, const struct bench_task *task)
{
    pid_t parent = getpid();
    int ends[2];

    if (!v->report) {
        v->report = mmap(NULL, sizeof(*v->report), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (v->report == MAP_FAILED) {
            v->report = NULL;
            return err_origin(-ENOMEM, "no memory for a report");
        }
    }
    memset(v->report, 0, sizeof(*v->report));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return err_origin_errno(-errno, "socketpair");
    v->pid = fork();
    if (v->pid < 0) {
        v->pid = 0;
        (void)close(ends[0]);
        (void)close(ends[1]);
        return err_origin_errno(-errno, "fork");
    }
    if (v->pid == 0) {
        (void)close(ends[0]);
        vmm_main(task, v->report, ends[1], parent);
    }
    (void)close(ends[1]);
    v->channel = ends[0];
    return 0;
}

void bench_vmm_go(struct bench_vmm *v)
{
    char byte = BENCH_GO;

    (void)send(v->channel, &byte, 1,
               MSG_NOSIGNAL); /* a process that is gone is noticed by the next read */
}

void bench_vmm_stop(struct bench_vmm *v)
{
    if (v->pid == 0)
        return;
    (void)kill(v->pid, SIGKILL);
    while (waitpid(v->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    v->channel = fd_close(v->channel);
    v->pid = 0;
}

void bench_vmm_free_report(struct bench_vmm *v)
{
    if (v->report)
        (void)munmap(v->report, sizeof(*v->report));
    v->report = NULL;
}
