/* SPDX-License-Identifier: Apache-2.0 */
/* fc_exit.c - Firecracker's exit statuses (FcExitCode in its sources), said for people */
#include <stddef.h>

#include "vmm/driver_private.h"

const char *fc_exit_meaning(int status)
{
    switch (status) {
    case 0:
        return "the guest has ended";
    case 148:
        return "a system call that its seccomp filter does not allow";
    case 149:
        return "SIGBUS, as when there is no huge page left";
    case 150:
        return "SIGSEGV";
    case 151:
        return "a file became too large (SIGXFSZ)";
    case 152:
        return "a wrong configuration";
    case 153:
        return "a wrong command line";
    case 154:
        return "too much processor time (SIGXCPU)";
    case 155:
        return "SIGPIPE";
    case 156:
        return "SIGHUP";
    case 157:
        return "SIGILL";
    default:
        return NULL;
    }
}
