/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_FOLDER_H
#define NODE_FOLDER_H

/*
 * folder.h - folders that are there whole or not at all, and locks on them
 *
 * A folder of templates or sandboxes has one folder for each of its things, which has the thing's name. A thing is made under a
 * hidden name, synced, and then renamed. Whoever makes it holds a lock on it, so a hidden folder that nobody has locked is what
 * a dead maker has left, and goes away when the next thing is made.
 *
 *     STORE/templates/base              there, and whole
 *     STORE/templates/.base.812.0       locked: is being made, or removed. Not locked: rubbish
 *
 * Locks are flock(2) on the folder itself, and are dropped when their owner dies. A lock says nothing of a name: after it was
 * taken the name is looked at again, since the folder may have been removed meanwhile.
 */

#include "base/base.h"

/** folder_make() - @path/@name, and @path itself, if they are not there; mode 0700. Return: 0 or a negative errno with a text */
int folder_make(const char *path, const char *name);

/** enum folder_lock - who else may hold it */
enum folder_lock {
    FOLDER_SHARED, /* others who use it */
    FOLDER_ALONE,  /* nobody */
};

/**
 * folder_lock() - hold a folder; it is let go when @fd is closed
 * @fd: (give)
 *
 * Return: 0; -ENOENT if there is no such folder; -EBUSY if somebody holds it until @timeout_ms is over; others; with a text
 */
int folder_lock(const char *path, enum folder_lock how, unsigned timeout_ms, int *fd);

/** struct folder_new - a folder that is being made */
struct folder_new {
    char *parent;
    char *name;
    char *path; /* where it is at the moment */
    int fd;     /* holds the lock */
    bool placed;
};

/**
 * folder_new_init() - an empty one under a hidden name, locked
 * @f:      (give) folder_new_deinit() it
 * @parent: is there
 *
 * Return: 0; -EEXIST if there is a folder @name; others; with a text
 */
int folder_new_init(struct folder_new *f, const char *parent, const char *name);

/**
 * folder_new_place() - all that is in it is synced, and it gets its name
 *
 * Return: 0; -EEXIST if there is one of that name now; others; with a text. On an error it has its hidden name
 */
int folder_new_place(struct folder_new *f);

/** folder_new_leave() - something lives in it that could not be ended: it stays until folder_sweep() can end it */
void folder_new_leave(struct folder_new *f);

/** folder_new_deinit() - let go of the lock; without its name it goes away with all that is in it */
void folder_new_deinit(struct folder_new *f);

/**
 * folder_remove() - it loses its name first, then it goes away with all that is in it
 * @fd: (borrow) its lock, held alone
 *
 * Return: 0 or a negative errno with a text; -EIO: a part of it is left, under a hidden name
 */
int folder_remove(const char *parent, const char *name, int fd);

/**
 * folder_sweep() - remove what dead makers have left
 * @end: called for each before it is removed: processes that live in it must end; NULL: nothing lives there. Not 0: it stays
 *
 * Return: 0 or a negative errno with a text
 */
int folder_sweep(const char *parent, int (*end)(void *ctx, const char *path), void *ctx);

/** struct folder_list - names, sorted; hidden ones are left out */
struct folder_list {
    char **names;
    size_t n;
};

/** folder_list() - what is in it; nothing if it is not there. @out: (give) folder_list_deinit() it */
int folder_list(const char *parent, struct folder_list *out);

void folder_list_deinit(struct folder_list *list);

#endif
