/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_IMAGE_JOB_H
#define IMAGE_IMAGE_JOB_H

/*
 * image_job.h - what long work on an image is given besides its subject: threads, and somebody who watches
 *
 * The watcher is called on the calling thread, ten times a second and when a part of the work begins and ends.
 */

#include <stdatomic.h>

#include "base/parallel.h"

/** struct image_job - how work is done */
struct image_job {
    unsigned n_threads; /* 1 to PARALLEL_THREADS_MAX */
    /*
     * @what:  the part of the work that it is at, such as "packing"
     * @done:  bytes, of @all
     *
     * Return: 0, or a negative errno with a text: the work ends with that. NULL: nobody watches
     */
    int (*watch)(void *ctx, const char *what, uint64_t done, uint64_t all);
    void *ctx;
};

/** struct image_part - a part of the work, on its way */
struct image_part {
    const struct image_job *job;
    const char *what;
    uint64_t all;
    _Atomic uint64_t done; /* added to by all threads */
};

/** image_part_tell() - call the watcher. Return: what it said */
static inline int image_part_tell(struct image_part *part)
{
    return part->job->watch
               ? part->job->watch(part->job->ctx, part->what, atomic_load(&part->done), part->all)
               : 0;
}

#endif
