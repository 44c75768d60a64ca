/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_SANDBOX_JAIL_H
#define NODE_SANDBOX_JAIL_H

/*
 * sandbox_jail.h - in what jail the VMM of a sandbox runs: chosen when the sandbox is made, kept in its record
 *
 * Its user, network namespace and cgroups are of one sandbox and not of the template. So the choice is made with the sandbox, and a
 * resumed one has what it was made with; a fork has the same, in a jail of its own.
 */

#include <sys/types.h>

#include "node/record.h"

#define SANDBOX_JAIL_ID_MAX      64u
#define SANDBOX_JAIL_CGROUPS_MAX 16u

/** struct sandbox_jail - zeroed: none. The texts are owned */
struct sandbox_jail {
    bool given; /* the first one: it is an optional part of a record */
    char *id;   /* sandbox_jail_set_id(); its cgroups are called so */
    unsigned uid;
    unsigned gid;
    char *jailer;            /* NULL: "jailer" on PATH */
    char *netns;             /* sandbox_jail_netns(); NULL: the host's */
    unsigned cgroup_version; /* 1 or 2; 0: what is mounted at /sys/fs/cgroup */
    struct record_texts cgroups;
};

/** sandbox_jail_fields - of a record */
extern const struct record_field sandbox_jail_fields[];

/** sandbox_jail_set_user() - "UID" or "UID:GID", numbers other than 0. Return: 0 or a negative errno with a text */
int sandbox_jail_set_user(struct sandbox_jail *jail, const char *text);

/** sandbox_jail_set_jailer() - a name on PATH, or a path. Return: 0 or a negative errno with a text */
int sandbox_jail_set_jailer(struct sandbox_jail *jail, const char *program);

/** sandbox_jail_set_netns() - an absolute path; "{name}" in it is for the sandbox's name. Return: 0 or -errno with a text */
int sandbox_jail_set_netns(struct sandbox_jail *jail, const char *path);

/** sandbox_jail_add_cgroup() - "KEY=VALUE", such as memory.max=1073741824. Return: 0 or a negative errno with a text */
int sandbox_jail_add_cgroup(struct sandbox_jail *jail, const char *setting);

/** sandbox_jail_set_id() - one that no other jail has: from the sandbox's name. Return: 0 or a negative errno with a text */
int sandbox_jail_set_id(struct sandbox_jail *jail, const char *name);

/** sandbox_jail_netns() - of the sandbox @name, which has one. Return: 0 or -ENAMETOOLONG with a text */
int sandbox_jail_netns(const struct sandbox_jail *jail, const char *name, char *buf, size_t len);

/** sandbox_jail_copy() - all but the id. @to: zeroed. Return: 0 or -ENOMEM with a text; sandbox_jail_deinit() it in either case */
int sandbox_jail_copy(struct sandbox_jail *to, const struct sandbox_jail *from);

void sandbox_jail_deinit(struct sandbox_jail *jail);

#endif
