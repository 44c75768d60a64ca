/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_CONFINED_ATTEMPTS_H
#define TESTS_CONFINED_ATTEMPTS_H

/* confined_attempts.h - what test_confined.c tries in a confined process, and what each must come to */

#include "base/base.h"
#include "pager/peer.h"

/** struct attempt - something to try */
struct attempt {
    const char *what;
    long (*fn)(void); /* < 0: it failed, errno says how */
    int expected;     /* the errno it must fail with; 0: it must work */
};

/** struct confined_rig - what the attempts are about */
extern struct confined_rig {
    char dir[64];     /* the test's own folder */
    char kept[80];    /* files may be written in it */
    char state[80];   /* files may be removed in it */
    char outside[80]; /* neither */
    struct peer vmm;  /* a process that waits */
    int control_fd;   /* an eventfd */
    int tasks_fd;     /* the folder of the VMM's threads, if it is to be kept; -1 */
} rig;

extern const struct attempt attempts_at_files[];
extern const unsigned n_attempts_at_files;
extern const struct attempt attempts_at_tasks[];
extern const unsigned n_attempts_at_tasks;
extern const struct attempt attempts_without_tasks[];
extern const unsigned n_attempts_without_tasks;
extern const struct attempt attempts_at_files_by_landlock[]; /* without a filter */
extern const unsigned n_attempts_at_files_by_landlock;
extern const struct attempt attempts_at_processes[];
extern const unsigned n_attempts_at_processes;
extern const struct attempt attempts_at_the_kernel[];
extern const unsigned n_attempts_at_the_kernel;

/** in() - the name of a file in a folder; valid until the next call with the same @slot, 0 to 3 */
const char *in(unsigned slot, const char *folder, const char *name);

long start_thread(void);
long unix_socket(void);
long tcp_socket(void);
long tcp_connection(void);

#endif
