/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UFFD_TRIAL_H
#define UFFD_TRIAL_H

/*
 * trial.h - serve a little memory for real, to know that this host can
 *
 * A child process plays the guest: it maps and registers memory, sends its userfaultfd over a
 * socket as a VMM does, and touches. The caller plays the pager. What the kernel claims
 * (uffd/probe.h) and what it does are two things; a trial is about the second.
 */

#include "base/base.h"

/** enum uffd_trial - what is tried */
enum uffd_trial {
    UFFD_TRIAL_TOUCH,  /* missing pages are touched and filled */
    UFFD_TRIAL_KERNEL, /* a missing page is touched by the kernel (read(2) into it), as KVM does */
    UFFD_TRIAL_REMOVE, /* a page is discarded: that is heard, and it comes back as zeroes */
    UFFD_TRIAL_WRITE,  /* writes are tracked by a range that the pager registers again, with WP */
    UFFD_TRIAL_HUGE,   /* a 2 MiB page is touched and filled; needs one that is free */
};

/**
 * uffd_try() - do @what, with a page fault served by this process
 * @what:        see enum uffd_trial
 * @deadline_ms: how long it may take
 * @touch_ns:    median time of a touch that had to be served; NULL if not wanted
 *
 * Forks; the child is gone on return whatever happens, a thread that waits for a page included. The
 * calling process never touches the memory that is served.
 *
 * Return: 0: everything came as it should. A negative errno with a text otherwise.
 * Errors: as uffd_open(); -ETIMEDOUT; -EPROTO: the kernel answered, and wrongly; -ENOMEM: no huge
 * page.
 */
int uffd_try(enum uffd_trial what, unsigned deadline_ms, uint64_t *touch_ns);

#endif
