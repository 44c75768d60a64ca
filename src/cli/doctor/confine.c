/* SPDX-License-Identifier: Apache-2.0 */
/* confine.c - whether a pager can give away what it does not need; tried in a child, because it cannot be had back */
#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/doctor/doctor.h"
#include "pager/landlock.h"
#include "pager/syscall_filter.h"

#define TRIAL_MS 3000u

enum confined {
    CONFINED_WELL,
    CONFINED_NOT_AT_ALL, /* the kernel refused it */
    CONFINED_IN_VAIN,    /* what should be forbidden was not */
    CONFINED_BY_OTHERS,  /* a sanitizer's calls come in between */
};

static int no_new_privs(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static int landlock_try(void)
{
    _cleanup_fd_ int fd = -1;

    if (no_new_privs() < 0 || landlock_restrict(landlock_version(), NULL, NULL, -1) < 0)
        return CONFINED_NOT_AT_ALL;
    fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 && errno == EACCES ? CONFINED_WELL : CONFINED_IN_VAIN;
}

void doctor_landlock(struct doctor_finding *f)
{
    int version = landlock_version();

    if (version < 0) {
        doctor_found(
            f, DOCTOR_WARN,
            "this kernel has no Landlock: a pager can reach all files of its user by name");
        doctor_advise(f, "Use a kernel built with CONFIG_SECURITY_LANDLOCK (5.13 or later) and "
                         "with landlock among its security modules (lsm=), and allow the calls in "
                         "the seccomp filter, if there is one");
    } else if (doctor_in_child(landlock_try, TRIAL_MS) == CONFINED_WELL) {
        doctor_found(f, DOCTOR_OK, "version %d: a pager gives up access to files%s", version,
                     version >= 4 ? " and to TCP" : "");
    } else {
        doctor_found(f, DOCTOR_WARN, "version %d, and a process could not be restricted", version);
    }
}

static int seccomp_try(void)
{
    int r = no_new_privs() < 0 ? -EPERM : syscall_filter_load(NULL, NULL, -1);
    int last_nr;

    if (r == SYSCALL_FILTER_E_BUILD)
        return CONFINED_BY_OTHERS;
    if (r != 0)
        return CONFINED_NOT_AT_ALL;
    r = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return r < 0 && errno == EPERM && syscall_filter_refused(&last_nr) == 1 ? CONFINED_WELL
                                                                            : CONFINED_IN_VAIN;
}

void doctor_seccomp(struct doctor_finding *f)
{
    switch (doctor_in_child(seccomp_try, TRIAL_MS)) {
    case CONFINED_WELL:
        doctor_found(f, DOCTOR_OK, "a pager gives up all system calls that it does not need");
        break;
    case CONFINED_BY_OTHERS:
        doctor_found(f, DOCTOR_WARN,
                     "this program was built for a sanitizer, which needs more "
                     "system calls than a pager: they are not filtered");
        break;
    default:
        doctor_found(f, DOCTOR_WARN, "a process could not be limited to some system calls");
        doctor_advise(f, "Use a kernel built with CONFIG_SECCOMP_FILTER, and allow seccomp(2) in "
                         "the container's or service's settings");
    }
}
