/* SPDX-License-Identifier: Apache-2.0 */
/*
 * killstep_trace.c - stepping through a pager
 *
 * ptrace(2), one instruction at a time, of the pager's first thread, which is the one that serves. A system call is one
 * step; where it sleeps, the step lasts until it is over. Other threads run freely. What is counted begins when the
 * pager, interrupted in its sleep, takes its next instruction.
 *
 * Nothing here may sleep for ever: a step over a sleep is left when all orders are carried out, because then no message
 * will come that ends it.
 */
#include "killstep.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>

#include "uffd_peer.h"

#define SYSCALL_INSTRUCTION 0x050fu /* x86-64: 0f 05 */
#define SETTLE_NS           2000000u /* how long a doer may take to say that it is done, once it is awake */

#ifndef SYS_epoll_pwait2
#    define SYS_epoll_pwait2 441
#endif

static void wait_stopped(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, __WALL) < 0) {
        if (errno != EINTR)
            peer_die(PEER_EXIT_ABSENT, errno, "waitpid of pager %d", pid);
    }
    if (!WIFSTOPPED(status))
        peer_die(PEER_EXIT_WRONG, 0, "pager %d ended by itself (status %#x)", pid, status);
}

static void nap(void)
{
    struct timespec ts = {.tv_nsec = 50000};

    nanosleep(&ts, NULL);
}

void trace_stop(pid_t pid)
{
    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot trace pager %d", pid);
    if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot stop pager %d", pid);
    wait_stopped(pid);
}

/* next_syscall() - the number of the system call that the next instruction is, or -1 */
static long next_syscall(pid_t pid)
{
    struct user_regs_struct regs;
    long word;

    if (ptrace(PTRACE_GETREGS, pid, NULL, &regs) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot read the registers of pager %d", pid);
    errno = 0;
    word = ptrace(PTRACE_PEEKTEXT, pid, (void *)regs.rip, NULL);
    if (errno != 0 || ((unsigned long)word & 0xffff) != SYSCALL_INSTRUCTION)
        return -1;
    return (long)regs.rax;
}

static bool is_sleep(long syscall)
{
    return syscall == SYS_epoll_wait || syscall == SYS_epoll_pwait || syscall == SYS_epoll_pwait2;
}

/* settled() - are all orders carried out, or will they be without the pager? */
static bool settled(bool (*also_done)(void))
{
    uint64_t until = now_ns() + SETTLE_NS;

    while (!doers_done() || (also_done && !also_done())) {
        if (now_ns() > until)
            return false;
        nap();
    }
    return true;
}

/* step() - one instruction. Return: false if it sleeps and nothing will wake it */
static bool step(pid_t pid, bool may_sleep, bool (*also_done)(void))
{
    bool cut = false;
    int status;

    if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) < 0)
        peer_die(PEER_EXIT_WRONG, errno, "cannot step pager %d", pid);
    if (!may_sleep) {
        wait_stopped(pid);
        return true;
    }
    while (waitpid(pid, &status, __WALL | WNOHANG) == 0) {
        if (!cut && settled(also_done)) {
            cut = true;
            ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
        }
        nap();
    }
    return !cut;
}

enum reached trace_step_to(pid_t pid, const struct place *place, bool (*also_done)(void))
{
    unsigned n_syscalls = 0, n_steps = 0;

    for (;;) {
        long syscall = next_syscall(pid);
        bool sleeps = is_sleep(syscall);

        if (sleeps && settled(also_done))
            return REACHED_SLEEP;
        if (n_syscalls == place->n_syscalls) {
            if (n_steps == place->n_steps)
                return REACHED_PLACE;
            if (syscall >= 0)
                return place->n_steps == STEPS_ALL ? REACHED_PLACE : REACHED_SYSCALL;
            n_steps++;
        }
        if (!step(pid, sleeps, also_done))
            return REACHED_SLEEP;
        if (syscall >= 0)
            n_syscalls++;
    }
}

uint64_t trace_kill(pid_t pid)
{
    uint64_t at = now_ns();
    int status;

    kill(pid, SIGKILL);
    while (waitpid(pid, &status, __WALL) >= 0 || errno == EINTR) {
        if (WIFSIGNALED(status) || WIFEXITED(status))
            break;
    }
    return at;
}

void trace_let_go(pid_t pid)
{
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
}

bool is_sleeping(pid_t pid)
{
    char path[64];
    long syscall = -1;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
    f = fopen(path, "re");
    if (!f)
        return false;
    if (fscanf(f, "%ld", &syscall) != 1)
        syscall = -1;
    fclose(f);
    return is_sleep(syscall);
}
