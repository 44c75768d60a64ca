/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/jailer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "vmm/child.h"

#define OPEN_FOLDER (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

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

int jail_root(const struct vmm_jail *jail, const char *program, char **out)
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
