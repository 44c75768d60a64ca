/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handler.c - a page-fault handler as a child process
 *
 * One process a run, as in real use: a handler serves one VM. It is bound to its core between fork
 * and exec, so that all its threads are born there; a handler that binds threads itself is
 * overruled once more before the clock starts.
 *
 * CPU time is the scheduler's own account of each thread (schedstat), which is brought up to date
 * whenever the thread goes to sleep; it includes the kernel's part of the thread's system calls,
 * and the page copies in them. It is read while the handler has nothing to do, before and after the
 * touches, so start-up is not in it.
 *
 * Memory is read from smaps, mapping by mapping. A handler maps the memory file and the kernel
 * counts each of the file's pages that it looked at as resident: those are the page cache's pages,
 * shared by everybody, and are left out.
 *
 * The handler has its own process group, so that what it starts itself is killed with it.
 */

#include "cli/bench/handler.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/linux_compat.h"

enum {
    WORDS_MAX = 32,
    WORD_BYTES = 512,
};

struct words {
    char text[WORDS_MAX][WORD_BYTES];
    char *argv[WORDS_MAX + 1];
    unsigned n;
};

static const char *path_for(const char *at, const struct bench_paths *paths, size_t *len)
{
    const struct {
        const char *name;
        const char *path;
    } known[] = {
        {"{socket}", paths->socket},
        {"{memory}", paths->memory},
        {"{self}", paths->self},
        {"{dir}", paths->dir},
    };

    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        *len = strlen(known[i].name);
        if (strncmp(at, known[i].name, *len) == 0)
            return known[i].path;
    }
    return NULL;
}

/* Copies one word, paths in place of their names. Returns the rest of the command, NULL when the
 * word is too long. */
static const char *copy_word(char *word, const char *at, const struct bench_paths *paths)
{
    size_t n = 0;

    while (*at && *at != ' ') {
        size_t len;
        const char *path = path_for(at, paths, &len);
        const char *from = path ? path : at;
        size_t from_len = path ? strlen(path) : 1;

        if (n + from_len >= WORD_BYTES)
            return NULL;
        memcpy(word + n, from, from_len);
        n += from_len;
        at += path ? len : 1;
    }
    word[n] = '\0';
    return at;
}

static int split_command(struct words *w, const struct bench_handler_spec *spec,
                         const struct bench_paths *paths)
{
    const char *at = spec->command;

    w->n = 0;
    for (;;) {
        while (*at == ' ')
            at++;
        if (!*at)
            break;
        if (w->n == WORDS_MAX)
            return err_origin(-E2BIG, "handler %s: a command of more than %d words", spec->name,
                              WORDS_MAX);
        w->argv[w->n] = w->text[w->n];
        at = copy_word(w->text[w->n++], at, paths);
        if (!at)
            return err_origin(-E2BIG, "handler %s: a word of more than %d bytes", spec->name,
                              WORD_BYTES);
    }
    w->argv[w->n] = NULL;
    if (w->n == 0)
        return err_origin(-EINVAL, "handler %s: an empty command", spec->name);
    return 0;
}

static int bind_thread(pid_t tid, int cpu)
{
    cpu_set_t set;

    if (cpu < 0)
        return 0;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    return sched_setaffinity(tid, sizeof(set), &set) < 0 ? -errno : 0;
}

/* The child between fork and exec. */
static void become_handler(const struct words *w, const char *log_path, int cpu, pid_t parent)
    __attribute__((noreturn));

static void become_handler(const struct words *w, const char *log_path, int cpu, pid_t parent)
{
    int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    sigset_t none;

    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    if (log < 0 || null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(log, 2) < 0)
        _exit(1);
    if (bind_thread(0, cpu) < 0)
        _exit(1);
    execvp(w->argv[0], w->argv);
    dprintf(2, "cannot run %s: %s\n", w->argv[0], strerror(errno));
    _exit(127);
}

int bench_handler_start(struct bench_handler *h, const struct bench_handler_spec *spec,
                        const struct bench_paths *paths, int cpu)
{
    static struct words words;
    pid_t parent = getpid();
    int r;

    r = split_command(&words, spec, paths);
    if (r < 0 || !words.argv[0])
        return r;
    (void)snprintf(h->log_path, sizeof(h->log_path), "%s/%s.log", paths->dir, spec->name);
    h->pid = fork();
    if (h->pid < 0) {
        h->pid = 0;
        return err_origin_errno(-errno, "fork");
    }
    if (h->pid == 0)
        become_handler(&words, h->log_path, cpu, parent);
    (void)setpgid(h->pid, h->pid); /* in the child too: whichever comes first */
    h->pidfd = (int)syscall(SYS_pidfd_open, h->pid, 0);
    if (h->pidfd < 0) {
        r = err_origin_errno(-errno, "pidfd_open");
        bench_handler_stop(h, 0);
        return r;
    }
    return 0;
}

/* Calls @each with every thread of @pid until it returns < 0. */
static int each_thread(pid_t pid, int (*each)(pid_t pid, pid_t tid, void *ctx), void *ctx)
{
    char path[64];
    struct dirent *entry;
    DIR *dir;
    int r = 0;

    (void)snprintf(path, sizeof(path), "/proc/%d/task", pid);
    dir = opendir(path);
    if (!dir)
        return -errno;
    while (r >= 0 && (entry = readdir(dir))) {
        long tid = strtol(entry->d_name, NULL, 10);

        if (tid > 0)
            r = each(pid, (pid_t)tid, ctx);
    }
    closedir(dir);
    return r;
}

static int pin_thread(pid_t pid, pid_t tid, void *ctx)
{
    int r = bind_thread(tid, *(int *)ctx);

    (void)pid;
    return r == -ESRCH ? 0 : r; /* a thread that has just ended needs no core */
}

int bench_handler_pin(const struct bench_handler *h, int cpu)
{
    return each_thread(h->pid, pin_thread, &cpu);
}

static int add_thread_cpu(pid_t pid, pid_t tid, void *ctx)
{
    uint64_t *sum_ns = ctx;
    uint64_t ns;
    char path[80];
    FILE *f;
    int n;

    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", pid, tid);
    f = fopen(path, "re");
    if (!f)
        return -errno;
    n = fscanf(f, "%" SCNu64, &ns);
    fclose(f);
    if (n != 1)
        return -ENOENT;
    *sum_ns += ns;
    return 0;
}

int bench_handler_cpu(const struct bench_handler *h, uint64_t *ns)
{
    *ns = 0;
    return each_thread(h->pid, add_thread_cpu, ns);
}

/* Adds "Name:   123 kB" to @bytes if @line is that field. */
static void add_field(const char *line, const char *name, uint64_t *bytes)
{
    size_t len = strlen(name);

    if (strncmp(line, name, len) == 0)
        *bytes += strtoull(line + len, NULL, 10) * KIB;
}

int bench_handler_weigh(const struct bench_handler *h, const char *memory_path,
                        struct bench_weight *out)
{
    char path[64];
    char line[1024];
    bool is_memory_file = false;
    FILE *f;

    *out = (struct bench_weight){0};
    (void)snprintf(path, sizeof(path), "/proc/%d/smaps", h->pid);
    f = fopen(path, "re");
    if (!f)
        return -errno;
    while (fgets(line, sizeof(line), f)) {
        /* a mapping begins with "address-address", in small letters; its fields begin with a
         * capital */
        if (line[0] < 'A' || line[0] > 'Z')
            is_memory_file = strstr(line, memory_path) != NULL;
        else if (is_memory_file)
            add_field(line,
                      "Anonymous:", &out->rss_beyond); /* its own copies of the file's pages */
        else
            add_field(line, "Rss:", &out->rss_beyond);
        add_field(line, "Anonymous:", &out->anonymous);
    }
    fclose(f);
    (void)snprintf(path, sizeof(path), "/proc/%d/status", h->pid);
    f = fopen(path, "re");
    if (!f)
        return -errno;
    while (fgets(line, sizeof(line), f))
        add_field(line, "VmPTE:", &out->page_tables);
    fclose(f);
    return 0;
}

void bench_process_ended(pid_t pid, char *how, size_t len)
{
    siginfo_t info = {0};

    /* the zombie is left to its owner: until it is taken away the pid cannot become somebody else's
     */
    (void)waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
    if (info.si_code == CLD_EXITED)
        (void)snprintf(how, len, "exit status %d", info.si_status);
    else
        (void)snprintf(how, len, "signal %d (%s)", info.si_status, strsignal(info.si_status));
}

void bench_handler_wait(const struct bench_handler *h, unsigned timeout_ms)
{
    struct pollfd pfd = {.fd = h->pidfd, .events = POLLIN};

    (void)poll(&pfd, 1, (int)timeout_ms);
}

void bench_handler_last_words(const struct bench_handler *h, char *line, size_t len)
{
    char buf[512];
    FILE *f = fopen(h->log_path, "re");

    line[0] = '\0';
    if (!f)
        return;
    while (fgets(buf, sizeof(buf), f)) {
        buf[strcspn(buf, "\n")] = '\0';
        if (buf[0])
            (void)snprintf(line, len, "%s", buf);
    }
    fclose(f);
}

void bench_handler_stop(struct bench_handler *h, unsigned patience_ms)
{
    if (h->pid == 0)
        return;
    if (patience_ms > 0)
        bench_handler_wait(h, patience_ms);
    (void)kill(-h->pid, SIGKILL);
    (void)kill(h->pid, SIGKILL); /* it may have changed its group */
    while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    h->pidfd = fd_close(h->pidfd);
    h->pid = 0;
}
