/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ground.c - what any measurement needs of the machine: cores, quiet, a folder
 *
 * Other work on the machine changes what a fault costs, wake-ups most of all. The machine's own account of busy time is looked
 * at over a short while; with a limit the run waits for quiet, and in any case it is told whether it began in noise.
 */

#include "cli/bench/ground.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/procfs.h"

#define LOOK_NS        (40 * NS_PER_MS)
#define BUSY_TICKS_MAX 1u /* of those in LOOK_NS on all cores: the look itself may be seen */

void bench_choose_cores(int cpus[2])
{
    char path[96], first[64] = "", other[64];
    cpu_set_t allowed;

    cpus[0] = cpus[1] = -1;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET((size_t)cpu, &allowed))
            continue;
        (void)snprintf(path, sizeof(path),
                       "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
        if (procfs_read(path, other, sizeof(other)) < 0)
            other[0] = '\0';
        if (cpus[0] < 0) {
            cpus[0] = cpu;
            memcpy(first, other, sizeof(first));
        } else if (cpus[1] < 0) {
            cpus[1] = cpu;
        }
        if (cpu != cpus[0] && strcmp(first, other) != 0) {
            cpus[1] = cpu;
            return;
        }
    }
}

/* Clock ticks that all cores together were not idle, since boot. 0 where that cannot be told. */
static uint64_t busy_ticks(void)
{
    uint64_t v[8] = {0};
    FILE *f = fopen("/proc/stat", "re");

    if (!f)
        return 0;
    /* user nice system idle iowait irq softirq steal */
    if (fscanf(f,
               "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
               " %" SCNu64 " %" SCNu64,
               &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]) != 8)
        v[0] = v[1] = v[2] = v[5] = v[6] = v[7] = 0;
    fclose(f);
    return v[0] + v[1] + v[2] + v[5] + v[6] + v[7];
}

bool bench_wait_for_quiet(unsigned idle_wait_s, const volatile sig_atomic_t *interrupted)
{
    uint64_t until_ns = clock_now_ns() + idle_wait_s * NS_PER_S;
    bool is_busy;

    do {
        uint64_t before = busy_ticks();

        clock_sleep_ns(LOOK_NS);
        is_busy = busy_ticks() - before > BUSY_TICKS_MAX;
    } while (is_busy && !*interrupted && clock_now_ns() < until_ns);
    return !is_busy;
}

int bench_make_dir(char *dir, size_t len, const char *parent)
{
    if ((size_t)snprintf(dir, len, "%s/thaw-bench.XXXXXX", parent) >= 100) {
        dir[0] = '\0';
        return err_origin(-ENAMETOOLONG, "the path %s is too long for a socket in it", parent);
    }
    if (!mkdtemp(dir)) {
        dir[0] = '\0';
        return err_origin_errno(-errno, "cannot make a folder in %s", parent);
    }
    return 0;
}

void bench_remove_dir(const char *path)
{
    struct dirent *entry;
    DIR *dir = path[0] ? opendir(path) : NULL;

    if (!dir)
        return;
    while ((entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    }
    closedir(dir);
    (void)rmdir(path);
}
