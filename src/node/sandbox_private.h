/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_SANDBOX_PRIVATE_H
#define NODE_SANDBOX_PRIVATE_H

/*
 * sandbox_private.h - what the files of sandbox.h share
 *
 *     sandbox.c             finding one, its lock, its names, what it was made from
 *     sandbox_spec.c        what its VMM is started with, in what jail
 *     sandbox_start.c       the folder of a VM is made, and the VM starts in it: run, resume
 *     sandbox_pause.c       a running VM becomes files
 *     sandbox_reconcile.c   record and reality are brought together
 *     sandbox_end.c         kill, remove
 *     sandbox_fork.c        another one of the same files
 */

#include <limits.h>

#include "image/store.h"
#include "node/instance.h"
#include "node/sandbox.h"

#define SANDBOX_VM     "vm"
#define SANDBOX_MISSED "vm/missed" /* what its pager has recorded: see layer_hot.h */
#define SANDBOX_LOGS   "logs"
#define SANDBOX_JAIL   "jail" /* in vm/ */

/** struct sandbox_spec - what its VMM is started with; the texts are borrowed of the sandbox */
struct sandbox_spec {
    struct vmm_spec vmm;
    struct vmm_jail jail; /* if @vmm has one */
    char base[PATH_MAX];
    char netns[PATH_MAX];
};

/** sandbox_spec() - of one that was read; @out may not be moved. Return: 0 or a negative errno with a text */
int sandbox_spec(const struct sandbox *s, struct sandbox_spec *out);

/**
 * sandbox_check_jail() - can there be such a jail here, for a VMM of this template? Asked before anything is made
 * @jail: NULL: none
 *
 * Return: 0 or a negative errno with a text: -EPERM: we are not root
 */
int sandbox_check_jail(const struct sandbox_jail *jail, const struct template *t);

/** sandbox_make_jail() - the folder for it, in a vm/ that is there. Return: 0 or a negative errno with a text */
int sandbox_make_jail(const struct sandbox_spec *spec);

/** sandbox_leave_jail() - nothing is left of it; its VMM has ended. Return: 0, also if there is none, or -errno with a text */
int sandbox_leave_jail(struct sandbox *s);

/** sandbox_path() - of something in the sandbox's folder. Return: 0 or -ENAMETOOLONG with a text */
int sandbox_path(const struct sandbox *s, char *buf, size_t len, const char *name);

/** sandbox_paused_path() - the folder of pause @generation, or one that is being made of it. Return: as above */
int sandbox_paused_path(const struct sandbox *s, char *buf, size_t len, unsigned generation,
                        bool unfinished);

/** sandbox_image_name() - of pause @generation. Return: @buf */
const char *sandbox_image_name(const struct sandbox *s, unsigned generation,
                               char buf[STORE_NAME_MAX]);

/** sandbox_lock() - the folder of a sandbox. @fd: (give). Return: 0; -ENOENT; -EBUSY; -EINVAL: no such name; others; with a text */
int sandbox_lock(const char *store, const char *name, unsigned lock_ms, int *fd);

/** sandbox_new() - one whose folder is there and locked. @lock_fd: (take). Return: (give) NULL: no memory, and a text */
struct sandbox *sandbox_new(const char *store, const char *name, int lock_fd);

/** sandbox_commit() - a step, on disk. On an error the state is what it was. Return: 0 or a negative errno with a text */
int sandbox_commit(struct sandbox *s, enum sandbox_state to);

/** sandbox_commit_dead() - the same, to DEAD; @why: one line */
int sandbox_commit_dead(struct sandbox *s, const char *why);

/** sandbox_serve_spec() - what its pager is told. @image: (borrow) of s */
struct instance_spec sandbox_serve_spec(const struct sandbox *s);

/** sandbox_instance() - its processes, as far as they live; none of another boot. @out: (give) instance_forget() it */
int sandbox_instance(struct sandbox *s, struct instance *out);

/** sandbox_end_instance() - end its processes. Return: 0, or a negative errno with a text: then its files must stay */
int sandbox_end_instance(struct sandbox *s);

/** sandbox_drop_vm() - the folder of its VM, which has ended, goes away; its logs are kept. Return: 0 or -errno with a text */
int sandbox_drop_vm(struct sandbox *s);

/** sandbox_drop_paused() - what pause @generation has left, whole or not. Return: 0 or a negative errno with a text */
int sandbox_drop_paused(struct sandbox *s, unsigned generation);

/** sandbox_drop_image() - the name of pause @generation. Return: 0 or a negative errno with a text */
int sandbox_drop_image(struct sandbox *s, unsigned generation);

/** sandbox_collect() - free what no image needs any more, unless somebody is at work on the store: then the next one does it */
void sandbox_collect(const struct sandbox *s);

/**
 * sandbox_start() - make the folder of a VM, load and run it
 * @from: the folder that has vmstate and rootfs
 *
 * Return: 0 or a negative errno with a text; then no process is left
 */
int sandbox_start(struct sandbox *s, const char *from, unsigned deadline_ms);

/**
 * sandbox_create() - a folder in its place, with a record that says `starting`
 * @out:    (give)
 * @record: (borrow) what is in it but for name, state and times
 * @t:      what it is made from
 * @from:   the folder with the template's record and what it was booted with
 * @name:   NULL: one is invented
 *
 * Return: 0 or a negative errno with a text: -EEXIST: there is one of that name
 */
int sandbox_create(struct sandbox **out, const char *store, struct sandbox_record *record,
                   const struct template *t, const char *from, const char *name);

/** sandbox_read() - what its folder says of it. Return: 0 or a negative errno with a text */
int sandbox_read(struct sandbox *s, const char *name);

/** sandbox_driver() - of one that was read */
const struct vmm_driver *sandbox_driver(const struct sandbox *s);

/** sandbox_erase() - its names and its folder go away; no process is left. Return: 0 or a negative errno with a text */
int sandbox_erase(struct sandbox *s);

/** sandbox_sweep() - what dead makers and removers have left under hidden names: no process lives there */
int sandbox_sweep(const char *store);

/** sandbox_reconcile() - see sandbox.h. Return: 0; -ENOENT: nothing of it is left; others; with a text */
int sandbox_reconcile(struct sandbox *s);

/** sandbox_take_back() - a pause that was not acknowledged: the guest goes on, or it has died. @in: its processes */
int sandbox_take_back(struct sandbox *s, struct instance *in);

/** sandbox_clear_paused() - it is paused: what is still there of its VM, and of other pauses, goes away */
int sandbox_clear_paused(struct sandbox *s, struct instance *in);

/** sandbox_back_to_paused() - a resume that failed: what was started ends; the pause has not changed */
int sandbox_back_to_paused(struct sandbox *s, struct instance *in);

/** sandbox_require() - is it in this state? Return: 0 or -EINVAL with a text that says what it is in. @to: "be paused" */
int sandbox_require(const struct sandbox *s, enum sandbox_state state, const char *to);

#endif
