/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

/*
 * thread.h - helpers of the thread that serves
 */

#include <pthread.h>

#include "base/base.h"

/**
 * thread_start() - a thread with a small stack that no signal is delivered to but its own
 * @out: (give) to pthread_join()
 *
 * Signals are for the thread that called. SIGSYS is of the thread itself: see pager/syscall_filter.c.
 * Return: 0 or a negative errno (no text).
 */
int thread_start(pthread_t *out, size_t stack_bytes, void *(*main)(void *arg), void *arg);

#endif
