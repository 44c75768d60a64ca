/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preload.c - libthaw-preload.so: an unmodified QEMU gets its guest RAM from a pager
 *
 * QEMU knows nothing of userfaultfd handlers of other processes, but all of its guest RAM passes through mmap(2): it
 * reserves address space without access rights, then maps memory over it with MAP_FIXED, writable, of exactly the size
 * that was asked for. This library stands in front of mmap(), recognises those calls by their sizes, and when the last
 * one has returned, and before QEMU can touch a byte, does what a VMM with userfaultfd support does
 * (thaw_vmm_attach()). From then on it only passes calls on.
 *
 *     LD_PRELOAD=libthaw-preload.so THAW_PRELOAD_SOCKET=/run/x.sock THAW_PRELOAD_SIZES=1G qemu-system-x86_64
 *         -machine pc,memory-backend=ram,mem-merge=off -object memory-backend-ram,id=ram,size=1G,share=off
 *         -m 1G -incoming defer ...
 *
 * Environment:
 *     THAW_PRELOAD_SOCKET  where the pager listens. Not set: the library does nothing.
 *     THAW_PRELOAD_SIZES   the sizes of the guest's memory regions, comma separated, in bytes or with K, M or G, in the
 *                          order of the snapshot's memory file; each region's bytes begin where the one before ends.
 *                          Regions of one size are told apart by the order in which they are mapped, which in QEMU is
 *                          the order of the -object options.
 *     THAW_PRELOAD_HUGE    1: map 2 MiB huge pages instead of what was asked for.
 *     THAW_PRELOAD_SHARED  1: the memory is a shared memfd as far as QEMU knows; see below.
 *
 * What must hold on QEMU's side: the memory is private and anonymous (memory-backend-ram, share=off), so that a discard
 * is madvise(MADV_DONTNEED), which userfaultfd reports. A shared or file-backed mapping of one of the sizes is refused,
 * since its discards cannot be heard. A fixed anonymous mapping larger than every region listed is refused as well: it
 * is guest RAM that nobody would fill.
 *
 * Memory that QEMU takes for shared. QEMU leaves RAM out of a migration (x-ignore-shared) only if it is shared, and a VM
 * that is to be saved again and again must be told so each time. So with THAW_PRELOAD_SHARED=1 the memory is
 * memory-backend-memfd with share=on, and in the place of that mapping there comes a private anonymous one, which goes to
 * the pager as above. The memfd stays empty: nobody else has it, QEMU itself reads and writes RAM through its mapping only.
 * A discard punches a hole into the memfd, where there is nothing, and then calls madvise(MADV_DONTNEED), since other
 * mappings of a file might be private; this one is, and userfaultfd reports it. Only a memfd is taken: a file of the file
 * system would lose what it has where holes are punched. QEMU aligns memory of a memfd to 4 KiB only, where neither huge
 * pages can be mapped nor a guest's 2 MiB be one page of the host's; so the address space that it reserves for such memory
 * begins at a multiple of 2 MiB.
 *
 * A VMM with half of its memory must not run: whatever goes wrong is one line on stderr and the end of the process.
 *
 * Other processes. A child made by fork() has the memory without its registration, and loses socket and userfaultfd
 * when it executes a program (both are close-on-exec), such as the `exec:` commands of a migration. The environment is
 * inherited by everything that is started *before* the memory is mapped, so that wrapper scripts work, and is removed
 * when the memory has been attached, so that the VMM's own children are left alone.
 */

/* With 64-bit offsets the C library's headers rename mmap to mmap64; both are defined here under their own names. */
#undef _FILE_OFFSET_BITS

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <thaw/vmm.h>

#include "base/base.h"

#define PRELOAD_MAX_REGIONS 64u
#define HUGE_PAGE_BYTES     (2 * MIB)
#define HUGE_PAGE_SHIFT     21

/* What the environment asks for, and how far it has come. Regions without an address are not mapped yet. */
static struct {
    bool active; /* set by the constructor, cleared when attached; read without the lock */
    bool huge;
    bool shared;
    char *socket_path;
    uint64_t largest_bytes;
    unsigned n_regions;
    unsigned n_mapped; /* under the lock, as are the regions' addresses */
    struct thaw_region regions[PRELOAD_MAX_REGIONS];
    struct thaw_attachment *attachment; /* kept for the life of the process */
} preload;

static pthread_mutex_t preload_lock = PTHREAD_MUTEX_INITIALIZER;

static _Noreturn void preload_die(const char *fmt, ...) PRINTF_LIKE(1, 2);

static _Noreturn void preload_die(const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    dprintf(STDERR_FILENO, "thaw-preload: %s\n", text);
    _exit(1);
}

static uint64_t unit_bytes(char unit)
{
    switch (unit) {
    case 'K':
    case 'k':
        return KIB;
    case 'M':
    case 'm':
        return MIB;
    case 'G':
    case 'g':
        return GIB;
    default:
        return 1;
    }
}

/* Reads "256M" or "268435456" at *@text and moves on behind it. Return: bytes, 0 if that is no size. */
static uint64_t size_parse(const char **text)
{
    unsigned long long n;
    uint64_t bytes;
    char *end;

    if (**text < '0' || **text > '9')
        return 0;
    errno = 0;
    n = strtoull(*text, &end, 10);
    if (errno != 0 || __builtin_mul_overflow(n, unit_bytes(*end), &bytes))
        return 0;
    *text = unit_bytes(*end) == 1 ? end : end + 1;
    return bytes;
}

static void sizes_parse(const char *sizes)
{
    uint64_t page_bytes = preload.huge ? HUGE_PAGE_BYTES : 4 * KIB;
    const char *at = sizes;
    uint64_t offset = 0;

    for (;;) {
        uint64_t bytes = size_parse(&at);

        if (bytes == 0 || (*at != ',' && *at != '\0'))
            preload_die("THAW_PRELOAD_SIZES='%s': expected sizes such as 512M,1G", sizes);
        if (bytes % page_bytes)
            preload_die("THAW_PRELOAD_SIZES='%s': each size must be a multiple of %llu", sizes,
                        (unsigned long long)page_bytes);
        if (preload.n_regions == PRELOAD_MAX_REGIONS)
            preload_die("THAW_PRELOAD_SIZES: more than %u regions", PRELOAD_MAX_REGIONS);
        preload.regions[preload.n_regions++] = (struct thaw_region){
            .len_bytes = bytes,
            .offset = offset,
            .page_bytes = page_bytes,
        };
        preload.largest_bytes = max_u64(preload.largest_bytes, bytes);
        if (__builtin_add_overflow(offset, bytes, &offset))
            preload_die("THAW_PRELOAD_SIZES='%s': the sum is too large", sizes);
        if (*at == '\0')
            return;
        at++;
    }
}

static bool switch_parse(const char *name)
{
    const char *value = getenv(name);

    if (value && strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
        preload_die("%s='%s': expected 0 or 1", name, value);
    return value && strcmp(value, "1") == 0;
}

__attribute__((constructor)) static void preload_init(void)
{
    const char *socket_path = getenv("THAW_PRELOAD_SOCKET");
    const char *sizes = getenv("THAW_PRELOAD_SIZES");

    if (!socket_path)
        return;
    if (!sizes)
        preload_die("THAW_PRELOAD_SIZES is not set: which mappings are the guest's memory?");
    preload.huge = switch_parse("THAW_PRELOAD_HUGE");
    preload.shared = switch_parse("THAW_PRELOAD_SHARED");
    sizes_parse(sizes);
    preload.socket_path = strdup(socket_path);
    if (!preload.socket_path)
        preload_die("no memory");
    __atomic_store_n(&preload.active, true, __ATOMIC_RELEASE);
}

/*
 * The system call itself, not the next mmap() in the search order: calls come before any constructor has run, and
 * looking a symbol up may map memory.
 */
static void *mmap_real(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
    return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

/* reserves_region() - address space for a region, and less than 2 MiB for whatever goes with it? */
static bool reserves_region(void *addr, size_t len, int prot, int flags)
{
    if (!preload.shared || addr || prot != PROT_NONE || (flags & MAP_FIXED))
        return false;
    for (unsigned i = 0; i < preload.n_regions; i++) {
        if (len >= preload.regions[i].len_bytes &&
            len - preload.regions[i].len_bytes < HUGE_PAGE_BYTES)
            return true;
    }
    return false;
}

/* mmap_aligned() - begins at a multiple of 2 MiB. @len is one of the page size */
static void *mmap_aligned(size_t len, int prot, int flags, int fd, off_t offset)
{
    char *p = mmap_real(NULL, len + HUGE_PAGE_BYTES, prot, flags, fd, offset);
    size_t before;

    if (p == MAP_FAILED)
        return p;
    before = (size_t)(-(uintptr_t)p % HUGE_PAGE_BYTES);
    if (before > 0)
        (void)munmap(p, before);
    (void)munmap(p + before + len, HUGE_PAGE_BYTES - before);
    return p + before;
}

static struct thaw_region *region_find_unmapped(size_t len)
{
    for (unsigned i = 0; i < preload.n_regions; i++) {
        if (!preload.regions[i].addr && preload.regions[i].len_bytes == len)
            return &preload.regions[i];
    }
    return NULL;
}

static void *region_map(struct thaw_region *r, void *addr, int prot, int flags)
{
    void *p;

    if (preload.shared)
        flags = (flags & ~MAP_TYPE) | MAP_PRIVATE | MAP_ANONYMOUS;
    if (preload.huge) {
        if ((uintptr_t)addr % HUGE_PAGE_BYTES)
            preload_die("guest memory at %p is not aligned to huge pages", addr);
        flags |= MAP_HUGETLB | (HUGE_PAGE_SHIFT << MAP_HUGE_SHIFT);
    }
    p = mmap_real(addr, r->len_bytes, prot, flags, -1, 0);
    if (p == MAP_FAILED && preload.huge)
        preload_die("cannot map %llu huge pages of 2 MiB (%s): raise vm.nr_hugepages",
                    (unsigned long long)(r->len_bytes / HUGE_PAGE_BYTES), strerror(errno));
    if (p == MAP_FAILED)
        return p; /* the VMM's own words are the better ones */
    r->addr = p;
    preload.n_mapped++;
    return p;
}

static void preload_attach(void)
{
    if (thaw_vmm_attach(&preload.attachment, preload.socket_path, preload.regions,
                        preload.n_regions) < 0)
        preload_die("%s", thaw_last_error());
    __atomic_store_n(&preload.active, false, __ATOMIC_RELEASE);
    unsetenv("THAW_PRELOAD_SOCKET");
    unsetenv("THAW_PRELOAD_SIZES");
    unsetenv("THAW_PRELOAD_HUGE");
    unsetenv("THAW_PRELOAD_SHARED");
}

/* is_shared_memfd() - a shared mapping of a memfd? */
static bool is_shared_memfd(int flags, int fd)
{
    char path[32], name[32] = "";

    if ((flags & MAP_TYPE) == MAP_PRIVATE || (flags & MAP_ANONYMOUS))
        return false;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return readlink(path, name, sizeof(name) - 1) > 0 && strncmp(name, "/memfd:", 7) == 0;
}

/* A fixed, writable mapping while regions are still missing: is it one of them? Called with the lock held. */
static void *mmap_candidate(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
    bool private = (flags & MAP_TYPE) == MAP_PRIVATE && (flags & MAP_ANONYMOUS);
    struct thaw_region *r = region_find_unmapped(len);
    bool usable = preload.shared ? is_shared_memfd(flags, fd) : private;
    void *p;

    if (r && !usable && preload.shared)
        preload_die("guest memory of %zu bytes is no shared memfd: use memory-backend-memfd with "
                    "share=on, or leave THAW_PRELOAD_SHARED out",
                    len);
    if (r && !usable)
        preload_die("guest memory of %zu bytes is %s: use memory-backend-ram with share=off", len,
                    flags & MAP_ANONYMOUS ? "shared" : "backed by a file");
    if (!r && (usable || private) && len > preload.largest_bytes)
        preload_die("%zu bytes of memory are mapped; THAW_PRELOAD_SIZES lists %llu at most", len,
                    (unsigned long long)preload.largest_bytes);
    if (!r)
        return mmap_real(addr, len, prot, flags, fd, offset);
    p = region_map(r, addr, prot, flags);
    if (p != MAP_FAILED && preload.n_mapped == preload.n_regions)
        preload_attach();
    return p;
}

THAW_EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
    bool active = __atomic_load_n(&preload.active, __ATOMIC_ACQUIRE);
    void *p;

    if (active && reserves_region(addr, len, prot, flags))
        return mmap_aligned(len, prot, flags, fd, offset);
    if (!active || !(prot & PROT_WRITE) || !(flags & MAP_FIXED))
        return mmap_real(addr, len, prot, flags, fd, offset);
    pthread_mutex_lock(&preload_lock);
    /* Another thread may have mapped the last region meanwhile. */
    p = preload.n_mapped < preload.n_regions ? mmap_candidate(addr, len, prot, flags, fd, offset)
                                             : mmap_real(addr, len, prot, flags, fd, offset);
    pthread_mutex_unlock(&preload_lock);
    return p;
}

THAW_EXPORT void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t offset)
    __attribute__((alias("mmap")));
