/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_DIES_H
#define UNIT_DIES_H

/* dies.h - tests of assertions: does a function end the process that runs it? */

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/base.h"

/** dies() - run @fn(@arg) in a child without stderr and core dump. Return: whether an assertion ended the child */
static inline bool dies(void (*fn)(void *arg), void *arg)
{
    int status = 0;
    pid_t child = fork();

    assert(child >= 0);
    if (child == 0) {
        const struct rlimit none = {0};
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGABRT, SIG_DFL);
        (void)dup2(null, STDERR_FILENO);
        fn(arg);
        _exit(0);
    }
    while (waitpid(child, &status, 0) < 0)
        continue;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

#endif
