/* SPDX-License-Identifier: Apache-2.0 */
/*
 * landlock.c - files a pager can still reach by name
 *
 * What it has open stays open: Landlock judges the opening, not the use. So the memory file needs no rule, and neither do
 * the log and the socket, which has been removed by now. Three things are done by name later in a pager's life, and these are
 * the rules: the state file is removed, the statistics replace the file of the last time, and so does a recorded working set.
 *
 * A rule is about a folder and everything beneath it; Landlock has no smaller one for a file that does not exist yet.
 *
 * Later versions can take away more (docs in Linux, userspace-api/landlock.rst). What the kernel does not know is left out.
 * Signals are not scoped: that would take away the right to kill the VMM.
 */
#include "pager/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"

#define MAY_REMOVE COMPAT_LANDLOCK_FS_REMOVE_FILE
/* mkostemp() opens for reading and writing; a file that is replaced counts as removed */
#define MAY_WRITE                                                                                 \
    (COMPAT_LANDLOCK_FS_MAKE_REG | COMPAT_LANDLOCK_FS_WRITE_FILE | COMPAT_LANDLOCK_FS_READ_FILE | \
     COMPAT_LANDLOCK_FS_REMOVE_FILE)

/* #syscalls:start landlock_create_ruleset landlock_add_rule landlock_restrict_self */
int landlock_version(void)
{
    int v = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, COMPAT_LANDLOCK_VERSION);

    return v < 0 ? -errno : v;
}

static struct compat_landlock_ruleset all_that(int version)
{
    /* An older kernel takes a longer struct if what it does not know is zero. */
    struct compat_landlock_ruleset r = {.handled_fs = COMPAT_LANDLOCK_FS_ALL_1};

    if (version >= 2)
        r.handled_fs |= COMPAT_LANDLOCK_FS_REFER;
    if (version >= 3)
        r.handled_fs |= COMPAT_LANDLOCK_FS_TRUNCATE;
    if (version >= 4)
        r.handled_net = COMPAT_LANDLOCK_NET_ALL;
    if (version >= 5)
        r.handled_fs |= COMPAT_LANDLOCK_FS_IOCTL_DEV;
    if (version >= 6)
        r.scoped = COMPAT_LANDLOCK_SCOPE_ABSTRACT_UNIX;
    return r;
}

static int add_rule(int ruleset, int fd, const char *what, uint64_t allowed)
{
    const struct compat_landlock_path rule = {.allowed = allowed, .parent_fd = fd};

    if (syscall(SYS_landlock_add_rule, ruleset, COMPAT_LANDLOCK_PATH_BENEATH, &rule, 0) < 0)
        return err_origin_errno(-errno, "cannot keep folder %s for this process (Landlock)", what);
    return 0;
}

/* #syscalls:start openat open */
static int allow_beneath(int ruleset, const char *dir, uint64_t allowed)
{
    _cleanup_fd_ int fd = -1;

    if (!dir)
        return 0;
    fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_origin_errno(-errno, "cannot open folder %s", dir);
    return add_rule(ruleset, fd, dir, allowed);
}

int landlock_restrict(int version, const char *remove_dir, const char *const write_dirs[2],
                      int read_dir)
{
    struct compat_landlock_ruleset all = all_that(version);
    _cleanup_fd_ int ruleset = -1;
    int r;

    ruleset = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);
    if (ruleset < 0)
        return err_origin_errno(-errno, "cannot make a Landlock ruleset");
    r = allow_beneath(ruleset, remove_dir, MAY_REMOVE);
    for (unsigned i = 0; write_dirs && i < 2 && r == 0; i++)
        r = allow_beneath(ruleset, write_dirs[i], MAY_WRITE);
    if (r == 0 && read_dir >= 0)
        r = add_rule(ruleset, read_dir, "/proc/PID/task", COMPAT_LANDLOCK_FS_READ_FILE);
    if (r < 0)
        return r;
    if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
        return err_origin_errno(-errno, "cannot restrict this process with Landlock");
    return 0;
}
