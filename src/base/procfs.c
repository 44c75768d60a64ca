/* SPDX-License-Identifier: Apache-2.0 */
#include "base/procfs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SELF_STATUS "/proc/self/status"

static void file_closep(FILE **f)
{
    if (*f)
        fclose(*f);
}

int procfs_read(const char *path, char *buf, size_t len)
{
    _cleanup_(file_closep) FILE *f = NULL;

    assert(len > 0);
    f = fopen(path, "re");
    if (!f)
        return -errno;
    errno = 0;
    if (!fgets(buf, (int)len, f)) {
        if (ferror(f))
            return errno ? -errno : -EIO;
        buf[0] = '\0';
    }
    buf[strcspn(buf, "\n")] = '\0';
    return 0;
}

static int number(const char *text, int base, uint64_t *value)
{
    char *end = NULL;
    uint64_t v;

    errno = 0;
    v = strtoull(text, &end, base);
    if (errno || end == text)
        return -EINVAL;
    *value = v;
    return 0;
}

int procfs_read_u64(const char *path, uint64_t *value)
{
    char line[64];
    int r;

    r = procfs_read(path, line, sizeof(line));
    if (r < 0)
        return r;
    return number(line, 10, value);
}

int procfs_field_u64(const char *path, const char *name, int base, uint64_t *value)
{
    _cleanup_(file_closep) FILE *f = NULL;
    char line[256];
    size_t n = strlen(name);

    f = fopen(path, "re");
    if (!f)
        return -errno;
    while (fgets(line, sizeof(line), f)) {
        if (strncmp(line, name, n) == 0 && line[n] == ':')
            return number(line + n + 1, base, value);
    }
    return -ENOENT;
}

int procfs_start_ticks(int pid, uint64_t *ticks)
{
    char path[64];
    char line[1024];
    char *at;
    int r;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    r = procfs_read(path, line, sizeof(line));
    if (r < 0)
        return r;
    /* The second field is a name in parentheses, in which anything may be; the time is the 22nd. */
    at = strrchr(line, ')');
    for (unsigned field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? number(at + 1, 10, ticks) : -EINVAL;
}

bool procfs_has_cap(unsigned cap)
{
    uint64_t effective = 0;

    assert(cap < 64);
    if (procfs_field_u64(SELF_STATUS, "CapEff", 16, &effective) < 0)
        return false;
    return (effective & (1ull << cap)) && !procfs_in_user_namespace();
}

bool procfs_in_user_namespace(void)
{
    char line[128];
    unsigned long inside = 0;
    unsigned long outside = 0;
    unsigned long count = 0;

    if (procfs_read("/proc/self/uid_map", line, sizeof(line)) < 0)
        return false;
    if (sscanf(line, "%lu %lu %lu", &inside, &outside, &count) != 3)
        return true; /* a namespace whose map is not written yet is empty */
    return inside != 0 || outside != 0 || count != UINT32_MAX;
}

bool procfs_has_seccomp_filter(void)
{
    uint64_t mode = 0;

    return procfs_field_u64(SELF_STATUS, "Seccomp", 10, &mode) == 0 && mode == 2;
}
