/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_PAGER_PRIVATE_H
#define PAGER_PAGER_PRIVATE_H

/*
 * pager_private.h - what the files of a pager share
 *
 *     pager.c      new, accept, free: how it comes to a VM, and lets go of it
 *     pager_run.c  run, supervise: everything between
 */

#include <thaw/thaw.h>

#include "base/log.h"
#include "pager/ahead_plans.h"
#include "pager/confine.h"
#include "pager/control.h"
#include "pager/handshake.h"
#include "pager/recorder.h"
#include "pager/served.h"
#include "pager/session.h"
#include "pager/state_file.h"
#include "pager/wakeup.h"
#include "pager/workers.h"

struct thaw_pager {
    struct thaw_pager_options opts; /* strings and lists in it are owned copies */
    struct log_sink log;
    struct control control;
    struct served served; /* with the option adopt: perhaps not known until accept */
    int listener;
    int ready_fd;    /* owned: a supervised pager says here that it serves; -1: none */
    bool supervised; /* this is a supervisor's child: somebody can follow */
    bool accepted;
    struct handshake hs;
    struct state_file state;
    struct ahead_plans plans;
    struct recorder *recorder; /* NULL: nothing is recorded */
    struct wakeup *wakeup;
    struct workers *workers;
    struct session *session;
    char *record_dir;            /* owned: where the record goes; NULL: nowhere */
    int record_folder;           /* owned: the same, open; -1: none */
    struct confine_plan confine; /* looks into opts */
    uint64_t ahead_slice_bytes;  /* 0: the default */
    thaw_stats_fn *on_stats;
    void *on_stats_ctx;
    void (*on_resume)(void *ctx);
    void *on_resume_ctx;
    void (*on_progress)(void *ctx, const struct thaw_progress *progress);
    void *on_progress_ctx;
};

/** pager_refuse() - the VMM gave us its memory and we cannot serve it: better dead than hung. Return: @error */
int pager_refuse(struct thaw_pager *p, int error);

#endif
