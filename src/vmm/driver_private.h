/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_DRIVER_PRIVATE_H
#define VMM_DRIVER_PRIVATE_H

/*
 * driver_private.h - what a driver is made of; for src/vmm/driver*.c and their tests only
 *
 * Nobody but the gate (driver.c) calls these operations. It has checked that the process is there, has made a deadline of the
 * timeout, and adds to an error's text how the VMM ended if it has. So an operation's own text says what the VMM was asked
 * and what it answered.
 */

#include <thaw/features.h>

#include "vmm/driver.h"

/** struct vmm - one VM: what is known of it without asking it */
struct vmm {
    const struct vmm_driver *driver;
    struct vmm_spec spec; /* a copy of its own */
    char *folder;         /* absolute */
    char *root; /* absolute: what the VMM sees as its folder; the same, unless there is a jail */
    struct vmm_id id; /* zeroed: not started */
    bool has_version; /* the process @id was asked for its version, and this is it */
    struct thaw_version version;
};

/**
 * struct vmm_driver - one kind of VMM
 * @name:           for vmm_driver_find()
 * @program:        that is run if the spec names none
 * @knows_jail:     a spec may have a jail
 * @saves_aside:    vmm_saves_aside(), of a VM without vsock
 *
 * Operations return 0 or a negative errno with a text, unless it says otherwise. Times are of clock_now_ns().
 *
 * @check:           what is special about this driver. NULL: nothing
 * @snapshot_format: see vmm_snapshot_format(). @program: never NULL
 * @find_root:       (give) another folder than @vm->folder. NULL: it is the same
 * @start:           by vmm_spawn(), so that @vm->id is set as soon as there is a process; wait until it answers
 * @boot, @load, @pause, @resume: as in driver.h. The gate kills a VMM that could not load
 * @snapshot:        on an error, `memory` is not there unless it is the VM's memory itself; the gate removes `vmstate`
 * @state:           never VMM_ENDED
 * @hint:            NULL: -EOPNOTSUPP
 * @exit_meaning:    what an exit status means, as a clause; NULL (or returns NULL): nothing particular
 */
struct vmm_driver {
    const char *name;
    const char *program;
    bool knows_jail;
    bool saves_aside;

    int (*check)(const struct vmm_spec *spec, const char *version);
    int (*snapshot_format)(const struct vmm_spec *spec, const char *program, char **out);
    int (*find_root)(const struct vmm *vm, char **out);
    int (*start)(struct vmm *vm, bool loads, uint64_t deadline_ns);
    int (*boot)(struct vmm *vm, uint64_t deadline_ns);
    int (*load)(struct vmm *vm, bool resume, uint64_t deadline_ns);
    int (*pause)(struct vmm *vm, uint64_t deadline_ns);
    int (*resume)(struct vmm *vm, uint64_t deadline_ns);
    int (*snapshot)(struct vmm *vm, bool with_memory, uint64_t deadline_ns);
    int (*state)(struct vmm *vm, enum vmm_run_state *out, uint64_t deadline_ns);
    int (*balloon_set)(struct vmm *vm, unsigned mib, uint64_t deadline_ns);
    int (*balloon_get)(struct vmm *vm, struct vmm_balloon *out, uint64_t deadline_ns);
    int (*hint)(struct vmm *vm, uint64_t deadline_ns);
    int (*console_write)(struct vmm *vm, const char *text, size_t len, uint64_t deadline_ns);
    const char *(*exit_meaning)(int status);
};

/** spec_check() - what holds for every driver and version. Return: 0 or -EINVAL with a text */
int spec_check(const struct vmm_driver *driver, const struct vmm_spec *spec);

/** spec_features() - does this version have what the spec wants? Return: 0 or a negative errno with a text */
int spec_features(const struct vmm_spec *spec, enum thaw_vmm vmm, const char *version,
                  struct thaw_features *out);

/** spec_copy() - with all that it points to. Return: 0 or -ENOMEM (no text); spec_deinit() in either case */
int spec_copy(struct vmm_spec *to, const struct vmm_spec *from);

/** spec_deinit() - of a copy */
void spec_deinit(struct vmm_spec *spec);

/* The drivers that there are: each has a file of its own, driver.c lists them. */
extern const struct vmm_driver driver_fc;
extern const struct vmm_driver driver_qemu;

/** fc_exit_meaning() - of a Firecracker. Return: a clause, or NULL: nothing particular */
const char *fc_exit_meaning(int status);

/** vmm_program() - what is run: the spec's, or the driver's. (borrow) */
const char *vmm_program(const struct vmm *vm);

/**
 * vmm_spawn() - start the VM's process in its folder, with its log, its exit file and its pid file
 * @argv, @env: as in struct child_spec
 * @stdin_fd, @stdout_fd: (borrow) -1: stdin is empty, stdout goes to the log as stderr does
 */
int vmm_spawn(struct vmm *vm, const char *const *argv, const char *const *env, int stdin_fd,
              int stdout_fd);

/** vmm_path() - a file of the VM's root, absolute. Return: 0 or -ENAMETOOLONG with a text */
int vmm_path(const struct vmm *vm, const char *name, char *buf, size_t len);

/** vmm_folder_path() - the same for those files that are in the VM's folder, whatever its root is */
int vmm_folder_path(const struct vmm *vm, const char *name, char *buf, size_t len);

/**
 * vmm_connect() - to a unix socket of the VM's root, as soon as somebody listens there
 *
 * The path may be longer than a socket's address can be. Return: fd (give), close-on-exec, non-blocking; -ETIMEDOUT, or
 * -ECONNREFUSED if the VMM has ended meanwhile; with a text
 */
int vmm_connect(const struct vmm *vm, const char *name, uint64_t deadline_ns);

/** socket_connect() - the same without waiting: to the socket @name of the folder @folder. Return: fd or -errno (no text) */
int socket_connect(const char *folder, const char *name);

#endif
