/* SPDX-License-Identifier: Apache-2.0 */
#include "node/answer.h"

#include <errno.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"

#define NAP_NS    (5 * NS_PER_MS)
#define ACCEPT_MS 500u /* a guest that has just been resumed may take a while to say no, too */

struct answer_ways answer_ways(const struct template *t)
{
    return (struct answer_ways){.shell = t->has_shell, .vsock_port = t->ready_vsock};
}

bool answer_can(struct answer_ways ways)
{
    return ways.shell || ways.vsock_port > 0;
}

/* try_port() - once. Return: 0; 1: not yet; a negative errno with a text: never */
static int try_port(const struct vmm *vm, unsigned port, uint64_t deadline_ns)
{
    char text[256];
    uint64_t left_ms = (uint64_t)clock_left_ms(deadline_ns);
    int fd = vmm_vsock_connect(vm, port, (unsigned)min_u64(left_ms, ACCEPT_MS));

    if (fd >= 0) {
        (void)fd_close(fd);
        return 0;
    }
    if (vmm_has_ended(vm)) {
        vmm_end_text(vm, text, sizeof(text));
        return err_origin(-ESRCH, "waiting for vsock port %u of the guest: the VMM %s", port, text);
    }
    return fd == -ECONNREFUSED || fd == -ETIMEDOUT || fd == -EAGAIN ? 1 : fd;
}

int answer_wait_port(struct vmm *vm, unsigned port, const struct console_wait *wait)
{
    uint64_t deadline_ns = clock_now_ns() + wait->timeout_ms * NS_PER_MS;

    for (;;) {
        int r = try_port(vm, port, deadline_ns);

        if (r <= 0)
            return r;
        r = wait->stopped ? wait->stopped(wait->ctx) : 0;
        if (r < 0)
            return r;
        if (clock_left_ms(deadline_ns) == 0)
            return err_origin(-ETIMEDOUT,
                              "nobody in the guest listens at vsock port %u within %u ms", port,
                              wait->timeout_ms);
        clock_sleep_ns(wait->nap_ns > 0 ? wait->nap_ns : NAP_NS);
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
