/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tinyvmm_machine.c - KVM
 *
 * One memory slot a region, and one more behind the first GiB's end for the table of states, which is ordinary memory. No
 * devices. A virtual CPU begins in 64-bit mode with paging on; it has no descriptor tables, so any exception ends it, which KVM
 * says.
 *
 * Where memory is missing because its slot is deleted just now, KVM asks the VMM to carry the access out (MMIO), and the VMM
 * does that in its own mapping of the same memory.
 */
#include "tinyvmm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uffd_peer.h"

#define STATES_GPA 0x3fc00000ull
#define TSS_HVA \
    0xfffbd000ul /* three pages that old Intel processors need; behind all guest memory */
#define CPUID_ENTRIES     256
#define IRQCHIP_PINS      24
#define RFLAGS_FIXED      0x2ull
#define RFLAGS_INTERRUPTS 0x200ull
#define RFLAGS_IO_RING3   0x3000ull

static void must_ioctl(int fd, unsigned long request, void *arg, const char *what)
{
    if (ioctl(fd, request, arg) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "%s", what);
}

static void set_slot(const struct machine *m, unsigned slot, uint64_t gpa, const void *hva,
                     uint64_t len_bytes, uint32_t flags)
{
    struct kvm_userspace_memory_region r = {
        .slot = slot,
        .flags = flags,
        .guest_phys_addr = gpa,
        .memory_size = len_bytes,
        .userspace_addr = (uintptr_t)hva,
    };

    must_ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &r, "KVM_SET_USER_MEMORY_REGION");
}

static void set_ram_slots(const struct machine *m, unsigned from, bool present)
{
    unsigned i;

    for (i = from; i < m->ram->n_regions; i++) {
        const struct ram_region *r = &m->ram->regions[i];

        set_slot(m, i, r->gpa, r->hva, present ? r->len_bytes : 0,
                 m->log ? KVM_MEM_LOG_DIRTY_PAGES : 0);
    }
}

static void set_cpuid(const struct machine *m, const struct cpu *cpu)
{
    struct kvm_cpuid2 *id = calloc(1, sizeof(*id) + CPUID_ENTRIES * sizeof(id->entries[0]));

    if (!id)
        peer_die(PEER_EXIT_ABSENT, ENOMEM, "cpuid");
    id->nent = CPUID_ENTRIES;
    must_ioctl(m->kvm, KVM_GET_SUPPORTED_CPUID, id, "KVM_GET_SUPPORTED_CPUID");
    must_ioctl(cpu->fd, KVM_SET_CPUID2, id, "KVM_SET_CPUID2");
    free(id);
}

static void set_mode(const struct machine *m, const struct cpu *cpu)
{
    uint8_t ring = (uint8_t)m->plan.ring;
    struct kvm_segment code = {
        .limit = 0xffffffff,
        .selector = (uint16_t)(0x30 | ring),
        .type = 11,
        .present = 1,
        .dpl = ring,
        .s = 1,
        .l = 1,
        .g = 1,
    };
    struct kvm_segment data = {
        .limit = 0xffffffff,
        .selector = (uint16_t)(0x28 | ring),
        .type = 3,
        .present = 1,
        .dpl = ring,
        .s = 1,
        .db = 1,
        .g = 1,
    };
    struct kvm_sregs s;

    must_ioctl(cpu->fd, KVM_GET_SREGS, &s, "KVM_GET_SREGS");
    s.cs = code;
    s.ds = s.es = s.fs = s.ss = data;
    data.base = STATES_GPA + (uint64_t)((char *)m->ram->doing - (char *)m->ram->states) +
                cpu->id * sizeof(*m->ram->doing);
    s.gs = data;
    s.cr0 = 0x80010033; /* paging, write protection, a coprocessor, protected mode */
    s.cr3 = GUEST_TABLES_BLOCK * BLOCK_BYTES;
    s.cr4 = 0x20;   /* page table entries of 64 bits */
    s.efer = 0x500; /* 64-bit mode */
    must_ioctl(cpu->fd, KVM_SET_SREGS, &s, "KVM_SET_SREGS");
}

static void make_cpu(struct machine *m, unsigned id)
{
    struct kvm_mp_state runnable = {.mp_state = KVM_MP_STATE_RUNNABLE};
    struct cpu *cpu = &m->cpus[id];
    int bytes = ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

    cpu->id = id;
    cpu->fd = ioctl(m->vm, KVM_CREATE_VCPU, id);
    if (cpu->fd < 0 || bytes < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "KVM_CREATE_VCPU");
    cpu->run = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
    if (cpu->run == MAP_FAILED)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot map a virtual CPU");
    set_cpuid(m, cpu);
    set_mode(m, cpu);
    if (m->plan.interrupts)
        must_ioctl(cpu->fd, KVM_SET_MP_STATE, &runnable, "KVM_SET_MP_STATE");
}

static void no_handler(int signal)
{
    (void)signal;
}

/* The signal makes KVM_RUN return; what else it interrupts is tried again. */
static void *kick_main(void *arg)
{
    struct machine *m = arg;
    unsigned i;

    for (;;) {
        usleep(m->plan.kick_us);
        for (i = 0; i < CPUS_MAX; i++) {
            int tid = atomic_load(&m->cpus[i].tid);

            if (tid)
                (void)syscall(SYS_tgkill, getpid(), tid, SIGUSR1);
        }
    }
    return NULL;
}

static void open_kvm(struct machine *m)
{
    m->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (m->kvm < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot open /dev/kvm");
    if (ioctl(m->kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        peer_die(PEER_EXIT_ABSENT, 0, "/dev/kvm speaks another version");
    m->vm = ioctl(m->kvm, KVM_CREATE_VM, 0);
    if (m->vm < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "KVM_CREATE_VM");
    if (ioctl(m->vm, KVM_CHECK_EXTENSION, KVM_CAP_SET_TSS_ADDR) > 0 &&
        ioctl(m->vm, KVM_SET_TSS_ADDR, TSS_HVA) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "KVM_SET_TSS_ADDR");
}

void machine_new(struct machine *m, struct ram *ram, const struct machine_plan *plan)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {IRQCHIP_PINS}};
    struct sigaction kick = {.sa_handler = no_handler};
    pthread_t thread;
    unsigned i;
    int r;

    m->plan = *plan;
    m->ram = ram;
    m->logged = calloc(ram->n_blocks, sizeof(*m->logged));
    if (!m->logged)
        peer_die(PEER_EXIT_ABSENT, ENOMEM, "log");
    if (ram->n_blocks * BLOCK_BYTES > STATES_GPA)
        peer_die(PEER_EXIT_USAGE, 0, "the guest's memory must be less than 1 GiB");
    open_kvm(m);
    if (plan->interrupts)
        must_ioctl(m->vm, KVM_ENABLE_CAP, &split, "KVM_CAP_SPLIT_IRQCHIP");
    set_ram_slots(m, 0, true);
    set_slot(m, ram->n_regions, STATES_GPA, (const void *)ram->states, ram->states_bytes, 0);
    for (i = 0; i < CPUS_MAX; i++)
        make_cpu(m, i);
    if (!plan->kick_us)
        return;
    sigaction(SIGUSR1, &kick, NULL);
    r = pthread_create(&thread, NULL, kick_main, m);
    if (r)
        peer_die(PEER_EXIT_ABSENT, r, "pthread_create");
}

void machine_log(struct machine *m, bool on)
{
    if (m->log)
        machine_collect_log(m);
    m->log = on;
    set_ram_slots(m, 0, true);
}

void machine_collect_log(struct machine *m)
{
    uint64_t words = m->ram->n_blocks / 64 + 1, i;
    uint64_t *bits = calloc(words, sizeof(*bits));
    unsigned slot;

    if (!bits)
        peer_die(PEER_EXIT_ABSENT, ENOMEM, "log");
    for (slot = 0; m->log && slot < m->ram->n_regions; slot++) {
        const struct ram_region *r = &m->ram->regions[slot];
        struct kvm_dirty_log log = {.slot = slot, .dirty_bitmap = bits};

        must_ioctl(m->vm, KVM_GET_DIRTY_LOG, &log, "KVM_GET_DIRTY_LOG");
        for (i = 0; i < r->len_bytes / BLOCK_BYTES; i++) {
            if (bits[i / 64] >> i % 64 & 1)
                atomic_store(&m->logged[r->gpa / BLOCK_BYTES + i], 1);
        }
    }
    free(bits);
}

void machine_reslot(struct machine *m, unsigned n_kept)
{
    set_ram_slots(m, n_kept, false);
    set_ram_slots(m, n_kept, true);
}

static void carry_out_mmio(struct actor *a, struct kvm_run *run)
{
    uint8_t *at = ram_at(a->m->ram, run->mmio.phys_addr);

    if (!at)
        peer_die(PEER_EXIT_WRONG, 0, "the guest went to %#llx, where nothing is",
                 (unsigned long long)run->mmio.phys_addr);
    if (run->mmio.is_write)
        memcpy(at, run->mmio.data, run->mmio.len);
    else
        memcpy(run->mmio.data, at, run->mmio.len);
    a->tally.mmio++;
}

static struct kvm_regs registers_of(const struct machine *m, const struct guest_job *job)
{
    uint64_t ring3 = m->plan.ring == 3 ? RFLAGS_IO_RING3 : 0;

    return (struct kvm_regs){
        .rip = GUEST_CODE_BLOCK * BLOCK_BYTES + job->code,
        .rflags = RFLAGS_FIXED | ring3 | (m->plan.interrupts ? RFLAGS_INTERRUPTS : 0),
        .rdi = job->start,
        .rbx = job->first,
        .rbp = job->end,
        .r10 = job->end - job->first,
        .r11 = GUEST_CHANGE,
        .r12 = GUEST_STEP,
        .r13 = ram_seed(&m->ram->image),
        .r14 = STATES_GPA,
        .r15 = job->stride,
    };
}

/* take_port() - the guest wrote to a port. Return: true if it goes on */
static bool take_port(struct actor *a, unsigned port, bool *ok)
{
    struct kvm_regs r;

    if (port == PORT_DONE)
        return false;
    must_ioctl(a->cpu->fd, KVM_GET_REGS, &r, "KVM_GET_REGS");
    if (port == PORT_RACED) {
        ram_judge(a, r.rdi, r.rsi % BLOCK_BYTES / 8, (uint32_t)r.r8, r.r9);
        return true;
    }
    if (port != PORT_WRONG)
        peer_die(PEER_EXIT_WRONG, 0, "the guest wrote to port %#x", port);
    actor_error(a, "a virtual CPU", r.rdi, r.rsi % BLOCK_BYTES / 8, (uint32_t)r.r8, r.rax, r.r9);
    *ok = false;
    return false;
}

static void die_of_exit(const struct cpu *cpu)
{
    struct kvm_regs r = {0};

    (void)ioctl(cpu->fd, KVM_GET_REGS, &r);
    peer_die(PEER_EXIT_WRONG, 0,
             "virtual CPU %u ended with exit reason %u (%u) at %#llx, block %llu", cpu->id,
             cpu->run->exit_reason,
             cpu->run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? cpu->run->internal.suberror : 0,
             r.rip, r.rdi);
}

bool cpu_run(struct actor *a, const struct guest_job *job)
{
    struct cpu *cpu = a->cpu;
    struct kvm_regs regs = registers_of(a->m, job);
    bool ok = true, on = true;

    must_ioctl(cpu->fd, KVM_SET_REGS, &regs, "KVM_SET_REGS");
    atomic_store(&cpu->tid, (int)syscall(SYS_gettid));
    while (on) {
        if (ioctl(cpu->fd, KVM_RUN, 0) < 0) {
            if (errno != EINTR && errno != EAGAIN)
                peer_die(PEER_EXIT_WRONG, errno, "KVM_RUN of virtual CPU %u", cpu->id);
            a->tally.interrupted++;
        } else if (cpu->run->exit_reason == KVM_EXIT_IO) {
            on = take_port(a, cpu->run->io.port, &ok);
        } else if (cpu->run->exit_reason == KVM_EXIT_MMIO) {
            carry_out_mmio(a, cpu->run);
        } else {
            die_of_exit(cpu);
        }
    }
    atomic_store(&cpu->tid, 0);
    a->tally.blocks += job->end - job->first;
    return ok;
}
