/* SPDX-License-Identifier: Apache-2.0 */
#include "node/answer.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"

#define ACCEPT_MS 500u /* a guest that has just been resumed may take a while to say no, too */

struct answer_ways answer_ways(const struct template *t)
{
    return (struct answer_ways){.shell = t->has_shell, .vsock_port = t->ready_vsock};
}

bool answer_can(struct answer_ways ways)
{
    return ways.shell || ways.vsock_port > 0;
}

int answer_wait_port(struct vmm *vm, unsigned port, const struct console_wait *wait)
{
    uint64_t deadline_ns = clock_now_ns() + wait->timeout_ms * NS_PER_MS;
    char what[64];

    (void)snprintf(what, sizeof(what), "waiting for vsock port %u of the guest", port);
    for (;;) {
        unsigned left_ms = (unsigned)clock_left_ms(deadline_ns);
        _cleanup_fd_ int fd = vmm_vsock_connect(vm, port, (unsigned)min_u64(left_ms, ACCEPT_MS));
        int r;

        if (fd >= 0)
            return 0;
        if (fd != -ECONNREFUSED && fd != -ETIMEDOUT && fd != -EAGAIN && !vmm_has_ended(vm))
            return fd;
        r = console_nap(vm, wait, deadline_ns, what);
        if (r == -ETIMEDOUT)
            return err_origin(r, "nobody in the guest listens at vsock port %u within %u ms", port,
                              wait->timeout_ms);
        if (r < 0)
            return r;
    }
}

int answer_wait(struct answer_ways ways, struct vmm *vm, const struct console_wait *wait)
{
    uint64_t deadline_ns = clock_now_ns() + wait->timeout_ms * NS_PER_MS;
    struct console_wait rest = *wait;
    int r = ways.vsock_port > 0 ? answer_wait_port(vm, ways.vsock_port, wait) : 0;

    if (r < 0 || !ways.shell)
        return r;
    rest.timeout_ms = (unsigned)clock_left_ms(deadline_ns);
    return console_wait_shell(vm, &rest);
}
