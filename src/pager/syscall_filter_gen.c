/* SPDX-License-Identifier: Apache-2.0 */
/*
 * syscall_filter_gen.c - a program of the build: rules into a seccomp filter, as C on standard output
 *
 * syscall_rules.inc (tools/syscalls.py) has lines of two macros, whose arguments are the kernel's own constants:
 *
 *     RULE(SYS_read)                                     any arguments
 *     RULE_IF(SYS_ioctl, 1, 0xffffffff, UFFDIO_COPY)     argument 1, masked, must be this
 *
 * libseccomp turns them into a program for the kernel. It is here, and not in a pager, because there is nothing to decide
 * when a pager starts, and a guest waits then (docs/decisions/0007).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/linux_compat.h"

/* Stand for numbers that are known when the filter is loaded: */
#define SELF  0x5e1f5e1f /* the process id */
#define TASKS 0x7a5c7a5c /* the descriptor of /proc/PID/task of the VMM */

static const struct rule {
    const char *name;
    int nr;
    int arg; /* -1: any arguments */
    uint64_t mask;
    uint64_t value;
} rules[] = {
#define RULE(nr)                      {#nr, nr, -1, 0, 0},
#define RULE_IF(nr, arg, mask, value) {#nr, nr, arg, (uint32_t)(mask), (uint32_t)(value)},
#include "pager/syscall_rules.inc"
};

static void die(int neg_errno, const char *what)
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
    int r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, rule->nr, rule->arg >= 0, &cmp);

    if (r < 0)
        die(r, rule->name);
}

static void print_filter(int fd)
{
    struct sock_filter code;
    unsigned n = 0;
    unsigned n_self = 0;
    unsigned n_tasks = 0;

    printf("/* Made by syscall_filter_gen.c from %zu rules. */\n",
           sizeof(rules) / sizeof(rules[0]));
    printf("#define SYSCALL_FILTER_SELF 0x%xu\n", SELF);
    printf("#define SYSCALL_FILTER_TASKS 0x%xu\n", TASKS);
    printf("static const struct sock_filter syscall_filter[] = {\n");
    for (; read(fd, &code, sizeof(code)) == sizeof(code); n++) {
        printf("    {0x%x, %u, %u, 0x%x},\n", code.code, code.jt, code.jf, code.k);
        n_self += code.k == SELF;
        n_tasks += code.code == (BPF_JMP | BPF_JEQ | BPF_K) && code.k == TASKS;
    }
    printf("};\n");
    if (n == 0 || n > BPF_MAXINSNS || n_self != 1 || n_tasks != 1)
        die(-EINVAL, "not a filter with one place for the process id, and one for the folder");
}

int main(void)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
    int fd = memfd_create("filter", MFD_CLOEXEC);
    int r;

    if (!ctx || fd < 0)
        die(-errno, "cannot begin");
    /* Calls of another architecture cannot be ours by mistake. */
    r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (r < 0)
        die(r, "SCMP_FLTATR_ACT_BADARCH");
    for (unsigned i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        add_rule(ctx, &rules[i]);
    /* The call on a fault's way whose arguments are looked at, so that the kernel cannot remember the answer */
    r = seccomp_syscall_priority(ctx, SYS_ioctl, UINT8_MAX);
    if (r < 0)
        die(r, "priority of ioctl");
    r = seccomp_export_bpf(ctx, fd);
    if (r < 0 || lseek(fd, 0, SEEK_SET) < 0)
        die(r < 0 ? r : -errno, "cannot write the filter");
    print_filter(fd);
    seccomp_release(ctx);
    return 0;
}
