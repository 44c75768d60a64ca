/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trial.c - serve a little memory for real, to know that this host can
 *
 *     guest (child)                               pager (caller)
 *     map, open, register MISSING
 *     send the userfaultfd            ------->    receive it; WRITE: register again with WP
 *                                     <-------    "go"
 *     touch, discard, write           ------->    read messages, install, lift protection
 *     send what was seen              ------->    compare with what must be
 *
 * The pager's loop has a deadline and never blocks: all waiting is in poll(). The guest can get
 * stuck, in a page fault that nobody answers or in an madvise() that nobody hears; SIGKILL ends
 * both. The pager keeps the userfaultfd until the guest is dead, so a guest that is given up never
 * reads a page that the kernel made up.
 */
#include "uffd/trial.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"
#include "uffd/probe.h"

#define N_TOUCHES   64
#define FILL_BYTE   0xa5 /* in every byte that the pager installs */
#define GUEST_BYTE  0x3c /* what the guest writes */
#define SMALL_BYTES 4096u
#define HUGE_BYTES  (2u * 1024 * 1024)

/*
 * struct report - what the guest says: at first, with the userfaultfd, where its memory is; then
 * what it saw
 */
struct report {
    int32_t neg_errno; /* 0, or why it cannot go on; text says more */
    uint64_t start;    /* address of its memory */
    uint64_t len_bytes;
    uint64_t touch_ns; /* median */
    uint8_t seen[2];   /* bytes read, see wanted_bytes */
    char text[256];
};

/* struct pager - this process's side of one trial */
struct pager {
    enum uffd_trial what;
    int sock;
    int uffd;
    uint64_t page_bytes;
    uint64_t deadline_ns;
    const void *fill; /* one page of FILL_BYTE */
    const void *zero; /* one page of zeroes */
    bool removed;     /* a REMOVE was heard: from then on pages are zero */
    unsigned n_faults;
    unsigned n_wp_faults;
};

static const struct wanted {
    uint8_t seen[2];
    unsigned n_faults;
    unsigned n_wp_faults;
    bool removed;
} wanted[] = {
    [UFFD_TRIAL_TOUCH] = {.seen = {FILL_BYTE, FILL_BYTE}, .n_faults = N_TOUCHES},
    [UFFD_TRIAL_KERNEL] = {.seen = {FILL_BYTE, GUEST_BYTE}, .n_faults = 1},
    [UFFD_TRIAL_REMOVE] = {.seen = {FILL_BYTE, 0}, .n_faults = 2, .removed = true},
    [UFFD_TRIAL_WRITE] = {.seen = {FILL_BYTE, GUEST_BYTE}, .n_faults = 1, .n_wp_faults = 1},
    [UFFD_TRIAL_HUGE] = {.seen = {FILL_BYTE, FILL_BYTE}, .n_faults = 1},
};

/*
 * --- the guest
 * -------------------------------------------------------------------------------------------------
 */

static void guest_touch(volatile uint8_t *mem, uint64_t page_bytes, unsigned n, struct report *rep)
{
    uint64_t took_ns[N_TOUCHES];

    assert(n > 0 && n <= N_TOUCHES);
    for (unsigned i = 0; i < n; i++) {
        uint64_t start = clock_now_ns();

        rep->seen[0] = mem[i * page_bytes];
        took_ns[i] = clock_now_ns() - start;
        rep->seen[1] = mem[(i + 1) * page_bytes - 1];
    }
    qsort(took_ns, n, sizeof(took_ns[0]), compare_u64);
    rep->touch_ns = took_ns[n / 2];
}

static int guest_kernel_touch(volatile uint8_t *mem, struct report *rep)
{
    const uint8_t byte = GUEST_BYTE;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    if (write(ends[1], &byte, 1) != 1 || read(ends[0], (void *)&mem[1], 1) != 1)
        return errno ? -errno : -EIO;
    rep->seen[0] = mem[0];
    rep->seen[1] = mem[1];
    return 0;
}

static int guest_act(enum uffd_trial what, volatile uint8_t *mem, uint64_t page_bytes,
                     struct report *rep)
{
    switch (what) {
    case UFFD_TRIAL_TOUCH:
        guest_touch(mem, page_bytes, N_TOUCHES, rep);
        return 0;
    case UFFD_TRIAL_HUGE:
        guest_touch(mem, page_bytes, 1, rep);
        return 0;
    case UFFD_TRIAL_KERNEL:
        return guest_kernel_touch(mem, rep);
    case UFFD_TRIAL_REMOVE:
        rep->seen[0] = mem[0];
        if (madvise((void *)mem, page_bytes, MADV_DONTNEED) < 0)
            return -errno;
        rep->seen[1] = mem[0];
        return 0;
    case UFFD_TRIAL_WRITE:
        rep->seen[0] = mem[0];
        mem[0] = GUEST_BYTE;
        rep->seen[1] = mem[0];
        return 0;
    default:
        return -EINVAL;
    }
}

static int guest_register(enum uffd_trial what, uint64_t page_bytes, int *uffd, struct report *rep)
{
    struct uffdio_register reg = {.mode = UFFDIO_REGISTER_MODE_MISSING};
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    int r;

    rep->len_bytes = page_bytes;
    if (what == UFFD_TRIAL_TOUCH)
        rep->len_bytes *= N_TOUCHES;
    if (what == UFFD_TRIAL_HUGE)
        flags |= MAP_HUGETLB | MAP_HUGE_2MB;
    r = uffd_open(UFFD_FEATURE_EVENT_REMOVE, uffd);
    if (r < 0)
        return r;
    reg.range.start = (uintptr_t)mmap(NULL, rep->len_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (reg.range.start == (uintptr_t)MAP_FAILED)
        return err_origin_errno(-errno, "cannot map memory");
    reg.range.len = rep->len_bytes;
    rep->start = reg.range.start;
    if (ioctl(*uffd, UFFDIO_REGISTER, &reg) < 0)
        return err_origin_errno(-errno, "UFFDIO_REGISTER");
    return 0;
}

static void guest_send(int sock, const struct report *rep, int fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)rep, .iov_len = sizeof(*rep)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        struct cmsghdr *c;

        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof(control.bytes);
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    if (sendmsg(sock, &msg, MSG_NOSIGNAL) != (ssize_t)sizeof(*rep))
        _exit(1);
}

static __attribute__((noreturn)) void guest_main(enum uffd_trial what, uint64_t page_bytes,
                                                 int sock)
{
    struct report rep = {0};
    int uffd = -1;
    char go;

    /* A pager that is killed must not leave a process behind that waits for a page for ever. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    rep.neg_errno = guest_register(what, page_bytes, &uffd, &rep);
    if (rep.neg_errno < 0)
        (void)snprintf(rep.text, sizeof(rep.text), "%s", err_text());
    guest_send(sock, &rep, rep.neg_errno < 0 ? -1 : uffd);
    if (rep.neg_errno < 0 || recv(sock, &go, 1, 0) != 1)
        _exit(1);
    rep.neg_errno = guest_act(what, (volatile uint8_t *)(uintptr_t)rep.start, page_bytes, &rep);
    guest_send(sock, &rep, -1);
    _exit(0);
}

/*
 * --- the pager
 * -------------------------------------------------------------------------------------------------
 */

/* Waits for the socket or the userfaultfd (if there is one yet) until the deadline. */
static int pager_wait(struct pager *p, bool *guest_spoke)
{
    struct pollfd fds[2] = {{.fd = p->sock, .events = POLLIN}, {.fd = p->uffd, .events = POLLIN}};
    uint64_t now = clock_now_ns();
    struct timespec left;
    int n;

    if (now >= p->deadline_ns)
        return err_origin(-ETIMEDOUT, "nothing happened until the deadline");
    left = timespec_from_ns(p->deadline_ns - now);
    n = ppoll(fds, 2, &left, NULL);
    if (n < 0 && errno != EINTR)
        return err_origin_errno(-errno, "poll");
    *guest_spoke = n > 0 && fds[0].revents != 0 && fds[1].revents == 0;
    return 0;
}

/* Reads one report; on the first one also the userfaultfd. */
static int pager_receive(struct pager *p, struct report *rep)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = rep, .iov_len = sizeof(*rep)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    struct cmsghdr *c;
    ssize_t n;

    n = recvmsg(p->sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n != (ssize_t)sizeof(*rep))
        return err_origin(-EPROTO, "the process that plays the guest ended early");
    c = CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_type == SCM_RIGHTS && p->uffd < 0)
        memcpy(&p->uffd, CMSG_DATA(c), sizeof(p->uffd));
    if (rep->neg_errno < 0 && rep->text[0])
        return err_origin(rep->neg_errno, "%s", rep->text);
    if (rep->neg_errno < 0)
        return err_origin_errno(rep->neg_errno, "the process that plays the guest");
    return 0;
}

static int pager_track(struct pager *p, const struct report *rep)
{
    struct uffdio_register reg = {
        .range = {.start = rep->start, .len = rep->len_bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
    };

    if (ioctl(p->uffd, UFFDIO_REGISTER, &reg) < 0)
        return err_origin_errno(-errno, "UFFDIO_REGISTER with WP, from another process");
    return 0;
}

/*
 * Installs a page, again and again while the kernel says EAGAIN: the guest's discard is under way
 * then.
 */
static int pager_install(struct pager *p, uint64_t addr)
{
    struct uffdio_copy copy = {
        .dst = addr & ~(p->page_bytes - 1),
        .src = (uintptr_t)(p->removed ? p->zero : p->fill),
        .len = p->page_bytes,
        .mode = p->what == UFFD_TRIAL_WRITE ? UFFDIO_COPY_MODE_WP : 0,
    };

    while (ioctl(p->uffd, UFFDIO_COPY, &copy) < 0) {
        if (errno != EAGAIN)
            return err_origin_errno(-errno, "UFFDIO_COPY");
        if (clock_now_ns() >= p->deadline_ns)
            return err_origin(-ETIMEDOUT, "UFFDIO_COPY says EAGAIN until the deadline");
        (void)poll(NULL, 0, 1);
    }
    return 0;
}

static int pager_unprotect(struct pager *p, uint64_t addr)
{
    struct uffdio_writeprotect wp = {
        .range = {.start = addr & ~(p->page_bytes - 1), .len = p->page_bytes},
    };

    if (ioctl(p->uffd, UFFDIO_WRITEPROTECT, &wp) < 0)
        return err_origin_errno(-errno, "UFFDIO_WRITEPROTECT");
    return 0;
}

/* Reads and answers one message, if there is one. */
static int pager_serve(struct pager *p)
{
    struct uffd_msg msg;
    ssize_t n;

    n = read(p->uffd, &msg, sizeof(msg));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n != (ssize_t)sizeof(msg))
        return err_origin(-EPROTO, "read from the userfaultfd returned %zd", n);
    switch (msg.event) {
    case UFFD_EVENT_REMOVE:
        p->removed = true;
        return 0;
    case UFFD_EVENT_PAGEFAULT:
        if (msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
            p->n_wp_faults++;
            return pager_unprotect(p, msg.arg.pagefault.address);
        }
        p->n_faults++;
        return pager_install(p, msg.arg.pagefault.address);
    default:
        return err_origin(-EPROTO, "an event that was not asked for: 0x%x", msg.event);
    }
}

static int pager_judge(const struct pager *p, const struct report *rep)
{
    const struct wanted *w = &wanted[p->what];

    if (rep->seen[0] != w->seen[0] || rep->seen[1] != w->seen[1])
        return err_origin(-EPROTO, "the guest read 0x%02x 0x%02x instead of 0x%02x 0x%02x",
                          rep->seen[0], rep->seen[1], w->seen[0], w->seen[1]);
    /*
     * A discarded page can fault once more than expected: an install may fall between event and
     * discard.
     */
    if (p->n_faults < w->n_faults || p->n_wp_faults < w->n_wp_faults)
        return err_origin(-EPROTO, "%u faults and %u write faults were heard instead of %u and %u",
                          p->n_faults, p->n_wp_faults, w->n_faults, w->n_wp_faults);
    if (p->removed != w->removed)
        return err_origin(-EPROTO, "the discard was not heard");
    return 0;
}

static int pager_run(struct pager *p, uint64_t *touch_ns)
{
    struct report rep = {0};
    bool guest_spoke = false;
    int r = 0;

    while (r == 0 && !guest_spoke)
        r = pager_wait(p, &guest_spoke);
    if (r == 0)
        r = pager_receive(p, &rep);
    if (r == 0 && p->uffd < 0)
        r = err_origin(-EPROTO, "no userfaultfd came over the socket");
    if (r == 0 && p->what == UFFD_TRIAL_WRITE)
        r = pager_track(p, &rep);
    if (r == 0 && send(p->sock, "", 1, MSG_NOSIGNAL) != 1)
        r = err_origin_errno(-errno, "send");
    for (guest_spoke = false; r == 0 && !guest_spoke;) {
        r = pager_wait(p, &guest_spoke);
        if (r == 0 && !guest_spoke)
            r = pager_serve(p);
    }
    if (r == 0)
        r = pager_receive(p, &rep);
    if (r == 0)
        r = pager_judge(p, &rep);
    if (r == 0 && touch_ns)
        *touch_ns = rep.touch_ns;
    return r;
}

int uffd_try(enum uffd_trial what, unsigned deadline_ms, uint64_t *touch_ns)
{
    struct pager p = {
        .what = what,
        .uffd = -1,
        .page_bytes = what == UFFD_TRIAL_HUGE ? HUGE_BYTES : SMALL_BYTES,
        .deadline_ns = clock_now_ns() + deadline_ms * NS_PER_MS,
    };
    uint8_t *pages;
    int socks[2];
    pid_t guest;
    int r;

    pages = calloc(2, p.page_bytes);
    if (!pages)
        return err_origin(-ENOMEM, "no memory");
    memset(pages, FILL_BYTE, p.page_bytes);
    p.fill = pages;
    p.zero = pages + p.page_bytes;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) < 0) {
        free(pages);
        return err_origin_errno(-errno, "socketpair");
    }
    p.sock = socks[0];
    guest = fork();
    if (guest == 0)
        guest_main(what, p.page_bytes, socks[1]);
    (void)close(socks[1]);
    if (guest < 0) {
        r = err_origin_errno(-errno, "fork");
    } else {
        r = pager_run(&p, touch_ns);
        (void)kill(guest, SIGKILL);
        (void)waitpid(guest, NULL, 0);
    }
    (void)fd_close(p.uffd);
    (void)close(p.sock);
    free(pages);
    return r;
}
