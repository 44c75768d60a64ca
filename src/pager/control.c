/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/control.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"

/* #syscalls:start eventfd2 */
int control_init(struct control *c)
{
    *c = (struct control){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (c->fd < 0)
        return err_origin_errno(-errno, "cannot make an eventfd");
    return 0;
}

int control_renew(struct control *c)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t one = 1;
    ssize_t n = 0;

    if (fd < 0)
        return err_origin_errno(-errno, "cannot make an eventfd");
    (void)fd_close(c->fd);
    c->fd = fd; /* a signal handler that runs from here on writes to the right one */
    if (__atomic_load_n(&c->bits, __ATOMIC_ACQUIRE) != 0)
        n = write(c->fd, &one, sizeof(one));
    (void)n;
    return 0;
}

void control_deinit(struct control *c)
{
    c->fd = fd_close(c->fd);
}

/* #syscalls write read */
void control_ask(struct control *c, enum thaw_request what)
{
    int saved = errno;
    uint64_t one = 1;
    ssize_t n;

    __atomic_fetch_or(&c->bits, 1u << what, __ATOMIC_RELEASE);
    n = write(c->fd, &one,
              sizeof(one)); /* fails only when the counter is full, and then it is readable */
    (void)n;
    errno = saved;
}

unsigned control_take(struct control *c)
{
    uint64_t count;
    ssize_t n = read(c->fd, &count,
                     sizeof(count)); /* before the bits: a later ask makes it readable again */

    (void)n;
    return __atomic_exchange_n(&c->bits, 0, __ATOMIC_ACQUIRE);
}
