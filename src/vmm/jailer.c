/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/jailer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "vmm/child.h"

#define GROUP_MS     1000u /* for the end of a cgroup's last process to be noticed */
#define GROUP_NAP_NS (2 * NS_PER_MS)
#define OPEN_FOLDER  (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* program_file() - the file that the jailer will copy. @out: (give) absolute, without symbolic links */
static int program_file(const char *program, char **out)
{
    _cleanup_free_ char *found = NULL;
    int r = program_find(program, &found);

    if (r < 0)
        return r;
    *out = realpath(found, NULL);
    return *out ? 0 : err_origin_errno(-errno, "cannot find %s", found);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* make_folders() - those of @path below its first @n_there bytes. They are root's: only the last one is the jailed user's */
static int make_folders(char *path, size_t n_there)
{
    for (char *slash = path + n_there; slash;) {
        int r;

        slash = strchr(slash + 1, '/');
        if (slash)
            *slash = '\0';
        r = mkdir(path, slash ? 0755 : 0700) < 0 && errno != EEXIST ? -errno : 0;
        if (r < 0)
            return err_origin_errno(r, "cannot make the jail's folder %s", path);
        if (slash)
            *slash = '/';
    }
    return 0;
}

/* link_path() - of the link in the VM's folder */
static int link_path(const char *folder, char path[PATH_MAX])
{
    if (snprintf(path, PATH_MAX, "%s/" VMM_FILE_ROOT, folder) >= PATH_MAX)
        return err_origin(-ENAMETOOLONG, "the folder name %s is too long", folder);
    return 0;
}

/* is_root() - does it end with PROGRAM/ID/root, as what we make does? */
static bool is_root(const char *path)
{
    unsigned slashes = 0;
    size_t len = strlen(path);

    for (const char *c = path; *c != '\0'; c++)
        slashes += *c == '/';
    return path[0] == '/' && slashes >= 3 && len > 5 && strcmp(path + len - 5, "/root") == 0;
}

int jail_find(const char *folder, char **out)
{
    char path[PATH_MAX];
    char root[PATH_MAX];
    ssize_t n;
    int r = link_path(folder, path);

    if (r < 0)
        return r;
    n = readlink(path, root, sizeof(root) - 1);
    if (n < 0)
        return errno == ENOENT ? -ENOENT
                               : err_origin_errno(-errno, "cannot read the link %s", path);
    root[n] = '\0';
    if (!is_root(root))
        return err_origin(-EINVAL, "the link %s leads to %s, expected the root of a jail", path,
                          root);
    *out = strdup(root);
    return *out ? 0 : err_origin(-ENOMEM, "no memory for the name of a jail");
}

/* make_root() - @out: (give) */
static int make_root(const struct vmm_jail *jail, const char *program, char **out)
{
    _cleanup_free_ char *file = NULL;
    _cleanup_free_ char *base = NULL;
    _cleanup_free_ char *root = NULL;
    int r = program_file(program, &file);

    if (r < 0)
        return r;
    base = realpath(jail->chroot_base, NULL);
    if (!base)
        return err_origin_errno(-errno, "jail: cannot use the folder %s", jail->chroot_base);
    if (asprintf(&root, "%s/%s/%s/root", base, base_name(file), jail->id) < 0) {
        root = NULL;
        return err_origin(-ENOMEM, "no memory for the name of a jail");
    }
    r = make_folders(root, strlen(base));
    if (r < 0)
        return r;
    *out = TAKE(root);
    return 0;
}

int jail_root(const struct vmm_jail *jail, const char *folder, const char *program, char **out)
{
    _cleanup_free_ char *root = NULL;
    char path[PATH_MAX];
    int r = jail_find(folder, out);

    if (r != -ENOENT)
        return r;
    r = link_path(folder, path);
    if (r == 0)
        r = make_root(jail, program, &root);
    if (r < 0)
        return r;
    assert(root);
    if (symlink(root, path) < 0)
        return err_origin_errno(-errno, "cannot make the link %s", path);
    *out = TAKE(root);
    return 0;
}

int jail_argv(const struct vmm_jail *jail, const char *program, const char *const *args,
              struct jail_numbers *numbers, const char *argv[static JAIL_MAX_ARGS])
{
    size_t n = 0;

    if (jail->n_cgroups > 16)
        return err_origin(-EINVAL, "jail: %zu cgroup settings, at most 16 are possible",
                          jail->n_cgroups);
    (void)snprintf(numbers->uid, sizeof(numbers->uid), "%u", jail->uid);
    (void)snprintf(numbers->gid, sizeof(numbers->gid), "%u", jail->gid);
    (void)snprintf(numbers->cgroup_version, sizeof(numbers->cgroup_version), "%u",
                   jail->cgroup_version);
    argv[n++] = jail->program ? jail->program : "jailer";
    argv[n++] = "--id";
    argv[n++] = jail->id;
    argv[n++] = "--exec-file";
    argv[n++] = program;
    argv[n++] = "--uid";
    argv[n++] = numbers->uid;
    argv[n++] = "--gid";
    argv[n++] = numbers->gid;
    argv[n++] = "--chroot-base-dir";
    argv[n++] = jail->chroot_base;
    if (jail->netns) {
        argv[n++] = "--netns";
        argv[n++] = jail->netns;
    }
    if (jail->cgroup_version != 0) {
        argv[n++] = "--cgroup-version";
        argv[n++] = numbers->cgroup_version;
    }
    for (size_t i = 0; i < jail->n_cgroups; i++) {
        argv[n++] = "--cgroup";
        argv[n++] = jail->cgroups[i];
    }
    argv[n++] = "--";
    for (size_t i = 0; args[i]; i++) {
        assert(n < JAIL_MAX_ARGS - 1);
        argv[n++] = args[i];
    }
    argv[n] = NULL;
    return 0;
}

/* ---- cgroups --------------------------------------------------------------------------------------------------- */

/* group_of() - PROGRAM/ID, of .../PROGRAM/ID/root. (borrow) @len: of it */
static const char *group_of(const char *root, size_t *len)
{
    const char *end = strrchr(root, '/');
    const char *from = end;

    for (unsigned n = 0; n < 2; n++) {
        assert(from > root);
        for (from--; *from != '/'; from--)
            assert(from > root);
    }
    *len = (size_t)(end - from) - 1;
    return from + 1;
}

/* remove_group() - version 1 may notice a moment late that its last process has ended */
static int remove_group(const char *path)
{
    uint64_t deadline_ns = clock_now_ns() + GROUP_MS * NS_PER_MS;

    while (rmdir(path) < 0) {
        if (errno == ENOENT)
            return 0;
        if (errno != EBUSY || clock_left_ms(deadline_ns) == 0)
            return err_origin_errno(-errno, "cannot remove the cgroup %s", path);
        clock_sleep_ns(GROUP_NAP_NS);
    }
    return 0;
}

int jail_remove_cgroups(const char *root, const char *mounts)
{
    struct mntent entry;
    char line[2 * PATH_MAX];
    char path[PATH_MAX];
    size_t len;
    const char *group = group_of(root, &len);
    FILE *f = setmntent(mounts, "re");
    int r = 0;

    if (!f)
        return err_origin_errno(-errno, "cannot read %s", mounts);
    while (r == 0 && getmntent_r(f, &entry, line, sizeof(line))) {
        if (strcmp(entry.mnt_type, "cgroup") != 0 && strcmp(entry.mnt_type, "cgroup2") != 0)
            continue;
        if (snprintf(path, sizeof(path), "%s/%.*s", entry.mnt_dir, (int)len, group) <
            (int)sizeof(path))
            r = remove_group(path);
    }
    (void)endmntent(f);
    return r;
}

/* ---- before a start -------------------------------------------------------------------------------------------- */

/* check_program() - the jailer makes a root of its own for each name of a program */
static int check_program(const char *root, const char *file)
{
    size_t len;
    const char *group = group_of(root, &len);
    size_t n = strcspn(group, "/");

    if (strlen(base_name(file)) == n && strncmp(base_name(file), group, n) == 0)
        return 0;
    return err_origin(-EINVAL, "the jail %s is of a program %.*s, expected it to be of %s", root,
                      (int)n, group, base_name(file));
}

/* remove_at() - what is not there, or is in a folder that is not there, is no error. @dir: -ENOENT for such a folder */
static int remove_at(int dir, const char *name)
{
    return dir >= 0 && unlinkat(dir, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

/* folder_at() - Return: fd (give), -1: there is none. A link in its place is removed, so that nobody follows it later */
static int folder_at(int dir, const char *name)
{
    int fd = dir < 0 ? -1 : openat(dir, name, OPEN_FOLDER);

    if (fd < 0 && dir >= 0 && (errno == ELOOP || errno == ENOTDIR))
        (void)unlinkat(dir, name, 0);
    return fd;
}

int jail_clear(const char *root, const char *program)
{
    _cleanup_fd_ int dir = open(root, OPEN_FOLDER);
    _cleanup_fd_ int dev = folder_at(dir, "dev");
    _cleanup_fd_ int net = folder_at(dev, "net");
    _cleanup_free_ char *file = NULL;
    char pid_file[NAME_MAX + 1];
    int r = program_file(program, &file);

    if (r < 0)
        return r;
    if (dir < 0)
        return err_origin_errno(-errno, "cannot open the jail %s", root);
    r = check_program(root, file);
    if (r < 0)
        return r;
    (void)snprintf(pid_file, sizeof(pid_file), "%.200s.pid", base_name(file));
    r = remove_at(dir, pid_file);
    if (r == 0)
        r = remove_at(dir, base_name(file));
    if (r == 0)
        r = remove_at(dev, "kvm");
    if (r == 0)
        r = remove_at(dev, "urandom");
    if (r == 0)
        r = remove_at(dev, "userfaultfd");
    if (r == 0)
        r = remove_at(net, "tun");
    return r < 0 ? err_origin_errno(r, "cannot clear the jail %s", root) : 0;
}

int jail_add_log(const struct vmm_jail *jail, const char *root, const char *log_path)
{
    _cleanup_fd_ int dir = open(root, OPEN_FOLDER);
    _cleanup_fd_ int fd = -1;
    int r = dir < 0 ? -errno : remove_at(dir, VMM_FILE_LOG);

    if (r < 0)
        return err_origin_errno(r, "cannot use the jail %s", root);
    if (linkat(AT_FDCWD, log_path, dir, VMM_FILE_LOG, 0) == 0)
        fd = open(log_path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    else
        fd = openat(dir, VMM_FILE_LOG, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 || fchown(fd, jail->uid, jail->gid) < 0)
        return err_origin_errno(-errno, "cannot make a log in the jail %s", root);
    return 0;
}

int jail_give(const struct vmm_jail *jail, const char *root, const char *name)
{
    _cleanup_fd_ int dir = open(root, OPEN_FOLDER);

    if (dir < 0 || fchownat(dir, name, jail->uid, jail->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return err_origin_errno(-errno, "cannot give %s/%s to user %u", root, name, jail->uid);
    return 0;
}
