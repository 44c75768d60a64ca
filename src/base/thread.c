/* SPDX-License-Identifier: Apache-2.0 */
#include "base/thread.h"

#include <signal.h>

/* #syscalls:start clone3 clone */
int thread_start(pthread_t *out, size_t stack_bytes, void *(*main)(void *arg), void *arg)
{
    pthread_attr_t attr;
    sigset_t all;
    sigset_t old;
    int r;

    sigfillset(&all);
    sigdelset(&all, SIGSYS);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, stack_bytes);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(out, &attr, main, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return -r;
}
