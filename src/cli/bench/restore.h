/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_RESTORE_H
#define CLI_BENCH_RESTORE_H

/*
 * restore.h - `thaw bench restore`: from a template to its guest's first answer
 *
 * A *case* is who brings the memory (Thaw, or the VMM's own mapping of a memory file), whether the files are in the page cache,
 * and how many VMs are restored at the same time. Each round runs all cases in a shuffled order. Each VM is restored by a process
 * of its own, as somebody does who types `thaw run`; all of a case begin at the same moment, and the times are taken from there.
 */

#include <limits.h>

#include "node/template.h"

#define RESTORE_VMS_MAX    64u
#define RESTORE_ROUNDS_MAX 1000u

/** enum restore_kind - who brings the memory */
enum restore_kind {
    RESTORE_THAW, /* a pager, from the image */
    RESTORE_FILE, /* the VMM maps a raw memory file, privately */
    RESTORE_N_KINDS,
};

/** enum restore_mark - how far a restore has come; times are since its case began */
enum restore_mark {
    RESTORE_LISTENING, /* the pager listens; not with RESTORE_FILE */
    RESTORE_STARTED,   /* the VMM's process answers */
    RESTORE_FAULTED,   /* the first fault was answered; not with RESTORE_FILE */
    RESTORE_LOADED,    /* the devices' state is loaded, the guest runs */
    RESTORE_READY,     /* the guest has answered at its console */
    RESTORE_N_MARKS,
};

/** struct restore_times - of one VM; 0: it has no such mark */
struct restore_times {
    uint64_t ns[RESTORE_N_MARKS];
    uint64_t n_faults; /* missing-page faults until it was ready */
    uint64_t n_ahead;  /* pages that were installed ahead of the guest until then */
};

/** struct restore_ground - what all restores share */
struct restore_ground {
    const struct template *template; /* (borrow) */
    const char *store;               /* (borrow) */
    char folder[PATH_MAX]; /* where VMs have their folders, and where the raw memory file is */
    unsigned timeout_ms;   /* for each step */
    bool no_prefetch; /* the working set is not installed ahead; set after restore_ground_init() */
    bool alone;       /* one VM at a time: its first fault is looked for */
};

/** restore_ground_init() - make the folder below @dir; the raw memory file, if @files. @g: (give) restore_ground_deinit() it */
int restore_ground_init(struct restore_ground *g, const struct template *t, const char *store,
                        const char *dir, bool files, unsigned timeout_ms);

/** restore_ground_deinit() - remove the folder and what is in it */
void restore_ground_deinit(struct restore_ground *g);

/**
 * restore_cache() - put what a restore reads into the page cache, or out of it
 * @cold: out of it
 *
 * Return: 0 or a negative errno with a text: a file system that has no other place for files cannot be cold
 */
int restore_cache(const struct restore_ground *g, enum restore_kind kind, bool cold);

/**
 * restore_group() - restore @n VMs at the same time, and end them
 * @times: of each
 *
 * Return: 0 or a negative errno with a text, of the first one that failed
 */
int restore_group(const struct restore_ground *g, enum restore_kind kind, unsigned n,
                  struct restore_times *times);

/** struct restore_vm - one VM, in the process that restores it */
struct restore_vm;

/** restore_vm_new() - its folder with its files. @number: which one. Return: 0 or a negative errno with a text */
int restore_vm_new(struct restore_vm **out, const struct restore_ground *g, enum restore_kind kind,
                   unsigned number);

/** restore_vm_run() - restore it. @began_ns: clock_now_ns() when all began. Return: 0 or a negative errno with a text */
int restore_vm_run(struct restore_vm *vm, uint64_t began_ns, struct restore_times *times);

/** restore_vm_free() - end it, remove its folder. @vm: (take) may be NULL. Return: NULL */
struct restore_vm *restore_vm_free(struct restore_vm *vm);

/** bench_restore() - the verb. Return: the exit status */
int bench_restore(int argc, char **argv);

DEFINE_CLEANUP(struct restore_vm *, restore_vm_free);

#endif
