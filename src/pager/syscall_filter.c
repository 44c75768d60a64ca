/* SPDX-License-Identifier: Apache-2.0 */
/*
 * syscall_filter.c - seccomp: the calls that are listed, no others
 *
 *     lists in comments beside the code  ->  tools/syscalls.py                            ->  syscall_rules_serve.inc
 *                                        ->  syscall_filter_gen.c, run while building     ->  syscall_filter_serve.inc
 *                                        ->  an array below
 *
 * and the same with _fill for a filler (source/filler.h), whose lists are others.
 *
 * So the filter is made when the program is built, and costs a pager two system calls. Two numbers are not known then: our
 * own process id, which stands in the array as SYSCALL_FILTER_SELF, and the descriptor of the folder in which a pager looks
 * for the VMM's threads (wakeup.c), SYSCALL_FILTER_TASKS. Without such a folder that comparison always fails.
 *
 * A call that is not listed is not made. It raises SIGSYS in its thread; the handler makes it fail with EPERM, and counts
 * it. The pager goes on: a guest waits for it, and whoever took it over has gained nothing by asking. The count is logged
 * (confine_report()), and the test suite does not accept any. Where SIGSYS is blocked, as in pthread_create(), the kernel
 * ends the process instead.
 *
 * Nobody waits for a filler: pagers do without one that dies. So there the kernel ends the process at once, without a handler.
 *
 * The lists beside the code have what the code asks for. What the C library asks for on its own behalf stands here:
 *
 * #syscalls:all brk mmap:2&PROT_EXEC=0 mremap munmap       malloc and free
 * #syscalls:all mprotect:2&PROT_EXEC=0 madvise              malloc in threads; the stack of a thread that ended
 * #syscalls:all futex                                       mutexes, conditions, the end of threads
 * #syscalls:all rseq set_robust_list rt_sigprocmask exit    a thread begins and ends
 * #syscalls:all exit_group                                  the end
 * #syscalls rt_sigreturn                                    signal handlers
 * #syscalls:all restart_syscall                             waiting goes on after SIGCONT
 * #syscalls:all getpid gettid tgkill:0=SELF                 abort(), after a failed assertion
 * #syscalls:all clock_gettime                               where the clock cannot be read without a call
 * #syscalls getrandom                                       mkostemp() makes names
 */
#include "pager/syscall_filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/err.h"
#include "base/linux_compat.h"

/* #syscalls:start seccomp */
bool syscall_filter_available(void)
{
    const uint32_t action = SECCOMP_RET_TRAP;

    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

#ifdef SYSCALL_FILTER_BUILT
#    include "pager/syscall_filter_fill.inc"  /* syscall_filter_fill[], SYSCALL_FILTER_SELF */
#    include "pager/syscall_filter_serve.inc" /* syscall_filter_serve[]; the same constants */

static struct {
    unsigned n;  /* atomic */
    int last_nr; /* atomic */
    void (*on_first)(void *ctx);
    void *ctx;
} refused = {.last_nr = -1};

/* fail_with() - what the call that a signal came instead of returns */
static void fail_with(ucontext_t *uc, int neg_errno)
{
#    if defined(__x86_64__)
    uc->uc_mcontext.gregs[REG_RAX] = neg_errno;
#    elif defined(__aarch64__)
    uc->uc_mcontext.regs[0] = (unsigned long long)(long long)neg_errno;
#    else
#        error "where does this architecture return the result of a system call?"
#    endif
}

static void on_sigsys(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    if (info->si_code != SYS_SECCOMP)
        return; /* somebody sent it */
    fail_with(context, -EPERM);
    __atomic_store_n(&refused.last_nr, info->si_syscall, __ATOMIC_RELAXED);
    if (__atomic_fetch_add(&refused.n, 1, __ATOMIC_RELAXED) == 0 && refused.on_first)
        refused.on_first(refused.ctx);
}

static int catch_refusals(void)
{
    struct sigaction act = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigset_t set;

    sigemptyset(&act.sa_mask);
    sigemptyset(&set);
    sigaddset(&set, SIGSYS);
    if (sigaction(SIGSYS, &act, NULL) < 0 || sigprocmask(SIG_UNBLOCK, &set, NULL) < 0)
        return err_origin_errno(-errno, "cannot catch SIGSYS");
    return 0;
}

/* fill_in() - what is not known when the program is built */
static void fill_in(struct sock_filter *code, int tasks_fd)
{
    if (BPF_CLASS(code->code) != BPF_JMP)
        return;
    if (code->k == SYSCALL_FILTER_SELF)
        code->k = (uint32_t)getpid();
    if (code->k != SYSCALL_FILTER_TASKS)
        return;
    if (tasks_fd >= 0)
        code->k = (uint32_t)tasks_fd;
    else
        code->jt = code->jf; /* any number could be named: none is right */
}

/* SPEC_ALLOW: nobody's program runs in here, so there is nothing to slow down speculation for */
#    define FLAGS (SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW)

/* load() - a filter as it was built, @n instructions, which are changed. Return: 0 or a negative errno with a text */
static int load(struct sock_filter *code, unsigned short n, int tasks_fd, unsigned flags)
{
    const struct sock_fprog program = {.len = n, .filter = code};
    long r;

    for (unsigned i = 0; i < n; i++)
        fill_in(&code[i], tasks_fd);
    r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, FLAGS | flags, &program);
    if (r < 0)
        return err_origin_errno(-errno, "cannot filter system calls (seccomp)");
    if (r > 0)
        return err_origin(-EBUSY, "cannot filter system calls: thread %ld has a filter of its own",
                          r);
    return 0;
}

/* #syscalls:start rt_sigaction */
int syscall_filter_load(void (*on_refused)(void *ctx), void *ctx, int tasks_fd)
{
    struct sock_filter code[ARRAY_LEN(syscall_filter_serve)];
    int r;

    if (!syscall_filter_available())
        return SYSCALL_FILTER_E_ABSENT;
    refused.on_first = on_refused;
    refused.ctx = ctx;
    r = catch_refusals();
    if (r < 0)
        return r;
    memcpy(code, syscall_filter_serve, sizeof(code));
    return load(code, ARRAY_LEN(code), tasks_fd, SECCOMP_FILTER_FLAG_LOG);
}

int syscall_filter_load_for_filler(void)
{
    struct sock_filter code[ARRAY_LEN(syscall_filter_fill)];

    if (!syscall_filter_available())
        return SYSCALL_FILTER_E_ABSENT;
    memcpy(code, syscall_filter_fill, sizeof(code));
    return load(code, ARRAY_LEN(code), -1, 0); /* its end is logged anyway */
}

unsigned syscall_filter_refused(int *last_nr)
{
    *last_nr = __atomic_load_n(&refused.last_nr, __ATOMIC_RELAXED);
    return __atomic_load_n(&refused.n, __ATOMIC_RELAXED);
}

#else

int syscall_filter_load(void (*on_refused)(void *ctx), void *ctx, int tasks_fd)
{
    (void)tasks_fd;
    (void)on_refused;
    (void)ctx;
    return SYSCALL_FILTER_E_BUILD;
}

int syscall_filter_load_for_filler(void)
{
    return SYSCALL_FILTER_E_BUILD;
}

unsigned syscall_filter_refused(int *last_nr)
{
    *last_nr = -1;
    return 0;
}

#endif
