/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_DOCTOR_DOCTOR_H
#define CLI_DOCTOR_DOCTOR_H

/*
 * doctor.h - the checks of `thaw doctor`
 *
 * A check finds out one thing by doing it, not by reading what ought to be, and writes what it
 * found and what to do about it. Checks are independent of each other: any may be left out, and
 * none relies on another's result.
 */

#include "base/base.h"

/** enum doctor_state - how much a finding matters */
enum doctor_state {
    DOCTOR_OK,
    DOCTOR_WARN,    /* VMs can be served; something is slower, missing or misleading */
    DOCTOR_MISSING, /* no VM can be served before this is mended */
    N_DOCTOR_STATES
};

/** struct doctor_finding - what one check has to say; zeroed before the check */
struct doctor_finding {
    enum doctor_state state;
    char found[512];
    char advice[512]; /* what to do; "" if nothing needs to be done */
};

/** doctor_found() - write @f->state and @f->found */
void doctor_found(struct doctor_finding *f, enum doctor_state state, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

/** doctor_advise() - write @f->advice, one or more full sentences without the last full stop */
void doctor_advise(struct doctor_finding *f, const char *fmt, ...) PRINTF_LIKE(2, 3);

/**
 * doctor_in_child() - run @fn in a child process that is killed at a deadline
 * @fn:  returns 0..100
 *
 * Return: what @fn returned; -ETIMEDOUT; -ECHILD when it died otherwise; or a negative errno (no
 * texts).
 */
int doctor_in_child(int (*fn)(void), unsigned deadline_ms);

/* userfaultfd: uffd.c */
void doctor_userfaultfd(struct doctor_finding *f);
void doctor_features(struct doctor_finding *f);
void doctor_page_fault(struct doctor_finding *f);
void doctor_kernel_fault(struct doctor_finding *f);
void doctor_discard(struct doctor_finding *f);
void doctor_write_tracking(struct doctor_finding *f);
void doctor_huge_pages(struct doctor_finding *f);

/* memory and limits: host.c */
void doctor_kernel(struct doctor_finding *f);
void doctor_swap(struct doctor_finding *f);
void doctor_thp(struct doctor_finding *f);
void doctor_memory(struct doctor_finding *f);
void doctor_open_files(struct doctor_finding *f);
void doctor_locked_memory(struct doctor_finding *f);
void doctor_memory_maps(struct doctor_finding *f);
void doctor_cpu_idle(struct doctor_finding *f);
void doctor_run_directory(struct doctor_finding *f);

/* other processes and virtual machines: rights.c */
void doctor_kvm(struct doctor_finding *f);
void doctor_pidfd(struct doctor_finding *f);
void doctor_take_over(struct doctor_finding *f);

/* what a pager gives away: confine.c */
void doctor_landlock(struct doctor_finding *f);
void doctor_seccomp(struct doctor_finding *f);

#endif
