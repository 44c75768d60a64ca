/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_INSTANCE_H
#define NODE_INSTANCE_H

/*
 * instance.h - a VM that is served from an image: its VMM, and the pager that is a process of its own
 *
 * Beside the files of vmm/driver.h the VM's folder has those of its pager:
 *
 *     pager.pid                which process the pager is (child_id_read()), written before it runs
 *     pager.log, pager.exit    what it has written, how it ended
 *     pager.stats              its statistics, thaw-serve(1)
 *
 * The pager's state file is not in the folder: it is written to all the time and belongs into memory (thaw-state(5)). Its name
 * follows from the pager's number and the state directory.
 *
 * Both processes outlive whoever starts them. Who comes later finds them by the folder (instance_find()).
 *
 * No userfaultfd is closed while its VMM lives, or a guest would go on with zeroes (invariant I6). So the order is the same
 * each time: the pager listens, then the VMM starts; the VMM is killed and waited for, then the pager ends by itself; only
 * then may the folder go away.
 */

#include "vmm/driver.h"

#define INSTANCE_FILE_PAGER_ID    "pager.pid"
#define INSTANCE_FILE_PAGER_LOG   "pager.log"
#define INSTANCE_FILE_PAGER_EXIT  "pager.exit"
#define INSTANCE_FILE_PAGER_STATS "pager.stats"

/** struct instance_times - clock_now_ns() when the pager listened, and when the VMM answered */
struct instance_times {
    uint64_t listening_ns;
    uint64_t started_ns;
};

/**
 * struct instance_spec - what is served, and how
 * @store:          the store's folder
 * @image:          a name or an id
 * @state_dir:      where the pager's state file is; NULL: where `thaw serve` has it by itself
 * @record:         the file for a record of the working set, absolute; NULL: nothing is recorded
 * @record_missed:  it is of what was not there, beside the image's working set, which is installed
 * @record_seconds: the record ends so long after the first fault; 0: when the pager is told so (thaw-ready(1))
 * @no_prefetch:    the image's working set is not installed ahead
 * @times:          (borrow for the call) when it was how far; NULL: nobody wants to know
 */
struct instance_spec {
    const char *store;
    const char *image;
    const char *state_dir;
    const char *record;
    bool record_missed;
    unsigned record_seconds;
    bool no_prefetch;
    struct instance_times *times;
};

/**
 * struct instance - the two processes; what is not there is zeroed
 * @vmm:        owned; NULL: it has ended
 * @vmm_id:     of the VMM, living or not
 * @pager:      the supervisor: the pager that serves is a child of it, and changes
 * @state_path: of the pager's state file; "": there is none
 */
struct instance {
    struct vmm *vmm;
    struct vmm_id vmm_id;
    struct vmm_id pager;
    char state_path[256];
};

/**
 * instance_load() - start a pager and a VMM, and load `vmstate`
 * @in:     zeroed; (give) instance_forget() it
 * @spec:   (borrow for the call) of the VM
 * @resume: let the guest run at once
 *
 * The folder has what the VM needs: `vmstate`, the rootfs, the kernel if there must be one. On an error both processes are gone;
 * their logs are there.
 *
 * Return: 0 or a negative errno with a text
 */
int instance_load(struct instance *in, const struct vmm_driver *driver, const struct vmm_spec *spec,
                  const char *folder, const struct instance_spec *serve, bool resume,
                  unsigned timeout_ms);

/**
 * instance_find() - the processes of a folder, as far as they live
 * @in: (give) instance_forget() it. Without @in->vmm the VMM has ended, or there never was one
 *
 * Return: 0 or a negative errno with a text
 */
int instance_find(struct instance *in, const struct vmm_driver *driver, const struct vmm_spec *spec,
                  const char *folder, const char *state_dir);

/** instance_pager_lives() - does anybody serve the VM? A supervisor without a pager starts one at once: it counts */
bool instance_pager_lives(const struct instance *in);

/**
 * instance_adopt() - the VMM lives and its pager does not: start another one, which takes over
 *
 * Return: 0 when it serves, or a negative errno with a text: then the VM stands still at its next missing page
 */
int instance_adopt(struct instance *in, const char *folder, const struct instance_spec *serve,
                   unsigned timeout_ms);

/**
 * instance_end() - kill the VMM if it lives, wait for the pager's end; a state file that was left behind goes away
 *
 * Return: 0 when both are gone, or a negative errno with a text: then nothing may be removed
 */
int instance_end(struct instance *in, unsigned timeout_ms);

/**
 * instance_end_by_files() - the same, of a folder of which nothing is known but what its id files say
 * @pager_ms: how long the pager, whose VMM is gone, has to end by itself; 0: it is killed at once
 *
 * Return: 0 when both are gone, or a negative errno with a text
 */
int instance_end_by_files(const char *folder, unsigned pager_ms, unsigned timeout_ms);

/** instance_forget() - the processes go on */
void instance_forget(struct instance *in);

#endif
