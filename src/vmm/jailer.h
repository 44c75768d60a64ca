/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_JAILER_H
#define VMM_JAILER_H

/*
 * jailer.h - Firecracker's jailer: where a jail is, what must be so before it is made, and what the jailer is told
 *
 * The jailer makes BASE/PROGRAM/ID/root, a copy of the program and the devices that it needs in there, becomes another user,
 * and executes the program with that folder as its root. It refuses a root that has devices or a pid file already, so what
 * an earlier VMM has left goes away first.
 *
 * The root belongs to the jailed user, who may have put anything there under any name. So nothing below it is opened or changed
 * but by name relative to a folder that is held, and no symbolic link is followed.
 */

#include "vmm/driver.h"

#define JAIL_MAX_ARGS 64 /* of the jailer, cgroup settings included */

/**
 * jail_root() - of the VM in @folder: made, and the folders above it, if there is none yet
 * @program: as it is called
 * @out:     (give) absolute
 *
 * Its name has the program's in it, which may be another one tomorrow, or have gone. So the VM's folder has a link to it, and
 * what that says counts.
 */
int jail_root(const struct vmm_jail *jail, const char *folder, const char *program, char **out);

/** jail_find() - the same, of one that was made. Return: 0; -ENOENT (no text): there is none; another negative errno with a text */
int jail_find(const char *folder, char **out);

/**
 * jail_argv() - what is executed
 * @program: (borrow) absolute
 * @args:    (borrow) of the VMM, with a NULL at the end
 * @argv:    (give, the array's content is borrowed from the arguments and from @numbers)
 */
struct jail_numbers {
    char uid[16];
    char gid[16];
    char cgroup_version[16];
};
int jail_argv(const struct vmm_jail *jail, const char *program, const char *const *args,
              struct jail_numbers *numbers, const char *argv[static JAIL_MAX_ARGS]);

/**
 * jail_remove_cgroups() - those that the jailer has made: PROGRAM/ID beneath each mount of cgroups. PROGRAM itself is for all
 * @mounts: the file that says what is mounted where
 *
 * Context: no process is left in them. Return: 0, also if there are none; or a negative errno with a text
 */
int jail_remove_cgroups(const char *root, const char *mounts);

/** jail_clear() - remove what the jailer made in @root for an earlier VMM. Return: 0 or a negative errno with a text */
int jail_clear(const char *root, const char *program);

/**
 * jail_add_log() - the VMM writes its log into @log_path, from inside
 *
 * A second name of that file in @root; where that cannot be, a file of its own. Return: 0 or a negative errno with a text
 */
int jail_add_log(const struct vmm_jail *jail, const char *root, const char *log_path);

/** jail_give() - a file of @root is the jailed user's from now on. Return: 0 or a negative errno with a text */
int jail_give(const struct vmm_jail *jail, const char *root, const char *name);

#endif
