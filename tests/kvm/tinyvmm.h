/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_KVM_TINYVMM_H
#define TESTS_KVM_TINYVMM_H

/*
 * tinyvmm.h - the parts of the tiny VMM and what they know of each other
 *
 *     guest.S             what the guest does; guest.h: what that means
 *     tinyvmm_ram.c       guest memory: the memory file, mapping it, handing it to a pager, discarding and checking it
 *     tinyvmm_machine.c   KVM: slots, virtual CPUs, the dirty log
 *     tinyvmm_steps.c     what virtual CPUs and VMM do to guest memory
 *     tinyvmm.c           the command line, the watchdog, the result
 *
 * A "block" is 4 KiB of guest memory; a "unit" is a page of the mapping, 4 KiB or 2 MiB: what can be discarded.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guest.h"

#define BLOCK_BYTES 4096u
#define CPUS_MAX    2
#define REGIONS_MAX 8

/* ---- guest memory ---- */

/** struct image - everything that the content of a memory file depends on */
struct image {
    uint64_t seed;
    bool dense; /* no holes, no zero blocks */
};

/** struct ram_region - one mapping, one memory slot, one region of the handshake */
struct ram_region {
    uint8_t *hva;
    uint64_t gpa; /* also the offset in the memory file */
    uint64_t len_bytes;
};

/** struct ram - the guest's memory and what it must hold */
struct ram {
    struct image image;
    unsigned unit_shift;
    uint64_t n_blocks;
    unsigned n_regions;
    struct ram_region regions[REGIONS_MAX];
    _Atomic uint32_t
        *states; /* one a block, in memory that the guest shares and that no pager knows of */
    _Atomic uint32_t *doing;  /* behind it: for each virtual CPU the block under way */
    uint64_t states_bytes;    /* both */
    _Atomic uint8_t *touched; /* one a block */
    int uffd;
    int sock;
};

struct actor;

/** ram_make_file() - write the memory file that @image and the guest's code say; dies on error */
void ram_make_file(const struct image *image, const char *path, uint64_t n_blocks);

/** ram_map() - map the guest's memory, of which image, unit_shift, n_blocks and n_regions are set */
void ram_map(struct ram *ram);

/** ram_attach() - hand it to the pager that listens at @socket_path */
void ram_attach(struct ram *ram, const char *socket_path);

/** ram_fill() - instead: put the memory file's bytes there at once, without a pager */
void ram_fill(const struct ram *ram);

/** ram_seed() - the seed in the guest's words */
uint64_t ram_seed(const struct image *image);

uint8_t *ram_block(const struct ram *ram, uint64_t block);

/** ram_at() - where guest physical address @gpa is; NULL if nowhere */
uint8_t *ram_at(const struct ram *ram, uint64_t gpa);

/** ram_check() - the VMM itself reads all of a block and compares; counts an error in @a. The guest stands still */
void ram_check(struct actor *a, uint64_t block);

/**
 * ram_discard() - MADV_DONTNEED of up to @n units from @unit on, not beyond their region
 *
 * Units are left out, and end the range, where somebody else is changing a block.
 * Return: how many units were discarded.
 */
uint64_t ram_discard(struct actor *a, uint64_t unit, uint64_t n);

/**
 * ram_judge() - a read of the guest overlapped a change: is what it saw one side or the other?
 * @state: of the block before the read
 * @found: what word @word was
 *
 * Counts an error in @a if not: a word may be what it was when the read began, or what a change since then made of it. So the
 * memory file's word is an error if the block did not hold it any more.
 */
void ram_judge(struct actor *a, uint64_t block, unsigned word, uint32_t state, uint64_t found);

/* ---- the machine ---- */

/** struct machine_plan - from the command line */
struct machine_plan {
    unsigned ring; /* that the guest's code runs in: 3 or 0 */
    bool
        interrupts; /* an interrupt controller in the kernel, and interrupts on: KVM may then halt a virtual CPU and let a
                       * thread of the kernel wait for the page */
    unsigned kick_us; /* interrupt the virtual CPUs by a signal so often; 0: do not */
};

struct cpu {
    unsigned id;
    int fd;
    struct kvm_run *run; /* mapped */
    atomic_int tid;      /* of the thread in KVM_RUN; 0: none */
};

struct machine {
    struct machine_plan plan;
    struct ram *ram;
    int kvm, vm;
    struct cpu cpus[CPUS_MAX];
    bool log;                /* dirty pages are logged */
    _Atomic uint8_t *logged; /* one a block: was ever in the log */
};

/** machine_new() - a VM with this memory; dies if the host cannot have one */
void machine_new(struct machine *m, struct ram *ram, const struct machine_plan *plan);

/** machine_log() - switch KVM's dirty log on or off */
void machine_log(struct machine *m, bool on);

/** machine_collect_log() - add what KVM has logged since the last time to m->logged. Does nothing without a log */
void machine_collect_log(struct machine *m);

/** machine_reslot() - delete all memory slots but the first @n_kept and set them again */
void machine_reslot(struct machine *m, unsigned n_kept);

/** struct guest_job - what a virtual CPU is to do; see guest.S */
struct guest_job {
    uint32_t code;       /* guest_walk or guest_fill: where to begin */
    uint64_t first, end; /* blocks */
    uint64_t start, stride;
};

/**
 * cpu_run() - run @job on virtual CPU @a->cpu to its end
 *
 * Return: false if a word was wrong (which was counted) and the job was given up.
 */
bool cpu_run(struct actor *a, const struct guest_job *job);

/* ---- steps ---- */

/** struct step - one word of the command line */
struct step {
    const struct step_kind *kind;
    uint64_t first, end; /* blocks */
    uint64_t n, rounds;
    unsigned n_cpus;
    unsigned reslot;   /* storm: after so many discards; 0: never */
    unsigned collect;  /* storm: likewise the dirty log */
    unsigned pause_us; /* storm: between two discards */
    bool hold;         /* storm: until there is a line on standard input */
    atomic_bool over;  /* storm: the VMM's part has ended */
};

/** struct step_kind - what a step is: work for each virtual CPU, for the VMM, or for both at the same time */
struct step_kind {
    const char *name;
    void (*cpu)(struct actor *a);
    void (*vmm)(struct actor *a);
    uint64_t n;
    const char *text;
};

extern const struct step_kind step_kinds[];

/** struct tally - what an actor did; summed up in the result */
struct tally {
    uint64_t blocks, raced, discards, units_discarded, reslots, mmio, interrupted, errors;
};

/** struct actor - a thread that runs a virtual CPU or does the VMM's work */
struct actor {
    struct machine *m;
    struct step *step;
    const char *
        pages_path; /* where "pause" writes which blocks are written, logged and touched; NULL: nowhere */
    struct cpu *cpu; /* NULL: the VMM's own */
    unsigned id;
    uint64_t rng;
    pthread_t thread;
    atomic_bool done;
    struct tally tally;
};

uint64_t actor_random(struct actor *a);

/** actor_error() - count a wrong word and print it at once: the process may be killed before its result */
void actor_error(struct actor *a, const char *who, uint64_t block, unsigned word, uint32_t state,
                 uint64_t expected, uint64_t found);

#endif
