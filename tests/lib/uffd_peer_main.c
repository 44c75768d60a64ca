/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uffd_peer_main.c - a VMM on strings: says to a pager whatever a test tells it to say
 *
 * A pager that was handed a userfaultfd and cannot serve it kills the process at the other end of the socket. So
 * the handshake tests do not speak to the pager themselves: they start this program, one for each test, and
 * move it by lines on stdin. Each line is answered with one line on stdout.
 *
 *     uffd_peer N_PAGES PAGE_BYTES [blocking|events]    maps and registers the memory, then prints "ready ADDRESS"
 *                                                       events: ask for FORK, REMAP and UNMAP events too
 *
 *     connect PATH          "ok" or "error ERRNO"
 *     send HEX [FD]...      the bytes, with these fds: uffd, uffd2 (one more), pipe, FILE-PATH
 *     flood N               up to N sends of one byte each, until the kernel takes no more; "flooded COUNT" before the answer
 *     shut                  no more bytes will come (SHUT_WR)
 *     close                 close the socket
 *     setuid N              become another user (before connect)
 *     touch PAGE [N]        N threads (1) read the page's first word; "ok" at once, and later "page PAGE HEX-WORD" of each
 *     block PAGE            a thread reads a page and takes O_NONBLOCK off the userfaultfd as soon as it is there
 *     write PAGE            a thread writes the page's first word; later "wrote PAGE"
 *     discard FIRST N       a thread gives N pages back (MADV_DONTNEED); "discarding TID" and later "discarded FIRST"
 *     free FIRST N          the same with MADV_FREE, after which the kernel may leave pages as they are
 *     starve FIRST N CPU    the same from a thread that gets CPU only when nobody else wants it
 *     hog CPU               a thread that always wants CPU, to the end of this process
 *     protect FIRST N       make N pages read-only (mprotect), which splits the mapping
 *     unregister FIRST N    take N pages away from the userfaultfd
 *     punch PAGE            discard a page in a way that no message tells of: while it is not registered
 *     flags                 "flags N": the userfaultfd's file status flags
 *     blocking              take O_NONBLOCK off the userfaultfd, which the pager shares
 *     unmap PAGE            munmap(2) of one page, which another mapping then takes the place of
 *     fork                  fork(2); the child ends at once
 *     drop                  close the userfaultfd: from then on only the pager has it
 *     spare                 open one more userfaultfd
 *     quit                  exit 0
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uffd_peer.h"

#define WATCHDOG_SECONDS 60
#define WRITTEN_WORD     0x5752495454454e21ull
#define MORE_EVENTS      (UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP)

static uint8_t *memory;
static size_t page_bytes;
static int uffd = -1;
static int sock = -1;

static void answer(int r)
{
    if (r < 0)
        printf("error %d %s\n", -r, strerror(-r));
    else
        printf("ok\n");
    fflush(stdout);
}

static int fd_named(const char *name)
{
    int fd, ends[2];

    if (!strcmp(name, "uffd"))
        return uffd;
    if (!strcmp(name, "uffd2"))
        return peer_uffd_new(O_NONBLOCK, 0);
    if (!strcmp(name, "pipe"))
        return pipe2(ends, O_CLOEXEC) < 0 ? -1 : ends[0];
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        peer_die(PEER_EXIT_USAGE, errno, "cannot open %s", name);
    return fd;
}

static unsigned hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = memchr(digits, c, 16);

    if (!at)
        peer_die(PEER_EXIT_USAGE, 0, "not hex: %c", c);
    return (unsigned)(at - digits);
}

static size_t hex_decode(const char *hex, uint8_t *out)
{
    size_t i, n = strlen(hex) / 2;

    for (i = 0; i < n; i++)
        out[i] = (uint8_t)(hex_digit(hex[2 * i]) << 4 | hex_digit(hex[2 * i + 1]));
    return n;
}

static int command_send(char *save)
{
    const char *hex = strtok_r(NULL, " ", &save), *name;
    uint8_t *bytes;
    unsigned n_fds = 0;
    int fds[8], r;
    size_t n;

    if (!hex)
        peer_die(PEER_EXIT_USAGE, 0, "send: what?");
    bytes = malloc(strlen(hex) / 2 + 1);
    if (!bytes)
        peer_die(PEER_EXIT_ABSENT, ENOMEM, "send");
    n = hex_decode(hex, bytes);
    while ((name = strtok_r(NULL, " ", &save)) && n_fds < 8)
        fds[n_fds++] = fd_named(name);
    r = peer_send(sock, bytes, n, fds, n_fds);
    free(bytes);
    return r;
}

static int command_flood(const char *arg)
{
    unsigned long i, n = arg ? strtoul(arg, NULL, 0) : 0;

    for (i = 0; i < n && send(sock, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1; i++)
        ;
    if (i < n && errno != EAGAIN)
        return -errno;
    printf("flooded %lu\n", i);
    return 0;
}

/* struct job - what a thread is to do */
struct job {
    size_t first;
    size_t n;
    int cpu; /* -1: any */
    int advice;
};

static void *touch_thread(void *arg)
{
    const struct job *job = arg;
    uint64_t word = *(volatile uint64_t *)(memory + job->first * page_bytes);

    printf("page %zu %016llx\n", job->first, (unsigned long long)word);
    fflush(stdout);
    return NULL;
}

/* The pager, which has just answered, is about to read the next message. */
static void *block_thread(void *arg)
{
    const struct job *job = arg;
    int flags = fcntl(uffd, F_GETFL);

    (void)*(volatile uint64_t *)(memory + job->first * page_bytes);
    (void)fcntl(uffd, F_SETFL, flags & ~O_NONBLOCK);
    printf("blocking\n");
    fflush(stdout);
    return NULL;
}

static void *write_thread(void *arg)
{
    const struct job *job = arg;

    *(volatile uint64_t *)(memory + job->first * page_bytes) = WRITTEN_WORD;
    printf("wrote %zu\n", job->first);
    fflush(stdout);
    return NULL;
}

static void run_on(int cpu, int policy)
{
    const struct sched_param none = {0};
    cpu_set_t set;

    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0 || sched_setscheduler(0, policy, &none) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot run on processor %d", cpu);
}

static void *discard_thread(void *arg)
{
    const struct job *job = arg;

    run_on(job->cpu, SCHED_IDLE);
    printf("discarding %d\n", (int)gettid());
    fflush(stdout);
    if (madvise(memory + job->first * page_bytes, job->n * page_bytes, job->advice) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "madvise");
    printf("discarded %zu\n", job->first);
    fflush(stdout);
    return NULL;
}

static void *hog_thread(void *arg)
{
    const struct job *job = arg;

    run_on(job->cpu, SCHED_OTHER);
    for (;;)
        __asm__ volatile("");
    return NULL;
}

/* start_job() - a thread with a job; jobs are never freed: this process ends soon */
static int start_job(void *(*fn)(void *), struct job what)
{
    struct job *job = malloc(sizeof(*job));
    pthread_t t;

    if (!job)
        return -ENOMEM;
    *job = what;
    return -pthread_create(&t, NULL, fn, job);
}

static int start(void *(*fn)(void *), size_t first, size_t n, int cpu)
{
    return start_job(fn, (struct job){.first = first, .n = n, .cpu = cpu});
}

/* number() - the next word of a command, or @fallback where there is none */
static size_t number(char **save, size_t fallback)
{
    const char *word = strtok_r(NULL, " ", save);

    return word ? strtoul(word, NULL, 0) : fallback;
}

static int command_touch(char *save)
{
    size_t page = number(&save, 0), n = number(&save, 1);
    int r = 0;

    for (size_t i = 0; i < n && r == 0; i++)
        r = start(touch_thread, page, 1, -1);
    return r;
}

static int command_discard(char *save, int advice)
{
    size_t first = number(&save, 0), n = number(&save, 1);

    return start_job(discard_thread, (struct job){.first = first,
                                                  .n = n,
                                                  .cpu = (int)number(&save, (size_t)-1),
                                                  .advice = advice});
}

static int command_protect(char *save)
{
    size_t first = number(&save, 0), n = number(&save, 1);

    return mprotect(memory + first * page_bytes, n * page_bytes, PROT_READ) < 0 ? -errno : 0;
}

static int command_unregister(char *save)
{
    size_t first = number(&save, 0), n = number(&save, 1);
    struct uffdio_range range = {.start = (uintptr_t)memory + first * page_bytes,
                                 .len = n * page_bytes};

    return ioctl(uffd, UFFDIO_UNREGISTER, &range) < 0 ? -errno : 0;
}

static int command_punch(char *save)
{
    uint8_t *at = memory + number(&save, 0) * page_bytes;
    struct uffdio_range range = {.start = (uintptr_t)at, .len = page_bytes};

    if (ioctl(uffd, UFFDIO_UNREGISTER, &range) < 0 || madvise(at, page_bytes, MADV_DONTNEED) < 0)
        return -errno;
    peer_uffd_register(uffd, at, page_bytes);
    return 0;
}

static int command_flags(bool block)
{
    int flags = fcntl(uffd, F_GETFL);

    if (block)
        return fcntl(uffd, F_SETFL, flags & ~O_NONBLOCK) < 0 ? -errno : 0;
    printf("flags %d\n", flags);
    return 0;
}

/* The calls that raise an event return when the pager has read it: in a thread, so that commands go on. */
static void *unmap_thread(void *arg)
{
    const struct job *job = arg;
    uint8_t *at = memory + job->first * page_bytes;

    if (munmap(at, page_bytes) < 0 ||
        mmap(at, page_bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot unmap a page");
    printf("unmapped %zu\n", job->first);
    fflush(stdout);
    return NULL;
}

static void *fork_thread(void *arg)
{
    pid_t pid = fork();

    (void)arg;
    if (pid == 0)
        _exit(0);
    printf("forked %d\n", pid);
    fflush(stdout);
    return NULL;
}

static int command_connect(const char *path)
{
    sock = peer_connect(path ? path : "");
    return sock < 0 ? sock : 0;
}

/* command_memory() - what is done to memory or to the userfaultfd. Return: -ENOSYS if it is none of that */
static int command_memory(const char *verb, char *save)
{
    if (!strcmp(verb, "touch"))
        return command_touch(save);
    if (!strcmp(verb, "block"))
        return start(block_thread, number(&save, 0), 1, -1);
    if (!strcmp(verb, "write"))
        return start(write_thread, number(&save, 0), 1, -1);
    if (!strcmp(verb, "discard") || !strcmp(verb, "starve"))
        return command_discard(save, MADV_DONTNEED);
    if (!strcmp(verb, "free"))
        return command_discard(save, MADV_FREE);
    if (!strcmp(verb, "hog"))
        return start(hog_thread, 0, 0, (int)number(&save, 0));
    if (!strcmp(verb, "unmap"))
        return start(unmap_thread, number(&save, 0), 1, -1);
    if (!strcmp(verb, "fork"))
        return start(fork_thread, 0, 0, -1);
    if (!strcmp(verb, "protect"))
        return command_protect(save);
    if (!strcmp(verb, "unregister"))
        return command_unregister(save);
    if (!strcmp(verb, "punch"))
        return command_punch(save);
    if (!strcmp(verb, "flags") || !strcmp(verb, "blocking"))
        return command_flags(!strcmp(verb, "blocking"));
    return -ENOSYS;
}

static int command(char *line)
{
    char *save = NULL;
    const char *verb = strtok_r(line, " ", &save);

    if (!verb)
        return -EINVAL;
    if (!strcmp(verb, "send"))
        return command_send(save);
    if (!strcmp(verb, "flood"))
        return command_flood(strtok_r(NULL, " ", &save));
    if (!strcmp(verb, "connect"))
        return command_connect(strtok_r(NULL, " ", &save));
    if (!strcmp(verb, "shut"))
        return shutdown(sock, SHUT_WR) < 0 ? -errno : 0;
    if (!strcmp(verb, "close"))
        return close(sock) < 0 ? -errno : 0;
    if (!strcmp(verb, "drop"))
        return close(uffd) < 0 ? -errno : 0;
    if (!strcmp(verb, "spare"))
        return peer_uffd_new(O_NONBLOCK, 0) < 0 ? -EMFILE : 0;
    if (!strcmp(verb, "setuid"))
        return setuid((uid_t)atoi(save)) < 0 ? -errno : 0;
    if (!strcmp(verb, "quit"))
        exit(0);
    return command_memory(verb, save);
}

/* map_memory() - at a multiple of 2 MiB, whatever the page size */
static void *map_memory(size_t len_bytes, int flags)
{
    const size_t align = 2u << 20;
    uint8_t *at = mmap(NULL, len_bytes + align, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED)
        return at;
    at += -(uintptr_t)at & (align - 1);
    return mmap(at, len_bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, -1, 0);
}

int main(int argc, char **argv)
{
    size_t n_pages, len_bytes, cap = 0;
    char *line = NULL;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const char *mode = argc > 3 ? argv[3] : "";
    ssize_t n;

    if (argc < 3)
        peer_die(PEER_EXIT_USAGE, 0, "usage: uffd_peer N_PAGES PAGE_BYTES [blocking|events]");
    alarm(WATCHDOG_SECONDS);
    n_pages = strtoul(argv[1], NULL, 0);
    page_bytes = strtoul(argv[2], NULL, 0);
    len_bytes = n_pages * page_bytes;
    if (page_bytes > 4096)
        flags |= MAP_HUGETLB;
    memory = map_memory(len_bytes, flags);
    if (memory == MAP_FAILED)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot map %zu pages of %zu", n_pages, page_bytes);
    uffd = peer_uffd_new(!strcmp(mode, "blocking") ? 0 : O_NONBLOCK,
                         !strcmp(mode, "events") ? MORE_EVENTS : 0);
    peer_uffd_register(uffd, memory, len_bytes);
    printf("ready %llu\n", (unsigned long long)(uintptr_t)memory);
    fflush(stdout);
    while ((n = getline(&line, &cap, stdin)) > 0) {
        if (line[n - 1] == '\n')
            line[n - 1] = '\0';
        answer(command(line));
    }
    return 0;
}
