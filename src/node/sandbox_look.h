/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_SANDBOX_LOOK_H
#define NODE_SANDBOX_LOOK_H

/*
 * sandbox_look.h - a sandbox as somebody sees it who wants to know how it is
 *
 * To look is to reconcile, if nobody is at work on it. Nothing here waits for a lock, and for a VMM only for a moment: one that does
 * not answer is shown as such, and so is a sandbox whose record is broken.
 */

#include "core/page_state.h"
#include "node/sandbox.h"

#define SANDBOX_UNKNOWN UINT64_MAX

/** enum sandbox_answer - what came of asking the VMM for its balloon */
enum sandbox_answer {
    SANDBOX_NOT_ASKED, /* it does not run, or somebody is at work on it */
    SANDBOX_ANSWERED,
    SANDBOX_NO_ANSWER,
};

/** struct sandbox_view - numbers that nobody knows are SANDBOX_UNKNOWN */
struct sandbox_view {
    char name[SANDBOX_NAME_MAX + 1];
    bool has_record;
    struct sandbox_record record; /* owned */
    char trouble[512];   /* why it could not be looked at, or not all of it; "": it could */
    pid_t vmm_pid;       /* 0: none */
    pid_t pager_pid;     /* of the supervisor; 0: none */
    unsigned memory_mib; /* the guest's; 0: not known */
    uint64_t host_bytes; /* that the VMM holds: anonymous memory and huge pages */
    uint64_t page_bytes;
    uint64_t pages[N_PAGE_STATES]; /* in each state, as the pager has them */
    enum sandbox_answer answer;
    struct vmm_balloon balloon;
    char vsock[4096]; /* the socket that leads to the guest's ports; "": there is none */
};

/**
 * sandbox_look() - @out: (give) sandbox_view_deinit() it
 *
 * Return: 0, also if there was trouble; -ENOENT with a text: there is none of that name, or not any more
 */
int sandbox_look(struct sandbox_view *out, const char *store, const char *name, unsigned answer_ms);

/** struct sandbox_files - where a sandbox's logs are: of its VM, and of the VM before that */
struct sandbox_files {
    char vm[4096];
    char logs[4096];
};

/** sandbox_files() - nothing is locked. Return: 0; -ENOENT: there is none of that name; others; with a text */
int sandbox_files(struct sandbox_files *out, const char *store, const char *name);

void sandbox_view_deinit(struct sandbox_view *v);

#endif
