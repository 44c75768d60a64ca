/* SPDX-License-Identifier: Apache-2.0 */
/* host.c - the host's kernel, memory and limits, and the directory for state files */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/procfs.h"
#include "cli/doctor/doctor.h"
#include "cli/map/size_text.h"
#include "pager/state_dir.h"
#include "pager/state_file.h"

#define MEMINFO      "/proc/meminfo"
#define THP_DIR      "/sys/kernel/mm/transparent_hugepage/"
#define MIN_FILES    64u    /* a pager holds a dozen; the rest is what the VMM hands over */
#define MIN_MAPPINGS 65530u /* the kernel's default */

void doctor_kernel(struct doctor_finding *f)
{
    struct utsname u;
    unsigned major = 0;
    unsigned minor = 0;
    long page_bytes = sysconf(_SC_PAGESIZE);

    if (uname(&u) < 0 || sscanf(u.release, "%u.%u", &major, &minor) != 2) {
        doctor_found(f, DOCTOR_WARN, "the kernel's version cannot be read");
        return;
    }
    if (page_bytes != 4096) {
        doctor_found(f, DOCTOR_MISSING, "Linux %s, %s, with pages of %ld bytes", u.release,
                     u.machine, page_bytes);
        doctor_advise(f, "Use a kernel that is built for pages of 4096 bytes");
        return;
    }
    doctor_found(f, DOCTOR_OK, "Linux %s, %s", u.release, u.machine);
    if (major < 6 || (major == 6 && minor < 1)) {
        f->state = DOCTOR_WARN;
        doctor_advise(f, "From 6.1 on there is /dev/userfaultfd, whose access is a matter of "
                         "file permissions");
    }
}

void doctor_swap(struct doctor_finding *f)
{
    uint64_t total_kib = 0;

    if (procfs_field_u64(MEMINFO, "SwapTotal", 10, &total_kib) < 0) {
        doctor_found(f, DOCTOR_WARN, MEMINFO " cannot be read");
    } else if (total_kib == 0) {
        doctor_found(f, DOCTOR_OK, "off");
    } else {
        doctor_found(f, DOCTOR_WARN, "on, %s: what is resident does not tell what was installed",
                     size_text(total_kib * KIB));
        doctor_advise(f, "Switch it off (swapoff -a), or give the VMs a cgroup with "
                         "memory.swap.max=0, before relying on resident sizes or on snapshots made "
                         "from resident pages");
    }
}

/* The word in brackets: "always [madvise] never". */
static int chosen(const char *path, char *buf, size_t len)
{
    char line[128];
    char *start;
    int r;

    r = procfs_read(path, line, sizeof(line));
    if (r < 0)
        return r;
    start = strchr(line, '[');
    if (!start)
        return -EINVAL;
    start++;
    start[strcspn(start, "]")] = '\0';
    (void)snprintf(buf, len, "%s", start);
    return 0;
}

void doctor_thp(struct doctor_finding *f)
{
    char anon[32];
    char shmem[32];
    bool shmem_huge;

    if (chosen(THP_DIR "enabled", anon, sizeof(anon)) < 0) {
        doctor_found(f, DOCTOR_OK, "this kernel has no transparent huge pages");
        return;
    }
    if (chosen(THP_DIR "shmem_enabled", shmem, sizeof(shmem)) < 0)
        (void)snprintf(shmem, sizeof(shmem), "unknown");
    shmem_huge =
        strcmp(shmem, "never") != 0 && strcmp(shmem, "deny") != 0 && strcmp(shmem, "advise") != 0;
    doctor_found(f, strcmp(anon, "always") == 0 || shmem_huge ? DOCTOR_WARN : DOCTOR_OK,
                 "enabled=%s, shmem_enabled=%s", anon, shmem);
    if (strcmp(anon, "always") == 0)
        doctor_advise(f, "With enabled=always the kernel may join a guest's pages to 2 MiB, and a "
                         "discard of some of them frees memory late: set madvise");
    else if (shmem_huge)
        doctor_advise(f,
                      "With shmem_enabled=%s a VMM's shared memory may be mapped 2 MiB at a time, "
                      "missing pages included: set never or advise",
                      shmem);
}

/*
 * The lowest limit on the way from one group to the root of its hierarchy, UINT64_MAX if there is
 * none.
 */
static uint64_t lowest_limit(const char *root, const char *group, const char *file)
{
    uint64_t lowest = UINT64_MAX;
    char at[512];
    char path[1024];

    (void)snprintf(at, sizeof(at), "%s", strcmp(group, "/") == 0 ? "" : group);
    for (;;) {
        uint64_t limit = UINT64_MAX;
        char *slash;

        (void)snprintf(path, sizeof(path), "%s%s/%s", root, at, file);
        if (procfs_read_u64(path, &limit) == 0) /* "max" is no number */
            lowest = min_u64(lowest, limit);
        slash = strrchr(at, '/');
        if (!slash)
            return lowest;
        *slash = '\0';
    }
}

/* The memory limit of this process's cgroup, of either version; UINT64_MAX if there is none. */
static uint64_t cgroup_limit(void)
{
    uint64_t lowest = UINT64_MAX;
    char line[600];
    FILE *f;

    f = fopen("/proc/self/cgroup", "re");
    if (!f)
        return lowest;
    while (fgets(line, sizeof(line), f)) {
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;

        if (!group)
            continue;
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        if (controllers[1] == '\0')
            lowest = min_u64(lowest, lowest_limit("/sys/fs/cgroup", group, "memory.max"));
        else if (strcmp(controllers + 1, "memory") == 0)
            lowest = min_u64(lowest,
                             lowest_limit("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"));
    }
    (void)fclose(f);
    return lowest;
}

void doctor_memory(struct doctor_finding *f)
{
    uint64_t total_kib = 0;
    uint64_t available_kib = 0;
    uint64_t limit = cgroup_limit();

    (void)procfs_field_u64(MEMINFO, "MemTotal", 10, &total_kib);
    (void)procfs_field_u64(MEMINFO, "MemAvailable", 10, &available_kib);
    if (limit < total_kib * KIB) {
        doctor_found(f, DOCTOR_WARN, "this cgroup's limit is %s, of %s in all", size_text(limit),
                     size_text(total_kib * KIB));
        doctor_advise(f, "A guest's pages are charged to the VMM's cgroup, and the snapshot's page "
                         "cache to the one that reads it first: raise memory.max where they do not "
                         "fit");
    } else {
        doctor_found(f, DOCTOR_OK, "%s available of %s; no cgroup limit",
                     size_text(available_kib * KIB), size_text(total_kib * KIB));
    }
}

void doctor_open_files(struct doctor_finding *f)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        doctor_found(f, DOCTOR_WARN, "RLIMIT_NOFILE: %s", strerror(errno));
    } else if (limit.rlim_cur < MIN_FILES) {
        doctor_found(f, DOCTOR_WARN, "a process may have %ju files open (RLIMIT_NOFILE)",
                     (uintmax_t)limit.rlim_cur);
        doctor_advise(f, "Raise it: ulimit -n 1024, or LimitNOFILE= of the service");
    } else {
        doctor_found(f, DOCTOR_OK, "a process may have %ju files open (RLIMIT_NOFILE)",
                     (uintmax_t)limit.rlim_cur);
    }
}

void doctor_locked_memory(struct doctor_finding *f)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
        doctor_found(f, DOCTOR_WARN, "RLIMIT_MEMLOCK: %s", strerror(errno));
    else if (limit.rlim_cur == RLIM_INFINITY)
        doctor_found(f, DOCTOR_OK, "no limit (RLIMIT_MEMLOCK)");
    else
        doctor_found(
            f, DOCTOR_OK,
            "a process may lock %s (RLIMIT_MEMLOCK); matters to VMMs that lock guest memory",
            size_text(limit.rlim_cur));
}

void doctor_memory_maps(struct doctor_finding *f)
{
    uint64_t max = 0;

    if (procfs_read_u64("/proc/sys/vm/max_map_count", &max) < 0) {
        doctor_found(f, DOCTOR_WARN, "vm.max_map_count cannot be read");
        return;
    }
    doctor_found(f, max < MIN_MAPPINGS ? DOCTOR_WARN : DOCTOR_OK,
                 "a process may have %ju mappings (vm.max_map_count)", (uintmax_t)max);
    if (max < MIN_MAPPINGS)
        doctor_advise(f, "Set at least vm.max_map_count=%u: a VMM's memory may be split into many",
                      MIN_MAPPINGS);
}

void doctor_cpu_idle(struct doctor_finding *f)
{
    _cleanup_fd_ int fd = -1;
    int err;

    fd = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);
    err = errno;
    if (fd >= 0) {
        doctor_found(f, DOCTOR_OK,
                     "/dev/cpu_dma_latency opens: a process that holds 0 in it keeps "
                     "CPUs from sleeping, and makes faults quicker");
        return;
    }
    doctor_found(f, DOCTOR_WARN, "/dev/cpu_dma_latency: %s; faults pay for waking a sleeping CPU",
                 strerror(err));
    if (err == EACCES || err == EPERM)
        doctor_advise(f, "For the lowest latency give this user write permission on it");
}

/* Makes a state file of a VM with one page, where and as a pager would. */
void doctor_run_directory(struct doctor_finding *f)
{
    struct geom_region region = {.len_bytes = 4096};
    struct state_file state = STATE_FILE_NONE;
    struct state_facts facts = {.memory_path = ""};
    struct geom geom;
    hva_t bad;
    char dir[PATH_MAX];
    bool was_there;

    if (state_dir_default(dir, sizeof(dir)) < 0 || geom_init(&geom, &region, 1, 12, &bad) != 0) {
        doctor_found(f, DOCTOR_MISSING, "the run directory's name is too long");
        return;
    }
    was_there = access(dir, F_OK) == 0;
    if (state_file_new(&state, dir, &geom, &facts) < 0) {
        doctor_found(f, DOCTOR_MISSING, "%s", err_text());
        doctor_advise(f, "Make %s writable for this user, or serve with --state DIR", dir);
        return;
    }
    state_file_deinit(&state);
    if (!was_there)
        (void)rmdir(dir);
    doctor_found(f, DOCTOR_OK, "state files can be made in %s", dir);
}
