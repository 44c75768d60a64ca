/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore_group.c - several VMs of `thaw bench restore` at the same time
 *
 * A process for each VM makes its folder and then waits for a byte. When all wait, the time is taken and each gets its byte. What
 * they measure, and the first error's text, comes back in memory that they share with the one that has forked them. A process ends
 * its own VM, whatever happens; the folder of all is removed in the end by the one that made it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "cli/bench/restore.h"

#define TEXT_BYTES 512u

/* struct outcome - of one VM, in shared memory */
struct outcome {
    struct restore_times times;
    bool ready; /* its folder is there, it waits */
    int result;
    char text[TEXT_BYTES];
};

/* struct group - processes, and what they say */
struct group {
    const struct restore_ground *ground;
    enum restore_kind kind;
    unsigned n;
    struct outcome *outcomes;
    size_t outcomes_bytes;
    int waiting[2]; /* a byte from each that waits */
    int go[2];      /* when all began, for each */
    pid_t pids[RESTORE_VMS_MAX];
};

/* do_vm() - in a process of its own */
static int do_vm(struct group *g, unsigned number, struct outcome *out)
{
    _cleanup_(restore_vm_freep) struct restore_vm *vm = NULL;
    uint64_t began_ns;
    int r = restore_vm_new(&vm, g->ground, g->kind, number);

    out->ready = r == 0;
    if (write(g->waiting[1], "", 1) != 1 || r < 0)
        return r < 0 ? r : -EIO;
    if (read(g->go[0], &began_ns, sizeof(began_ns)) != (ssize_t)sizeof(began_ns))
        return err_origin(-ECANCELED, "it was not begun");
    r = restore_vm_run(vm, began_ns, &out->times);
    if (r < 0)
        (void)snprintf(out->text, sizeof(out->text), "%s", err_text());
    return r;
}

static _Noreturn void vm_process(struct group *g, unsigned number)
{
    struct outcome *out = &g->outcomes[number];

    g->go[1] = fd_close(g->go[1]);
    g->waiting[0] = fd_close(g->waiting[0]);
    out->result = do_vm(g, number, out);
    if (out->result < 0 && out->text[0] == '\0')
        (void)snprintf(out->text, sizeof(out->text), "%s", err_text());
    _exit(0);
}

static int start_all(struct group *g)
{
    for (unsigned i = 0; i < g->n; i++) {
        g->outcomes[i].result = -ECHILD;
        (void)snprintf(g->outcomes[i].text, TEXT_BYTES, "the process of VM %u has died", i);
        g->pids[i] = fork();
        if (g->pids[i] == 0) {
            g->outcomes[i].text[0] = '\0';
            vm_process(g, i);
        }
        if (g->pids[i] < 0)
            return err_origin_errno(-errno, "cannot start a process for VM %u", i);
    }
    return 0;
}

/* begin() - when all wait, or one has given up */
static int begin(struct group *g)
{
    uint64_t began_ns;

    g->waiting[1] = fd_close(g->waiting[1]);
    for (unsigned i = 0; i < g->n; i++) {
        struct pollfd p = {.fd = g->waiting[0], .events = POLLIN};
        char byte;

        if (poll(&p, 1, (int)g->ground->timeout_ms) != 1 || read(g->waiting[0], &byte, 1) != 1)
            return err_origin(-ETIMEDOUT, "VM %u had no folder within %u ms", i,
                              g->ground->timeout_ms);
    }
    for (unsigned i = 0; i < g->n; i++) {
        if (!g->outcomes[i].ready)
            return 0; /* its process says why */
    }
    began_ns = clock_now_ns();
    for (unsigned i = 0; i < g->n; i++) {
        if (write(g->go[1], &began_ns, sizeof(began_ns)) != (ssize_t)sizeof(began_ns))
            return err_origin_errno(-errno, "cannot begin");
    }
    return 0;
}

/* end_all() - each process ends its VM and then itself; one that waits to begin is told that it will not */
static void end_all(struct group *g)
{
    g->go[1] = fd_close(g->go[1]);
    for (unsigned i = 0; i < g->n; i++) {
        if (g->pids[i] > 0)
            (void)waitpid(g->pids[i], NULL, 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        g->go[i] = fd_close(g->go[i]);
        g->waiting[i] = fd_close(g->waiting[i]);
    }
}

/* first_error() - what the processes say, when nothing else went wrong */
static int first_error(const struct group *g, int r)
{
    const struct outcome *cancelled = NULL;

    for (unsigned i = 0; r == 0 && i < g->n; i++) {
        const struct outcome *out = &g->outcomes[i];

        if (out->result == -ECANCELED)
            cancelled = out;
        else if (out->result < 0)
            r = err_origin(out->result, "VM %u of %u: %s", i, g->n, out->text);
    }
    if (r == 0 && cancelled)
        r = err_origin(cancelled->result, "%s", cancelled->text);
    return r;
}

int restore_group(const struct restore_ground *ground, enum restore_kind kind, unsigned n,
                  struct restore_times *times)
{
    struct restore_ground mine = *ground;
    struct group g = {.ground = &mine,
                      .kind = kind,
                      .n = n,
                      .outcomes_bytes = n * sizeof(struct outcome),
                      .waiting = {-1, -1},
                      .go = {-1, -1}};
    int r = 0;

    assert(n >= 1 && n <= RESTORE_VMS_MAX);
    mine.alone = n == 1;
    g.outcomes =
        mmap(NULL, g.outcomes_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (g.outcomes == MAP_FAILED)
        return err_origin_errno(-errno, "no memory for %u VMs", n);
    if (pipe2(g.waiting, O_CLOEXEC) < 0 || pipe2(g.go, O_CLOEXEC) < 0)
        r = err_origin_errno(-errno, "cannot make a pipe");
    if (r == 0)
        r = start_all(&g);
    if (r == 0)
        r = begin(&g);
    end_all(&g);
    r = first_error(&g, r);
    for (unsigned i = 0; r == 0 && i < n; i++)
        times[i] = g.outcomes[i].times;
    (void)munmap(g.outcomes, g.outcomes_bytes);
    return r;
}
