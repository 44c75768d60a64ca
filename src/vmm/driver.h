/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_DRIVER_H
#define VMM_DRIVER_H

/*
 * driver.h - a virtual machine monitor as the rest of Thaw sees it: one table of operations, and the gate before it
 *
 * A VM lives in a folder of its own, in which everything that belongs to it has a fixed, relative name (enum below). The VMM
 * runs with that folder as its working directory and is told relative names, so a snapshot holds no path of one VM: it can be
 * loaded in any other folder that has the same names. With a jail, the folder that the VMM sees is the jail's root, where a
 * VMM that went mad may put what it likes under any name: what is looked at later to learn what became of it is not there but
 * in the VM's own folder.
 *
 * In vmm_root():
 *     kernel, initrd, rootfs   what it boots, what its disk is; put there by the caller (link or copy) before vmm_start()
 *     vmstate                  the devices' state: made by snapshot, wanted by load
 *     memory                   the guest's memory as a raw file: made by snapshot at the caller's wish
 *     uffd.sock                where the VM's pager listens, when its memory comes from one
 *     api.sock, serial.sock    the VMM's own sockets
 *     vsock.sock               the way to the guest's ports, if it has a vsock (vmm_vsock_connect())
 *
 * In the VM's folder, which without a jail is the same one:
 *     serial.in                where the guest's input is put, if the VMM has no socket for it
 *     console.log              what the guest has written to its serial console
 *     vmm.log                  what the VMM has written
 *     pid                      which process the VMM is (child_id_read()), written before it runs
 *     exit                     how the VMM ended: one line, written by the process that waits for it
 *     root                     with a jail: a symbolic link to vmm_root(), made by vmm_new()
 *
 * The life of a VM, and which operation takes it where:
 *
 *     vmm_start()  -> a process that answers      vmm_boot()   -> runs, fresh
 *                                                 vmm_load()   -> stands, from a snapshot; its memory comes from uffd.sock
 *     vmm_resume() <-> vmm_pause()                vmm_snapshot(), of a VM that stands
 *     vmm_kill()                                  vmm_wait_end()
 *
 * The VMM outlives the process that has started it: it belongs to a small process that waits for it and writes `exit`.
 * Another process finds it again by its folder, its number and when it began, both of which are in `pid` (vmm_adopt()). So nothing about a VM is kept in
 * memory only, and each operation makes its own connection.
 *
 * Everything has a deadline; what goes beyond it is -ETIMEDOUT with a text that names the VMM and what it was asked.
 */

#include <sys/types.h>

#include "base/base.h"
#include "vmm/child.h"

#define VMM_FILE_KERNEL    "kernel"
#define VMM_FILE_INITRD    "initrd"
#define VMM_FILE_ROOTFS    "rootfs"
#define VMM_FILE_STATE     "vmstate"
#define VMM_FILE_MEMORY    "memory"
#define VMM_FILE_UFFD      "uffd.sock"
#define VMM_FILE_API       "api.sock"
#define VMM_FILE_SERIAL    "serial.sock"
#define VMM_FILE_VSOCK     "vsock.sock"
#define VMM_FILE_SERIAL_IN "serial.in"
#define VMM_FILE_CONSOLE   "console.log"
#define VMM_FILE_LOG       "vmm.log"
#define VMM_FILE_PID       "pid"
#define VMM_FILE_EXIT      "exit"
#define VMM_FILE_ROOT      "root"

#define VMM_MEMORY_MIB_MIN 32u
#define VMM_VSOCK_CID      3u /* the first that is free; each Firecracker has all numbers for itself */

/**
 * struct vmm_jail - run the VMM through Firecracker's jailer
 *
 * What the VMM opens in vmm_root() must be readable by its user, and `rootfs` writable unless it is read-only: vmm_give().
 *
 * @program:     of the jailer; NULL: "jailer" on PATH
 * @id:          letters, digits, '-'; at most 64
 * @chroot_base: the folder of all jails; the one of this VM is made in it by the first vmm_new() of its folder
 * @uid, @gid:   what the VMM becomes
 * @netns:       path of a network namespace to join; NULL: none
 * @cgroup_version: 1 or 2; 0: the jailer's default
 * @cgroups:     (borrow) @n_cgroups settings, such as "memory.max=1073741824"
 */
struct vmm_jail {
    const char *program;
    const char *id;
    const char *chroot_base;
    uid_t uid;
    gid_t gid;
    const char *netns;
    unsigned cgroup_version;
    const char *const *cgroups;
    size_t n_cgroups;
};

/**
 * struct vmm_spec - what a VM is made of: the same when it is booted and when a snapshot of it is loaded
 * @program:    of the VMM; NULL: the driver's own name for it, on PATH
 * @preload:    libthaw-preload.so, for a VMM that cannot hand its memory over itself (QEMU); NULL: beside the program or
 *              where it is installed
 * @machine:    QEMU: "pc" (NULL), "q35", "microvm"; Firecracker: NULL
 * @accel:      QEMU: "tcg" or "kvm"; NULL: kvm where it can be had. Firecracker: NULL
 * @cpu:        QEMU: the model of the processor that the guest sees, as -cpu takes it, such as "qemu64" or "EPYC,-svm"; NULL: the
 *              host's own with kvm, all that can be emulated with tcg. Firecracker: NULL
 * @cmdline:    the kernel's command line; NULL: the driver's own, with the console on the first serial line
 * @has_initrd, @has_rootfs: whether the folder has one; @rootfs_read_only: the guest may not write to it
 * @memory_mib: at least VMM_MEMORY_MIB_MIN; even with @huge_pages
 * @huge_pages: the guest's memory is in pages of 2 MiB
 * @memory_from_file: a snapshot is loaded with its memory mapped from the file `memory`, privately, and without a pager: the VMM's
 *              own way, to compare with. QEMU: not with @free_page_reporting, no balloon, and it cannot be saved (decision 20)
 * @vsock:      the guest has a vsock; its number there is VMM_VSOCK_CID. Firecracker only: with QEMU it is a number on the whole host
 * @free_page_reporting, @free_page_hinting: what the balloon, which every VM has, is told to offer
 * @jail:       (borrow) NULL: none. Firecracker only
 */
struct vmm_spec {
    const char *program;
    const char *preload;
    const char *machine;
    const char *accel;
    const char *cpu;
    const char *cmdline;
    bool has_initrd;
    bool has_rootfs;
    bool rootfs_read_only;
    unsigned memory_mib;
    unsigned n_vcpus;
    bool huge_pages;
    bool memory_from_file;
    bool vsock;
    bool free_page_reporting;
    bool free_page_hinting;
    const struct vmm_jail *jail;
};

/** enum vmm_run_state - what a VMM says of its guest */
enum vmm_run_state {
    VMM_NOT_STARTED, /* nothing was booted or loaded */
    VMM_RUNNING,
    VMM_PAUSED,
    VMM_ENDED, /* there is no process any more, or only a zombie */
};

/** struct vmm_balloon - what the running balloon reports. Unknown numbers are UINT64_MAX */
struct vmm_balloon {
    uint64_t target_mib;
    uint64_t actual_mib;
    bool free_page_reporting;
    bool free_page_hinting;
};

struct vmm;
struct vmm_driver;

/** vmm_driver_find() - "firecracker" or "qemu". Return: the driver, or NULL */
const struct vmm_driver *vmm_driver_find(const char *name);

/** vmm_driver_name() */
const char *vmm_driver_name(const struct vmm_driver *driver);

/**
 * vmm_driver_check() - can a VM be made of this? Asked before anything starts
 * @version: of the VMM, as vmm_program_version() says it
 *
 * Return: 0, or -EINVAL with a text that names the field and what was expected; -EOPNOTSUPP with a text that names the version
 * which has what is asked for
 */
int vmm_driver_check(const struct vmm_driver *driver, const struct vmm_spec *spec,
                     const char *version);

/**
 * vmm_program_version() - what `PROGRAM --version` says, such as "1.14.1" or "7.2.22"
 * @program: NULL: the driver's own name for it
 * @out:     (give) free() it
 *
 * Return: 0 or a negative errno with a text: -ENOENT if there is no such program
 */
int vmm_program_version(const struct vmm_driver *driver, const char *program, char **out);

/**
 * vmm_program_stamp() - program_stamp() of it: while that is the same, so are version and format, and nobody has to ask
 * @program: NULL: the driver's own name for it
 * @out:     (give) free() it; NULL: it has to be asked each time
 *
 * Return: 0 or a negative errno with a text: -ENOENT if there is no such program
 */
int vmm_program_stamp(const struct vmm_driver *driver, const char *program, char **out);

/**
 * vmm_snapshot_format() - the format of the snapshots that this program makes and loads, such as "8.0.0" (Firecracker) or
 * "pc-i440fx-7.2" (QEMU: the machine's versioned name)
 * @out: (give)
 *
 * Return: 0 or a negative errno with a text
 */
int vmm_snapshot_format(const struct vmm_driver *driver, const struct vmm_spec *spec, char **out);

/**
 * vmm_new() - a VM that is to live in @folder; nothing is started
 * @spec: (borrow for the call; copied)
 *
 * Return: 0 or a negative errno with a text
 */
int vmm_new(struct vmm **out, const struct vmm_driver *driver, const struct vmm_spec *spec,
            const char *folder);

/** vmm_adopt() - the same, for a VM whose process is there. Return: 0; -ESRCH if it is not any more; others; with a text */
int vmm_adopt(struct vmm **out, const struct vmm_driver *driver, const struct vmm_spec *spec,
              const char *folder, struct vmm_id id);

/** vmm_free() - forget it; its process goes on. @vm: (take) may be NULL. Return: NULL */
struct vmm *vmm_free(struct vmm *vm);

/** vmm_root() - the folder that the VMM sees as its own: @folder, or the jail's root. (borrow) */
const char *vmm_root(const struct vmm *vm);

/** vmm_folder() - the VM's own folder, absolute. (borrow) */
const char *vmm_folder(const struct vmm *vm);

/**
 * vmm_give() - a file of vmm_root() is for the VMM's user to read and write from now on, if that is another one than ours
 *
 * Not for a file that has other names: they would be given away, too. Return: 0 or a negative errno with a text
 */
int vmm_give(const struct vmm *vm, const char *name);

/**
 * vmm_clear() - what a VM that has ended has left outside of its folder and root goes away: the cgroups that the jailer has made
 *
 * Nothing needs to be known of the VM but its folder. Whoever removes the folder calls this before. One that never had a jail
 * has nothing, and that is no error.
 *
 * Return: 0 or a negative errno with a text
 */
int vmm_clear(const char *folder);

/**
 * vmm_start() - start the process, wait until it answers
 * @loads: a snapshot will be loaded: with QEMU that is decided now, and the pager must listen before it is started
 *
 * Context: the files that the spec speaks of are in vmm_root(); to load a snapshot, neither kernel nor initrd is needed. Stale
 * sockets and logs are removed. On an error the process is gone.
 * Return: 0 or a negative errno with a text that has the VMM's last words
 */
int vmm_start(struct vmm *vm, bool loads, unsigned timeout_ms);

/** vmm_id() - of a VM that was started */
struct vmm_id vmm_id(const struct vmm *vm);

/** vmm_boot() - configure it, let the guest run. Return: 0 or a negative errno with a text */
int vmm_boot(struct vmm *vm, unsigned timeout_ms);

/**
 * vmm_load() - load `vmstate`; the memory comes from the pager that listens at `uffd.sock`
 * @resume: let the guest run at once
 *
 * Whoever calls this must not be whom the pager waits for: the VMM touches memory before this returns. A VMM that could not
 * load is of no further use: it has been killed.
 *
 * Return: 0 or a negative errno with a text
 */
int vmm_load(struct vmm *vm, bool resume, unsigned timeout_ms);

int vmm_pause(struct vmm *vm, unsigned timeout_ms);
int vmm_resume(struct vmm *vm, unsigned timeout_ms);

/**
 * vmm_snapshot() - write `vmstate`, and the memory if @with_memory, of a VM that stands
 *
 * Some VMMs cannot but write the memory; what was not asked for is removed again. The guest's memory is as `vmstate` needs
 * it when this returns: whoever reads it from the process itself reads it afterwards.
 *
 * Return: 0 or a negative errno with a text; then neither file is there
 */
int vmm_snapshot(struct vmm *vm, bool with_memory, unsigned timeout_ms);

/**
 * vmm_saves_aside() - does vmm_snapshot() leave the guest's memory as it is?
 *
 * If so, memory that is the same before it and after it is that of `vmstate`. Not with QEMU, and not with a vsock: the guest is
 * told in its memory that the connections are gone.
 */
bool vmm_saves_aside(const struct vmm *vm);

/** vmm_state() - what the VMM says; VMM_ENDED if there is none. Return: 0 or a negative errno with a text */
int vmm_state(struct vmm *vm, enum vmm_run_state *out, unsigned timeout_ms);

/** vmm_balloon_set() - ask the guest to leave so much memory to the host. Does not wait until it has */
int vmm_balloon_set(struct vmm *vm, unsigned mib, unsigned timeout_ms);

/** vmm_balloon_get() - Return: 0 or a negative errno with a text */
int vmm_balloon_get(struct vmm *vm, struct vmm_balloon *out, unsigned timeout_ms);

/**
 * vmm_hint() - have the guest hint all of its free pages once, and wait for the end of it
 *
 * Return: 0; 1 if the guest did not answer within @timeout_ms (the run was stopped); -EOPNOTSUPP if this VM has no hinting; or
 * another negative errno with a text
 */
int vmm_hint(struct vmm *vm, unsigned timeout_ms);

/**
 * vmm_console_write() - type at the guest's serial console
 *
 * What the guest writes goes to `console.log`, whoever listens. Return: 0 or a negative errno with a text
 */
int vmm_console_write(struct vmm *vm, const char *text, size_t len, unsigned timeout_ms);

/**
 * vmm_vsock_connect() - to a port of the guest
 *
 * The VMM lives, and the guest runs: one that stands does not answer. Return: fd (give), a non-blocking stream; -ECONNREFUSED:
 * nobody listens there; -ETIMEDOUT; -EOPNOTSUPP: the VM has no vsock; others; with a text
 */
int vmm_vsock_connect(const struct vmm *vm, unsigned port, unsigned timeout_ms);

/** vmm_kill() - SIGKILL, and wait until it is gone. A VM that is gone is no error */
int vmm_kill(struct vmm *vm, unsigned timeout_ms);

/** vmm_wait_end() - until its process has ended. Return: 0; -ETIMEDOUT (no text); another negative errno with a text */
int vmm_wait_end(const struct vmm *vm, unsigned timeout_ms);

/** vmm_has_ended() - without waiting */
bool vmm_has_ended(const struct vmm *vm);

/**
 * vmm_end_text() - how it ended, for people: "exited with status 148: a system call that its seccomp filter does not allow",
 * "killed by signal 9"; with the last line of its log
 */
void vmm_end_text(const struct vmm *vm, char *buf, size_t len);

DEFINE_CLEANUP(struct vmm *, vmm_free);

#endif
