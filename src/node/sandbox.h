/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_SANDBOX_H
#define NODE_SANDBOX_H

/*
 * sandbox.h - a VM that was made from a template and has a life of its own
 *
 * All that is known of a sandbox is in its folder, so it outlives every command line:
 *
 *     STORE/sandboxes/NAME/
 *         sandbox.json      the record (sandbox_record.h)
 *         template.json     what it was made from, as it was then; with kernel and initrd, so that the template may go
 *         vm/               the folder of the VM and its pager (driver.h, instance.h); only while there is one, and after it
 *                           has died, for its logs
 *         paused.G/         what the G-th pause has written down: vmstate, rootfs
 *         logs/             logs of the VM before the one in vm/
 *
 * Its memory is an image of the store. At first that is the template's; pause G makes the layer `sandbox.NAME.G`. A page that the
 * guest has removed is zero in it.
 *
 * Who changes a sandbox holds the flock(2) of its folder. The record is replaced, durably, before a change begins and when it
 * has been made: a command line that is killed anywhere leaves a record that says what it was at. Whoever gets the lock next
 * brings record and reality together first (sandbox_reconcile.c):
 *
 *     starting    the maker has died: the VMM is killed, then the pager; then all of it goes away
 *     running     with its VMM: if nobody serves it, another pager takes over. Without: dead
 *     pausing     its VMM lives: the guest goes on, as if nothing had been asked. Else: dead
 *     paused      a VMM that is still there is killed: what it was is on disk
 *     resuming    what has been started is killed: paused
 *     dead        nothing is left to be done but to wait for its pager
 *
 * What must never be: a guest that runs twice from one pause, or goes on after its pause was acknowledged; a pause that was
 * acknowledged and is gone. So the record says `paused` after everything is on disk and before the VMM is killed; the guest has not
 * run in between. And paused.G goes away after pause G + 1 is acknowledged, not when it is resumed: a sandbox that has died
 * goes back to it.
 *
 * What a pause costs is what has changed. Layers that lie on one another keep what any of them had: sandbox_pause.c says when it
 * lays the next one on the template's image instead.
 */

#include "image/image_job.h"
#include "node/sandbox_record.h"
#include "node/template.h"
#include "vmm/driver.h"

#define SANDBOX_DEADLINE_MS 60000u /* for each thing that a VMM is asked */
#define SANDBOX_LOCK_MS     30000u /* for whoever works on it */

/** struct sandbox - one that is open and locked: it is for this process to change */
struct sandbox {
    char *store;                  /* owned: the store's folder, absolute */
    char *folder;                 /* owned */
    int lock_fd;                  /* owned: of the folder; holds the lock */
    struct sandbox_record record; /* as it is on disk */
    struct template origin;       /* what it was made from, as it was then */
};

/**
 * struct sandbox_wishes - how it is made; zeroed: as usual
 * @name:      NULL: one is invented
 * @state_dir: of its pagers; NULL: where thaw serve has them by itself
 * @jail:      (borrow) its id is not looked at; NULL: none. Of a fork: what its origin has
 * @deadline_ms: for each step of the start
 */
struct sandbox_wishes {
    const char *name;
    const char *state_dir;
    const struct sandbox_jail *jail;
    unsigned deadline_ms;
};

#define SANDBOX_WISHES_DEFAULT ((struct sandbox_wishes){.deadline_ms = SANDBOX_DEADLINE_MS})

/** enum sandbox_how - how one is opened */
enum sandbox_how {
    SANDBOX_RECONCILED,
    SANDBOX_AS_FOUND, /* to be killed or removed: a VMM that does not answer must not keep anybody from that */
};

/**
 * sandbox_open() - find it, wait for its lock, bring record and reality together
 * @out: (give)
 *
 * Return: 0 or a negative errno with a text: -ENOENT: there is none of that name, or there is none any more now that its maker
 * was found dead; -EBUSY: somebody else is at work on it; -EINVAL: its record is broken
 */
int sandbox_open(struct sandbox **out, const char *store, const char *name, enum sandbox_how how,
                 unsigned lock_ms);

/** sandbox_close() - @s: (take) may be NULL. Return: NULL */
struct sandbox *sandbox_close(struct sandbox *s);

/**
 * sandbox_run() - a new one, from a template: its guest runs when this returns
 * @out: (give)
 *
 * Return: 0 or a negative errno with a text; then nothing is left of it
 */
int sandbox_run(struct sandbox **out, const char *store, const char *template_name,
                const struct sandbox_wishes *wishes);

/**
 * sandbox_pause() - write it down and end its processes. On an error its guest goes on
 * @job: (borrow) how the layer is packed
 *
 * Return: 0 or a negative errno with a text; -EINVAL: it does not run
 */
int sandbox_pause(struct sandbox *s, const struct image_job *job);

/** sandbox_resume() - its guest goes on where it was paused. Return: 0 or a negative errno with a text: it is still paused */
int sandbox_resume(struct sandbox *s, unsigned deadline_ms);

/**
 * sandbox_fork() - another one, paused where @s is
 * @s:      paused
 * @out:    (give)
 *
 * Return: 0 or a negative errno with a text; then nothing is left of it
 */
int sandbox_fork(struct sandbox **out, struct sandbox *s, const struct sandbox_wishes *wishes);

/** sandbox_kill() - end its processes: it is dead. One that is dead is no error, one that is paused is (-EINVAL) */
int sandbox_kill(struct sandbox *s);

/**
 * sandbox_remove() - nothing is left of it
 * @force: also of one that runs
 *
 * Return: 0 or a negative errno with a text: -EBUSY: it runs
 */
int sandbox_remove(struct sandbox *s, bool force);

/**
 * sandbox_remove_broken() - the same, of one whose record cannot be read: what its folder says of processes is killed
 *
 * Return: 0 or a negative errno with a text
 */
int sandbox_remove_broken(const char *store, const char *name);

/**
 * sandbox_vm() - its VMM, which runs
 * @out: (give) vmm_free() it
 *
 * Return: 0 or a negative errno with a text: -EINVAL: the sandbox does not run
 */
int sandbox_vm(struct sandbox *s, struct vmm **out);

/** sandbox_list() - names, sorted. @out: (give) folder_list_deinit() it. Return: 0 or a negative errno with a text */
int sandbox_list(const char *store, struct folder_list *out);

DEFINE_CLEANUP(struct sandbox *, sandbox_close);

#endif
