/* SPDX-License-Identifier: Apache-2.0 */
#include "uffd/receive.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"

/*
 * read_now() - read(2) that does not wait, whatever the flags of the userfaultfd say
 *
 * They are shared with the VMM, which could take O_NONBLOCK off between two reads. RWF_NOWAIT is this call's own; a
 * userfaultfd knows it since Linux 6.10.
 */
/* #syscalls preadv2 read */
static ssize_t read_now(int uffd, void *buf, size_t len)
{
    static bool knows_nowait = true; /* atomic: of all userfaultfds of this kernel, or of none */
    const struct iovec iov = {.iov_base = buf, .iov_len = len};
    ssize_t n;

    if (__atomic_load_n(&knows_nowait, __ATOMIC_RELAXED)) {
        n = preadv2(uffd, &iov, 1, -1, RWF_NOWAIT);
        if (n >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS))
            return n;
        __atomic_store_n(&knows_nowait, false, __ATOMIC_RELAXED);
    }
    return read(uffd, buf, len);
}

int uffd_receive(int uffd, struct uffd_msg *msgs, unsigned n_max)
{
    for (;;) {
        ssize_t n = read_now(uffd, msgs, n_max * sizeof(*msgs));

        if (n >= 0) {
            assert((size_t)n % sizeof(*msgs) == 0);
            return (int)((size_t)n / sizeof(*msgs));
        }
        if (errno == EAGAIN)
            return 0;
        if (errno != EINTR)
            return err_origin_errno(-errno, "cannot read from the userfaultfd");
    }
}

void uffd_clear(struct uffd_msg *msg)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    msg->event = 0;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

bool uffd_is_cleared(const struct uffd_msg *msg)
{
    return msg->event == 0;
}

bool uffd_is_fault(const struct uffd_msg *msg)
{
    return msg->event == UFFD_EVENT_PAGEFAULT;
}

bool uffd_is_discard(const struct uffd_msg *msg)
{
    return msg->event == UFFD_EVENT_REMOVE || msg->event == UFFD_EVENT_UNMAP;
}

static int decode_fault(const struct uffd_msg *msg, struct event *ev)
{
    uint64_t flags = msg->arg.pagefault.flags;

    if (flags & UFFD_PAGEFAULT_FLAG_MINOR)
        return UFFD_E_UNKNOWN;
    ev->kind = flags & UFFD_PAGEFAULT_FLAG_WP ? EVENT_WP_FAULT : EVENT_FAULT;
    ev->fault.addr = msg->arg.pagefault.address;
    ev->fault.write = (flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0;
    return 0;
}

int uffd_decode(const struct uffd_msg *msg, struct event *ev)
{
    switch (msg->event) {
    case UFFD_EVENT_PAGEFAULT:
        return decode_fault(msg, ev);
    case UFFD_EVENT_REMOVE:
    case UFFD_EVENT_UNMAP: /* the range is gone altogether: what comes there later is not the image's either */
        ev->kind = EVENT_REMOVE;
        ev->remove.start = msg->arg.remove.start;
        ev->remove.end = max_u64(msg->arg.remove.start, msg->arg.remove.end);
        return 0;
    case UFFD_EVENT_FORK:
        (void)fd_close((int)msg->arg.fork.ufd);
        return UFFD_E_UNKNOWN;
    default:
        return UFFD_E_UNKNOWN;
    }
}
