/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_BURST_H
#define PAGER_BURST_H

/*
 * burst.h - many installs by several threads at once, for the time before a VM runs
 *
 * Two threads install nearly twice as much as one. But an install that overlaps with the reading of a discard can put old
 * bytes where zeroes belong (docs/decisions/0013). So this is no pool of installers beside the pager thread: the pager thread
 * hands out a burst, takes part in it, and does nothing else before all of it is done. As nobody reads the userfaultfd
 * meanwhile, a discard cannot come between the choice of a page and its install: until its message is read the kernel
 * refuses every install. The price is that a fault waits for a whole burst, BURST_BYTES at most. Before the VM runs there
 * are next to none.
 */

#include "uffd/install.h"

#define BURST_OPS   1024u
#define BURST_BYTES (8 * MIB)

/** struct burst_op - one install */
struct burst_op {
    hva_t dst;
    const void *src; /* NULL: the kernel's page of zeroes */
    uint64_t len;
    bool arm;
    struct install_result result; /* once it is done */
};

/** burst_op_do() - one of them, by the calling thread */
struct install_result burst_op_do(int uffd, struct burst_op op);

struct burst;

/**
 * burst_new() - start the threads
 * @out:       (give)
 * @uffd:      (borrow until burst_free())
 * @n_threads: that install, the caller's included
 *
 * Return: 0 or a negative errno with a text.
 */
int burst_new(struct burst **out, int uffd, unsigned n_threads);

/** burst_threads() - how many threads are worth it here: one a processor that this process may use, few at most */
unsigned burst_threads(void);

/** burst_run() - do all of @ops, in no order; the calling thread takes part. Done when it returns */
void burst_run(struct burst *b, struct burst_op *ops, unsigned n);

/** burst_free() - end the threads. @b: (take) may be NULL. Return: NULL */
struct burst *burst_free(struct burst *b);

#endif
