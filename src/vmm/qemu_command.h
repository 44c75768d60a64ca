/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_QEMU_COMMAND_H
#define VMM_QEMU_COMMAND_H

/* qemu_command.h - QEMU's command line and environment */

#include "vmm/driver.h"

#define QEMU_RAM     "ram0" /* the memory's name: on both sides of a migration */
#define QEMU_BALLOON "balloon0"

#define QEMU_ARGS    64u
#define QEMU_ENV     8u

/** struct qemu_command - ready for child_start(); lists end with NULL */
struct qemu_command {
    char *argv[QEMU_ARGS]; /* owned, as is all in here */
    char *env[QEMU_ENV];
    size_t n_argv;
    size_t n_env;
    bool out_of_memory;
};

/**
 * qemu_command_init() - for a VM that is booted, or that loads a snapshot
 * @command: zeroed; qemu_command_deinit() it, even on an error
 * @program: what is run
 *
 * Return: 0 or a negative errno with a text: -ENOENT if there is no libthaw-preload.so, which loading needs
 */
int qemu_command_init(struct qemu_command *command, const struct vmm_spec *spec,
                      const char *program, bool loads);

/** qemu_command_deinit() */
void qemu_command_deinit(struct qemu_command *command);

/** qemu_machine() - the name of the spec's machine */
const char *qemu_machine(const struct vmm_spec *spec);

/** qemu_machine_is_micro() - is it a microvm, which has no PCI? */
bool qemu_machine_is_micro(const struct vmm_spec *spec);

/**
 * qemu_machine_versioned() - what a machine's name stands for, such as "pc-i440fx-7.2" for "pc"
 * @help: what `-machine help` prints
 * @out:  (give) NULL if it is no alias
 *
 * Return: 0, -EINVAL if there is no such machine, -ENOMEM; with a text
 */
int qemu_machine_versioned(const char *help, const char *machine, char **out);

#endif
