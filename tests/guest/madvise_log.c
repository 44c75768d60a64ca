/* SPDX-License-Identifier: Apache-2.0 */
/*
 * madvise_log.c - what a VMM discarded, told by the VMM itself
 *
 * Preloaded into QEMU. Every MADV_DONTNEED that succeeded is appended to the file MADVISE_LOG as two 64-bit numbers,
 * address and length. The pager has no part in it, so that the test's oracle knows the removed pages independently.
 */

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static int log_fd = -1;

__attribute__((constructor)) static void log_open(void)
{
    const char *path = getenv("MADVISE_LOG");

    if (path)
        log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

EXPORT int madvise(void *addr, size_t len, int advice)
{
    int r = (int)syscall(SYS_madvise, addr, len, advice);

    if (r == 0 && advice == MADV_DONTNEED && log_fd >= 0) {
        const uint64_t record[2] = {(uint64_t)(uintptr_t)addr, len};

        if (write(log_fd, record, sizeof(record)) != sizeof(record))
            abort();
    }
    return r;
}
