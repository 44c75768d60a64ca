/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rights.c - what may be done to other processes, and whether a virtual machine runs
 *
 * Taking a file descriptor out of another process is what a pager does that takes over from a dead
 * one. The security module Yama judges it by descent, so the process to take from must be no
 * descendant of this one: it is started by a process in between that ends at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/kvm.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/linux_compat.h"
#include "base/procfs.h"
#include "cli/doctor/doctor.h"

#define TRIAL_MS 3000u

/* --- pidfd --- */

void doctor_pidfd(struct doctor_finding *f)
{
    _cleanup_fd_ int pidfd = -1;

    pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (pidfd >= 0 && syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) == 0) {
        doctor_found(f, DOCTOR_OK, "a process can be watched and stopped without a race (pidfd)");
        return;
    }
    doctor_found(f, DOCTOR_MISSING, "pidfd_open or pidfd_send_signal: %s", strerror(errno));
    doctor_advise(f, "Use a kernel of 5.3 or later; allow both calls in the seccomp filter, "
                     "if there is one");
}

/* --- taking over --- */

/* struct keepsake - where the other process keeps the descriptor that is to be taken */
struct keepsake {
    pid_t pid;
    int fd;
};

static const char keepsake_text[] = "keepsake";

/* The other process: keeps a descriptor and waits for the end of file. */
static __attribute__((noreturn)) void keep(int tell, int hold)
{
    struct keepsake k = {.pid = getpid(), .fd = memfd_create("thaw-doctor", MFD_CLOEXEC)};
    char byte;

    if (k.fd < 0 || write(k.fd, keepsake_text, sizeof(keepsake_text)) < 0 ||
        write(tell, &k, sizeof(k)) != (ssize_t)sizeof(k))
        _exit(1);
    (void)!read(hold, &byte, 1);
    _exit(0);
}

static int take(const struct keepsake *k)
{
    _cleanup_fd_ int pidfd = -1;
    _cleanup_fd_ int taken = -1;
    char text[sizeof(keepsake_text)] = "";

    pidfd = (int)syscall(SYS_pidfd_open, k->pid, 0);
    if (pidfd < 0)
        return -errno;
    taken = (int)syscall(SYS_pidfd_getfd, pidfd, k->fd, 0);
    if (taken < 0)
        return -errno;
    if (pread(taken, text, sizeof(text), 0) != (ssize_t)sizeof(text) ||
        memcmp(text, keepsake_text, sizeof(text)) != 0)
        return -EPROTO;
    return 0;
}

static int take_from_stranger(void)
{
    int tell[2];
    int hold[2];
    struct keepsake k;
    struct pollfd pfd;
    pid_t between;
    int r = -EPROTO;

    if (pipe2(tell, O_CLOEXEC) < 0)
        return -errno;
    if (pipe2(hold, O_CLOEXEC) < 0)
        return -errno;
    between = fork();
    if (between == 0) {
        (void)close(hold[1]); /* or its copy would keep the end of file from coming */
        if (fork() == 0)
            keep(tell[1], hold[0]);
        _exit(0);
    }
    (void)close(tell[1]);
    (void)close(hold[0]);
    if (between > 0)
        (void)waitpid(between, NULL, 0);
    pfd = (struct pollfd){.fd = tell[0], .events = POLLIN};
    if (between > 0 && poll(&pfd, 1, (int)TRIAL_MS) == 1 &&
        read(tell[0], &k, sizeof(k)) == (ssize_t)sizeof(k))
        r = take(&k);
    (void)close(hold[1]);
    (void)close(tell[0]);
    return r;
}

void doctor_take_over(struct doctor_finding *f)
{
    uint64_t yama = 0;
    bool has_cap = procfs_has_cap(CAP_SYS_PTRACE);
    int r;

    r = take_from_stranger();
    if (r == 0 && has_cap) {
        doctor_found(f, DOCTOR_OK,
                     "a pager can take over from a dead one (pidfd_getfd, CAP_SYS_PTRACE)");
    } else if (r == 0) {
        doctor_found(f, DOCTOR_OK,
                     "a pager can take over from a dead one (pidfd_getfd), as long as "
                     "the VMM runs as the same user and is dumpable");
    } else if (r == -EPERM && procfs_read_u64("/proc/sys/kernel/yama/ptrace_scope", &yama) == 0 &&
               yama > 0) {
        doctor_found(f, DOCTOR_WARN,
                     "no pager can take over from a dead one: kernel.yama.ptrace_scope=%ju",
                     (uintmax_t)yama);
        doctor_advise(f, "Give the pager CAP_SYS_PTRACE%s",
                      yama < 2 ? ", or set kernel.yama.ptrace_scope=0" : "");
    } else {
        doctor_found(f, DOCTOR_WARN, "no pager can take over from a dead one: pidfd_getfd: %s",
                     strerrordesc_np(-r));
        doctor_advise(f, "%s",
                      r == -ENOSYS ? "Use a kernel of 5.6 or later"
                                   : "Give the pager CAP_SYS_PTRACE, and allow the call in "
                                     "the seccomp filter, if there is one");
    }
}

/* --- KVM --- */

enum kvm_outcome {
    KVM_RUNS,
    KVM_NO_OPEN,
    KVM_OTHER_API,
    KVM_NO_VM,
    KVM_NO_VCPU,
    KVM_NO_RUN,
};

static const char *const kvm_texts[] = {
    [KVM_NO_OPEN] = "/dev/kvm cannot be opened",
    [KVM_OTHER_API] = "/dev/kvm speaks another version of the interface than 12",
    [KVM_NO_VM] = "KVM_CREATE_VM failed",
    [KVM_NO_VCPU] = "KVM_CREATE_VCPU failed",
    [KVM_NO_RUN] = "a virtual CPU was made, and did not run",
};

#ifdef __x86_64__
#    define KVM_DONE "ran an instruction"

/* One page of guest memory with the instruction HLT in it, run in real mode. */
static int kvm_run_halt(int kvm, int vm, int vcpu)
{
    const uint64_t guest_addr = 0x1000;
    struct kvm_userspace_memory_region region = {.guest_phys_addr = guest_addr,
                                                 .memory_size = 4096};
    struct kvm_regs regs = {.rip = guest_addr, .rflags = 2};
    struct kvm_sregs sregs;
    struct kvm_run *run;
    uint8_t *mem;
    int run_bytes;

    mem = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    run_bytes = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (mem == MAP_FAILED || run_bytes < (int)sizeof(*run))
        return KVM_NO_RUN;
    mem[0] = 0xf4;
    region.userspace_addr = (uintptr_t)mem;
    run = mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    if (run == MAP_FAILED || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 ||
        ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
        return KVM_NO_RUN;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0 ||
        ioctl(vcpu, KVM_RUN, 0) < 0 || run->exit_reason != KVM_EXIT_HLT)
        return KVM_NO_RUN;
    return KVM_RUNS;
}
#else
#    define KVM_DONE "could be made"

/* Other architectures need more than a page to start: made, and not run. */
static int kvm_run_halt(int kvm, int vm, int vcpu)
{
    (void)kvm;
    (void)vm;
    (void)vcpu;
    return KVM_RUNS;
}
#endif

static int kvm_try(void)
{
    int kvm;
    int vm;
    int vcpu;

    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        return KVM_NO_OPEN;
    if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return KVM_OTHER_API;
    vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0)
        return KVM_NO_VM;
    vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    if (vcpu < 0)
        return KVM_NO_VCPU;
    return kvm_run_halt(kvm, vm, vcpu);
}

void doctor_kvm(struct doctor_finding *f)
{
    _cleanup_fd_ int kvm = -1;
    int r;

    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0) {
        int err = errno;

        doctor_found(f, DOCTOR_WARN, "/dev/kvm: %s; only emulated VMs (QEMU's TCG) can run",
                     strerror(err));
        doctor_advise(f, "%s",
                      err == EACCES ? "Add this user to the group kvm"
                                    : "Switch virtualisation on in the firmware or the "
                                      "hypervisor above, and load kvm_intel or kvm_amd");
        return;
    }
    r = doctor_in_child(kvm_try, TRIAL_MS);
    if (r == KVM_RUNS) {
        doctor_found(f, DOCTOR_OK, "/dev/kvm opens, and a virtual CPU " KVM_DONE);
    } else if (r > 0 && r < (int)ARRAY_LEN(kvm_texts)) {
        doctor_found(f, DOCTOR_WARN, "%s; only emulated VMs (QEMU's TCG) can run", kvm_texts[r]);
    } else {
        doctor_found(f, DOCTOR_WARN, "trying /dev/kvm: %s", strerrordesc_np(-r));
    }
}
