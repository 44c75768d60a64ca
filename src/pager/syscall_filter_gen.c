/* SPDX-License-Identifier: Apache-2.0 */
/*
 * syscall_filter_gen.c - a program of the build: rules into a seccomp filter, as C on standard output
 *
 *     syscall_filter_gen serve     the filter of a serving pager, out of syscall_rules_serve.inc
 *     syscall_filter_gen fill      that of a filler, out of syscall_rules_fill.inc
 *
 * These files (tools/syscalls.py) have lines of three macros, whose arguments are the kernel's own constants:
 *
 *     RULE(SYS_read)                                     any arguments
 *     RULE_IF(SYS_ioctl, 1, 0xffffffff, UFFDIO_COPY)     argument 1, masked, must be this
 *     RULE_FAIL(SYS_clone3, ENOSYS)                      it fails like this, and nobody makes anything of it
 *
 * libseccomp turns them into a program for the kernel. It is here, and not in a pager, because there is nothing to decide
 * when a pager starts, and a guest waits then (docs/decisions/0007).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/base.h"
#include "base/linux_compat.h"

/* Stand for numbers that are known when the filter is loaded: */
#define SELF  0x5e1f5e1f /* the process id */
#define TASKS 0x7a5c7a5c /* the descriptor of /proc/PID/task of the VMM */

/* What clone(2) makes: a thread of this process and nothing else, if of the first bits just these are set */
#define A_THREAD (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD)
#define CLONE_KINDS                                                                         \
    (A_THREAD | CLONE_VFORK | CLONE_PARENT | CLONE_PTRACE | CLONE_NEWNS | CLONE_NEWCGROUP | \
     CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

struct rule {
    const char *name;
    int nr;
    int arg; /* -1: any arguments */
    uint64_t mask;
    uint64_t value;
    int error; /* 0: it is allowed */
};

#define RULE(nr)                      {#nr, nr, -1, 0, 0, 0},
#define RULE_IF(nr, arg, mask, value) {#nr, nr, arg, (uint32_t)(mask), (uint32_t)(value), 0},
#define RULE_FAIL(nr, error)          {#nr, nr, -1, 0, 0, error},

static const struct rule serve_rules[] = {
#include "pager/syscall_rules_serve.inc"
};

static const struct rule fill_rules[] = {
#include "pager/syscall_rules_fill.inc"
};

/* struct profile - a process that is filtered */
static const struct profile {
    const char *name;
    const struct rule *rules;
    unsigned n_rules;
    uint32_t otherwise; /* what becomes of a call that no rule has */
    unsigned n_self;    /* rules with the process id */
    unsigned n_tasks;   /* with the descriptor */
} profiles[] = {
    {"serve", serve_rules, ARRAY_LEN(serve_rules), SCMP_ACT_TRAP, 1, 1},
    {"fill", fill_rules, ARRAY_LEN(fill_rules), SCMP_ACT_KILL_PROCESS, 1, 0},
};

static __attribute__((noreturn)) void die(int neg_errno, const char *what)
{
    (void)fprintf(stderr, "syscall_filter_gen: %s: %s\n", what, strerror(-neg_errno));
    exit(1);
}

static void add_rule(scmp_filter_ctx ctx, const struct rule *rule)
{
    struct scmp_arg_cmp cmp = {
        .arg = (unsigned)rule->arg,
        .op = SCMP_CMP_MASKED_EQ,
        .datum_a = rule->mask,
        .datum_b = rule->value,
    };
    uint32_t action = rule->error ? SCMP_ACT_ERRNO(rule->error) : SCMP_ACT_ALLOW;
    int r = seccomp_rule_add_array(ctx, action, rule->nr, rule->arg >= 0, &cmp);

    if (r < 0)
        die(r, rule->name);
}

static void print_filter(const struct profile *p, int fd)
{
    struct sock_filter code;
    unsigned n = 0;
    unsigned n_self = 0;
    unsigned n_tasks = 0;

    printf("/* Made by syscall_filter_gen.c from %u rules. */\n", p->n_rules);
    printf("#define SYSCALL_FILTER_SELF 0x%xu\n", SELF);
    printf("#define SYSCALL_FILTER_TASKS 0x%xu\n", TASKS);
    printf("static const struct sock_filter syscall_filter_%s[] = {\n", p->name);
    for (; read(fd, &code, sizeof(code)) == sizeof(code); n++) {
        printf("    {0x%x, %u, %u, 0x%x},\n", code.code, code.jt, code.jf, code.k);
        n_self += code.k == SELF;
        n_tasks += code.code == (BPF_JMP | BPF_JEQ | BPF_K) && code.k == TASKS;
    }
    printf("};\n");
    if (n == 0 || n > BPF_MAXINSNS || n_self != p->n_self || n_tasks != p->n_tasks)
        die(-EINVAL, "not a filter with one place for the process id, and one for the folder");
}

static void make_filter(const struct profile *p)
{
    scmp_filter_ctx ctx = seccomp_init(p->otherwise);
    int fd = memfd_create("filter", MFD_CLOEXEC);
    int r;

    if (!ctx || fd < 0)
        die(-errno, "cannot begin");
    /* Calls of another architecture cannot be ours by mistake. */
    r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (r < 0)
        die(r, "SCMP_FLTATR_ACT_BADARCH");
    for (unsigned i = 0; i < p->n_rules; i++)
        add_rule(ctx, &p->rules[i]);
    /* The call on a fault's way whose arguments are looked at, so that the kernel cannot remember the answer */
    r = p->rules == serve_rules ? seccomp_syscall_priority(ctx, SYS_ioctl, UINT8_MAX) : 0;
    if (r < 0)
        die(r, "priority of ioctl");
    r = seccomp_export_bpf(ctx, fd);
    if (r < 0 || lseek(fd, 0, SEEK_SET) < 0)
        die(r < 0 ? r : -errno, "cannot write the filter");
    print_filter(p, fd);
    seccomp_release(ctx);
}

int main(int argc, char **argv)
{
    for (unsigned i = 0; argc == 2 && i < ARRAY_LEN(profiles); i++) {
        if (strcmp(argv[1], profiles[i].name) == 0) {
            make_filter(&profiles[i]);
            return 0;
        }
    }
    die(-EINVAL, "expected serve or fill");
}
