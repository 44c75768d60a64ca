/* SPDX-License-Identifier: Apache-2.0 */
/*
 * confine.c - users, capabilities, limits, and the order of it all
 *
 * Capabilities go in two steps. First the effective set is emptied, while the permitted set keeps the way back. Then the
 * kernel is asked whether the VMM may still be killed. If not, CAP_KILL comes back and it is asked again. Only then are all
 * sets cut down to what turned out to be needed: nothing, or CAP_KILL. Another user comes about in the same way: the saved
 * user id keeps the way back until the VMM has been tried.
 *
 * What can go wrong is found before a VMM's memory depends on it where that is possible: confine_check() does without
 * capabilities for a moment, or becomes the other user in a child process, and tries the folders.
 */
#include "pager/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "pager/landlock.h"
#include "pager/syscall_filter.h"

#define KILL_BIT (1ull << CAP_KILL)
#define SPARE_FILES \
    32 /* a pager opens three more after the handshake, and one for its statistics */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define SANITIZED 1
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#        define SANITIZED 1
#    endif
#endif
#ifndef SANITIZED
#    define SANITIZED 0 /* 1: the sanitizer reads /proc, traces this process, starts programs */
#endif

/* ---- capabilities --------------------------------------------------------------------------------------------- */

/* struct caps - the sets of a thread as bits, 1 << CAP_* */
struct caps {
    uint64_t effective;
    uint64_t permitted;
    uint64_t inheritable;
};

/* #syscalls:start capget capset */
static int caps_get(struct caps *c)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    if (syscall(SYS_capget, &head, data) < 0)
        return err_origin_errno(-errno, "cannot tell which capabilities this process has");
    c->effective = data[0].effective | (uint64_t)data[1].effective << 32;
    c->permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
    c->inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
    return 0;
}

static int caps_set(const struct caps *c)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)c->effective, (uint32_t)c->permitted, (uint32_t)c->inheritable},
        {(uint32_t)(c->effective >> 32), (uint32_t)(c->permitted >> 32),
         (uint32_t)(c->inheritable >> 32)},
    };

    if (syscall(SYS_capset, &head, data) < 0)
        return err_origin_errno(-errno, "cannot give up capabilities");
    return 0;
}

/* caps_hide() - empty the effective set; *now says what is left, *before what caps_set() brings back */
static int caps_hide(struct caps *before, struct caps *now)
{
    int r = caps_get(before);

    if (r < 0)
        return r;
    *now = *before;
    now->effective = 0;
    return caps_set(now);
}

/* drop_bounding() - no program that is started can have capabilities; with no_new_privs a second lock on the same door */
/* #syscalls:start prctl */
static void drop_bounding(void)
{
    for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        (void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); /* needs CAP_SETPCAP */
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

/*
 * try_without() - empty the effective set as far as the VMM can still be killed. The permitted set stays
 * @kept: what had to stay
 *
 * Return: 0, or a negative errno with a text; all capabilities are effective again then.
 */
static int try_without(const struct peer *vmm, uint64_t *kept)
{
    struct caps before = {0};
    struct caps now;
    int can_stop;
    int r = caps_hide(&before, &now);

    if (r < 0)
        return r;
    can_stop = peer_can_stop(vmm);
    if (can_stop < 0 && (before.permitted & KILL_BIT)) {
        now.effective = KILL_BIT;
        r = caps_set(&now);
        if (r < 0)
            return r;
        can_stop = peer_can_stop(vmm);
    }
    *kept = now.effective;
    if (can_stop == 0)
        return 0;
    (void)caps_set(&before);
    return err_origin_errno(
        can_stop,
        "the VMM, process %d of user %u, could not be stopped by user %u without capabilities",
        vmm->pid, vmm->uid, geteuid());
}

static int keep_only(uint64_t kept)
{
    const struct caps c = {.effective = kept, .permitted = kept};

    return caps_set(&c);
}

/* ---- another user --------------------------------------------------------------------------------------------- */

/* become() - the user of the plan; @saved is the saved user id, a way back. Return: false: errno says why not */
/* #syscalls:start geteuid getegid setgroups setresgid setresuid */
static bool become(const struct confine_plan *c, uid_t saved)
{
    return setgroups(0, NULL) == 0 && setresgid(c->gid, c->gid, c->gid) == 0 &&
           setresuid(c->uid, c->uid, saved) == 0;
}

int confine_identity(const struct confine_plan *c, const struct peer *vmm)
{
    uid_t before = geteuid();
    uint64_t kept = 0;
    int r;

    if (c->uid == 0)
        return 0;
    if (c->on)
        drop_bounding();
    if (!become(c, before))
        return err_origin_errno(-errno, "cannot become user %u, group %u", c->uid, c->gid);
    r = try_without(vmm, &kept);
    if (r < 0) {
        (void)setresuid(before, before, before);
        return r;
    }
    /* The permitted set goes with the last user id that is root's, unless it is to be kept. */
    if (prctl(PR_SET_KEEPCAPS, kept != 0, 0, 0, 0) < 0 || setresuid(c->uid, c->uid, c->uid) < 0)
        return err_origin_errno(-errno, "cannot become user %u", c->uid);
    (void)prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    return keep_only(kept);
}

/* ---- the rest ------------------------------------------------------------------------------------------------- */

/* limit_files() - room for a few more descriptors; which numbers are taken does not matter */
/* #syscalls:start fcntl prlimit64 */
static void limit_files(void)
{
    int fds[SPARE_FILES];
    struct rlimit limit;
    int n = 0;
    int highest = 0;

    while (n < SPARE_FILES && (fds[n] = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)) >= 0)
        highest = fds[n++];
    if (n == SPARE_FILES && getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
        (rlim_t)highest + 1 < limit.rlim_cur) {
        limit.rlim_cur = (rlim_t)highest + 1;
        limit.rlim_max = limit.rlim_cur;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    while (n > 0)
        (void)fd_close(fds[--n]);
}

static void limit_resources(void)
{
    const struct rlimit none = {0};

    (void)setrlimit(RLIMIT_CORE, &none);
    limit_files();
    /* Others of the same user, the VMM among them, may not look into this process or take its descriptors. */
    if (!SANITIZED)
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static int restrict_files(const struct confine_plan *c, int *version)
{
    *version = landlock_version();
    if (*version < 0 || SANITIZED)
        return 0;
    return landlock_restrict(*version, c->state_dir, c->write_dirs, c->tasks_fd);
}

static void log_confined(const struct confine_plan *c, int landlock, uint64_t kept)
{
    char version[16] = "";

    if (landlock > 0)
        (void)snprintf(version, sizeof(version), "%d", landlock);
    log_line(c->log, THAW_LOG_INFO, "msg=\"confined\" uid=%u gid=%u capabilities=%s landlock=%s",
             geteuid(), getegid(), kept ? "kill" : "none",
             SANITIZED      ? "\"off: built for a sanitizer\""
             : landlock > 0 ? version
                            : "\"off: this kernel has none\"");
}

int confine_privileges(const struct confine_plan *c, const struct peer *vmm)
{
    uint64_t kept = 0;
    int version = 0;
    int r;

    if (!c->on)
        return 0;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_origin_errno(-errno, "cannot give up new privileges");
    drop_bounding();
    r = try_without(vmm, &kept);
    if (r == 0)
        r = restrict_files(c, &version);
    if (r == 0)
        r = keep_only(kept);
    if (r < 0)
        return r;
    limit_resources();
    log_confined(c, version, kept);
    return 0;
}

/* ---- system calls --------------------------------------------------------------------------------------------- */

/* The statistics are written soon, and confine_report() is called with them: a handler cannot log. */
static void ask_for_report(void *ctx)
{
    control_ask(ctx, THAW_REQUEST_STATS);
}

int confine_syscalls(const struct confine_plan *c)
{
    int r;

    if (!c->on)
        return 0;
    r = syscall_filter_load(ask_for_report, c->control, c->tasks_fd);
    if (r < 0)
        return r;
    if (r == SYSCALL_FILTER_E_ABSENT)
        log_line(c->log, THAW_LOG_INFO, "msg=\"system calls are not filtered\" why=\"no seccomp\"");
    if (r == SYSCALL_FILTER_E_BUILD)
        log_line(c->log, THAW_LOG_INFO,
                 "msg=\"system calls are not filtered\" why=\"built for a sanitizer\"");
    return 0;
}

void confine_report(const struct log_sink *log)
{
    static unsigned reported; /* the filter is the process's, and so is this */
    int last_nr;
    unsigned n = syscall_filter_refused(&last_nr);

    if (__atomic_exchange_n(&reported, n, __ATOMIC_RELAXED) != n)
        log_line(log, THAW_LOG_ERROR,
                 "msg=\"system calls were refused\" calls=%u last_number=%d "
                 "hint=\"an attack, or a mistake in thaw: please report it\"",
                 n, last_nr);
}

/* ---- before a VMM is there ------------------------------------------------------------------------------------ */

/* enum trial - what was found out */
enum trial {
    TRIAL_GOOD,
    TRIAL_NO_USER,
    TRIAL_NO_STATE_DIR,
    TRIAL_NO_WRITE_DIR, /* the first one */
    TRIAL_NO_WRITE_DIR_2,
    TRIAL_DIED,
};

/* may_write() - asks the kernel: who may is a matter of more than mode bits */
/* #syscalls:start faccessat2 */
static bool may_write(const char *dir)
{
    return !dir || faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) == 0;
}

static enum trial try_folders(const struct confine_plan *c)
{
    if (!may_write(c->state_dir))
        return TRIAL_NO_STATE_DIR;
    if (!may_write(c->write_dirs[0]))
        return TRIAL_NO_WRITE_DIR;
    return may_write(c->write_dirs[1]) ? TRIAL_GOOD : TRIAL_NO_WRITE_DIR_2;
}

/* try_as_we_are() - with the capabilities of this thread out of the way for a moment */
static int try_as_we_are(const struct confine_plan *c)
{
    struct caps before = {0};
    struct caps now;
    enum trial t;
    int r = caps_hide(&before, &now);

    if (r < 0)
        return r;
    t = try_folders(c);
    r = caps_set(&before);
    return r < 0 ? r : (int)t;
}

/* try_as_other() - in a child, which may be one of a process with threads: no more than system calls happen there */
/* #syscalls:start clone wait4 */
static int try_as_other(const struct confine_plan *c)
{
    const struct caps none = {0};
    int status = 0;
    pid_t child = fork();

    if (child < 0)
        return err_origin_errno(-errno, "cannot try what user %u may do", c->uid);
    if (child == 0) {
        if (!become(c, c->uid))
            _exit(TRIAL_NO_USER);
        (void)caps_set(&none);
        _exit((int)try_folders(c));
    }
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            return err_origin_errno(-errno, "cannot try what user %u may do", c->uid);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : TRIAL_DIED;
}

/* make_state_dir() - for the user that we will be; what is there already stays as it is */
/* #syscalls:start mkdir mkdirat openat fchownat */
static int make_state_dir(const struct confine_plan *c)
{
    _cleanup_fd_ int fd = -1;

    if (!c->state_dir)
        return 0;
    if (mkdir(c->state_dir, 0700) < 0)
        return errno == EEXIST
                   ? 0
                   : err_origin_errno(-errno, "cannot create state directory %s", c->state_dir);
    if (c->uid == 0)
        return 0;
    fd = open(c->state_dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fchownat(fd, "", c->uid, c->gid, AT_EMPTY_PATH) < 0)
        return err_origin_errno(-errno, "cannot give state directory %s to user %u", c->state_dir,
                                c->uid);
    return 0;
}

int confine_check(const struct confine_plan *c)
{
    uid_t uid = c->uid != 0 ? c->uid : geteuid();
    int r;

    if (!c->on && c->uid == 0)
        return 0;
    r = make_state_dir(c);
    if (r < 0)
        return r;
    r = c->uid != 0 ? try_as_other(c) : try_as_we_are(c);
    switch (r) {
    case TRIAL_NO_USER:
        return err_origin(-EPERM, "this process may not become user %u, group %u", c->uid, c->gid);
    case TRIAL_NO_STATE_DIR:
        return err_origin(-EACCES,
                          "user %u without capabilities may not write to state directory %s", uid,
                          c->state_dir);
    case TRIAL_NO_WRITE_DIR:
    case TRIAL_NO_WRITE_DIR_2:
        return err_origin(-EACCES, "user %u without capabilities may not write to folder %s", uid,
                          c->write_dirs[r == TRIAL_NO_WRITE_DIR_2]);
    case TRIAL_DIED:
        return err_origin(-ECHILD, "cannot try what user %u may do: the process that tried died",
                          uid);
    default:
        return r;
    }
}
