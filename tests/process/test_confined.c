/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_confined.c - what a confined process cannot do any more, tried from inside
 *
 * Each test forks: the child confines itself as a pager does, with a process that waits as its VMM, tries a list of things,
 * and writes down what each came to (confined_attempts.c). SECURITY.md says the same in words.
 */
#include "unit/testing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/linux_compat.h"
#include "pager/confine.h"
#include "pager/landlock.h"
#include "pager/syscall_filter.h"
#include "process/confined_attempts.h"

#define MAX_TRIES 64

static struct shared {
    int error[MAX_TRIES]; /* what came of each */
    unsigned refused;
    int last_nr;
    char line[1024]; /* what was logged last */
} * shared;

/* ---- stages --------------------------------------------------------------------------------------------------- */

static void keep_line(void *ctx, enum thaw_log_level level, const char *line)
{
    (void)ctx;
    (void)level;
    (void)snprintf(shared->line, sizeof(shared->line), "%s", line);
}

static void touch(const char *name)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    close(fd);
}

/* become_confined() - in the child. @whole: with the filter */
static void become_confined(bool whole)
{
    static struct control control;
    static const struct log_sink log = {.fn = keep_line};
    const struct confine_plan plan = {
        .on = true,
        .state_dir = rig.state,
        .write_dirs = {rig.kept},
        .tasks_fd = rig.tasks_fd,
        .control = &control,
        .log = &log,
    };
    int r = control_init(&control);

    rig.control_fd = control.fd;
    if (r == 0)
        r = confine_privileges(&plan, &rig.vmm);
    if (r == 0 && whole)
        r = confine_syscalls(&plan);
    if (r != 0)
        _exit(100);
}

/* try_all() - in a confined child; then compare */
static void try_all(bool whole, const struct attempt *attempts, unsigned n)
{
    int status = 0;
    pid_t child;

    assert_true(n <= MAX_TRIES);
    memset(shared, 0, sizeof(*shared));
    child = fork();
    if (child == 0) {
        become_confined(whole);
        for (unsigned i = 0; i < n; i++) {
            errno = 0;
            shared->error[i] = attempts[i].fn() < 0 ? errno : 0;
        }
        shared->refused = syscall_filter_refused(&shared->last_nr);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    for (unsigned i = 0; i < n; i++) {
        if (shared->error[i] != attempts[i].expected)
            print_message("# %s: %s, expected %s\n", attempts[i].what,
                          strerrorname_np(shared->error[i]), strerrorname_np(attempts[i].expected));
    }
    assert_int_equal(status, 0);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(shared->error[i], attempts[i].expected);
}

/* ends_with() - how a confined child ends that does this. Return: waitpid's status */
static int ends_with(long (*fn)(void))
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        become_confined(true);
        _exit((int)fn());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* ---- tests ---------------------------------------------------------------------------------------------------- */

static int set_up(void **unused)
{
    (void)unused;
    touch(in(0, rig.kept, "old"));
    touch(in(0, rig.state, "old"));
    touch(in(0, rig.outside, "old"));
    (void)unlink(in(0, rig.kept, "new"));
    return 0;
}

static void test_nothing_can_be_opened_made_or_removed_but_what_the_end_needs(void **unused)
{
    (void)unused;
    if (landlock_version() < 0)
        skip();
    try_all(true, attempts_at_files, n_attempts_at_files);
}

static void test_where_the_guest_runs_can_be_read_and_nothing_else(void **unused)
{
    char path[64];

    (void)unused;
    if (landlock_version() < 0)
        skip();
    (void)snprintf(path, sizeof(path), "/proc/%d/task", rig.vmm.pid);
    rig.tasks_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(rig.tasks_fd >= 0);
    try_all(true, attempts_at_tasks, n_attempts_at_tasks);
    (void)close(rig.tasks_fd);
    rig.tasks_fd = -1;
    try_all(true, attempts_without_tasks, n_attempts_without_tasks);
}

static void test_without_the_filter_files_are_still_out_of_reach(void **unused)
{
    (void)unused;
    if (landlock_version() < 0)
        skip();
    try_all(false, attempts_at_files_by_landlock, n_attempts_at_files_by_landlock);
}

static void test_without_the_filter_no_tcp_connection_can_be_made(void **unused)
{
    static const struct attempt attempts[] = {{"connect by TCP", tcp_connection, EACCES}};

    (void)unused;
    if (landlock_version() < 4)
        skip();
    try_all(false, attempts, ARRAY_LEN(attempts));
}

static void test_no_process_can_be_started_traced_or_signalled_but_the_vmm_killed(void **unused)
{
    (void)unused;
    try_all(true, attempts_at_processes, n_attempts_at_processes);
}

static void test_the_kernel_can_be_asked_for_little(void **unused)
{
    (void)unused;
    try_all(true, attempts_at_the_kernel, n_attempts_at_the_kernel);
    assert_int_equal(shared->refused, n_attempts_at_the_kernel - 2);
    assert_int_equal(shared->last_nr, 1000);
}

static void *try_in_thread(void *arg)
{
    pthread_barrier_t *barrier = arg;

    (void)pthread_barrier_wait(barrier); /* started */
    (void)pthread_barrier_wait(barrier); /* the filter is on */
    shared->error[0] = unix_socket() < 0 ? errno : 0;
    return NULL;
}

static long thread_before_the_filter(void)
{
    return shared->error[0] == EPERM ? 0 : 1;
}

static void test_a_thread_that_was_there_before_the_filter_is_under_it(void **unused)
{
    int status = 0;
    pid_t child;

    (void)unused;
    memset(shared, 0, sizeof(*shared));
    child = fork();
    if (child == 0) {
        pthread_barrier_t barrier;
        pthread_t t;

        (void)pthread_barrier_init(&barrier, NULL, 2);
        (void)pthread_create(&t, NULL, try_in_thread, &barrier);
        (void)pthread_barrier_wait(&barrier);
        become_confined(true);
        (void)pthread_barrier_wait(&barrier);
        (void)pthread_join(t, NULL);
        _exit((int)thread_before_the_filter());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static long fail_an_assertion(void)
{
    abort();
}

static void test_a_failed_assertion_still_ends_the_process_with_sigabrt(void **unused)
{
    int status = ends_with(fail_an_assertion);

    (void)unused;
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void test_an_attempt_to_start_a_thread_ends_the_process(void **unused)
{
    /* pthread_create() blocks all signals meanwhile, SIGSYS too: the kernel does not take no for an answer then */
    int status = ends_with(start_thread);

    (void)unused;
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

static long refused_call_is_reported(void)
{
    const struct log_sink log = {.fn = keep_line};

    (void)unix_socket();
    (void)tcp_socket();
    confine_report(&log);
    if (!strstr(shared->line, "calls=2 last_number=41 "))
        return 1;
    shared->line[0] = '\0';
    confine_report(&log);
    return shared->line[0] != '\0';
}

static void test_refused_calls_are_logged_once(void **unused)
{
    (void)unused;
    assert_int_equal(ends_with(refused_call_is_reported), 0);
}

#ifdef __x86_64__
static long call_of_another_architecture(void)
{
    long r;

    __asm__ volatile("int $0x80" : "=a"(r) : "0"(20l) : "memory"); /* getpid of i386 */
    return r < 0;
}

static void test_a_call_of_another_architecture_ends_the_process(void **unused)
{
    int status = ends_with(call_of_another_architecture);

    (void)unused;
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}
#endif

/* ---- the filler of an image, which has a filter of its own ------------------------------------------------------ */

static void *do_nothing(void *arg)
{
    return arg;
}

/* ends_as_filler() - how a child ends that may do what a filler may, and does this. Return: waitpid's status */
static int ends_as_filler(long (*fn)(void))
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        pthread_t first;

        if (pthread_create(&first, NULL, do_nothing, NULL) != 0 || pthread_join(first, NULL) != 0 ||
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall_filter_load_for_filler() != 0)
            _exit(100);
        _exit(fn() < 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void all_end_a_filler(const struct attempt *attempts, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        int status = ends_as_filler(attempts[i].fn);

        if (!WIFSIGNALED(status))
            print_message("# %s: status %#x\n", attempts[i].what, status);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    }
}

static void test_a_filler_that_makes_another_call_ends(void **unused)
{
    (void)unused;
    all_end_a_filler(attempts_at_files, n_attempts_at_files);
    all_end_a_filler(attempts_at_processes, n_attempts_at_processes);
    all_end_a_filler(attempts_at_the_kernel,
                     n_attempts_at_the_kernel - 1); /* the last one is allowed */
}

/* The filter must not take namespaces for threads: CLONE_NEWUTS with all that a thread has */
static long thread_elsewhere(void)
{
    return syscall(SYS_clone,
                   CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_NEWUTS,
                   NULL, NULL, NULL, NULL);
}

static long thread_and_map(void)
{
    return start_thread() < 0 ? -1 : attempts_at_the_kernel[n_attempts_at_the_kernel - 1].fn();
}

static void test_a_filler_may_start_threads_and_nothing_like_them(void **unused)
{
    int status;

    (void)unused;
    assert_int_equal(ends_as_filler(thread_and_map), 0);
    status = ends_as_filler(thread_elsewhere);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

/* ---- the VMM must be killable --------------------------------------------------------------------------------- */

/* start_vmm() - a process of this user that waits for ever; it is that user's when this returns */
static void start_vmm(uid_t uid)
{
    pid_t parent = getpid();
    int ready[2];
    char byte = 0;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    rig.vmm = (struct peer){.pid = fork(), .uid = uid, .pagemap = -1};
    if (rig.vmm.pid == 0) {
        if (uid != 0 && setuid(uid) < 0)
            _exit(1);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* which setuid() takes away */
        if (getppid() != parent || write(ready[1], &byte, 1) != 1)
            _exit(1);
        for (;;)
            (void)pause();
    }
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    rig.vmm.pidfd = (int)syscall(SYS_pidfd_open, rig.vmm.pid, 0);
    assert_true(rig.vmm.pidfd >= 0);
}

static void end_vmm(void)
{
    (void)kill(rig.vmm.pid, SIGKILL);
    (void)waitpid(rig.vmm.pid, NULL, 0);
    peer_deinit(&rig.vmm);
}

static long kill_vmm(void)
{
    return peer_stop(&rig.vmm, NULL, NULL);
}

static void test_a_confined_process_can_kill_the_vmm(void **unused)
{
    int status = 0;
    pid_t child = rig.vmm.pid;

    (void)unused;
    assert_int_equal(ends_with(kill_vmm), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    peer_deinit(&rig.vmm);
    start_vmm(0);
}

/* In a child without CAP_KILL whose VMM is somebody else's. Return: the exit status; 0 is well */
static int confine_powerless(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct before[2];
    struct __user_cap_data_struct after[2];
    const struct confine_plan plan = {.on = true, .log = &(struct log_sink){0}};

    if (syscall(SYS_capget, &head, before) < 0)
        return 2;
    before[0].effective &= ~(1u << CAP_KILL);
    before[0].permitted &= ~(1u << CAP_KILL);
    if (syscall(SYS_capset, &head, before) < 0 || confine_privileges(&plan, &rig.vmm) != -EPERM)
        return 3;
    (void)syscall(SYS_capget, &head, after);
    return memcmp(before, after, sizeof(before)) == 0 ? 0 : 4;
}

static void test_who_could_not_kill_the_vmm_keeps_what_it_has_and_is_told(void **unused)
{
    int status = 0;
    pid_t child;

    (void)unused;
    if (geteuid() != 0)
        skip();
    end_vmm();
    start_vmm(65534);
    child = fork();
    if (child == 0)
        _exit(confine_powerless());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    end_vmm();
    start_vmm(0);
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

static int begin(void **unused)
{
    (void)unused;
    test_watchdog();
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return -1;
    (void)snprintf(rig.dir, sizeof(rig.dir), "/tmp/thaw-confined-XXXXXX");
    if (!mkdtemp(rig.dir))
        return -1;
    (void)snprintf(rig.kept, sizeof(rig.kept), "%s/kept", rig.dir);
    (void)snprintf(rig.state, sizeof(rig.state), "%s/state", rig.dir);
    (void)snprintf(rig.outside, sizeof(rig.outside), "%s/outside", rig.dir);
    start_vmm(0);
    return mkdir(rig.kept, 0700) < 0 || mkdir(rig.state, 0700) < 0 || mkdir(rig.outside, 0700) < 0
               ? -1
               : 0;
}

static int finish(void **unused)
{
    static const char *const names[] = {"old", "new"};
    const char *const folders[] = {rig.kept, rig.state, rig.outside};

    (void)unused;
    end_vmm();
    for (unsigned i = 0; i < ARRAY_LEN(folders); i++) {
        for (unsigned j = 0; j < ARRAY_LEN(names); j++)
            (void)unlink(in(0, folders[i], names[j]));
        (void)rmdir(folders[i]);
    }
    return rmdir(rig.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_nothing_can_be_opened_made_or_removed_but_what_the_end_needs,
                               set_up),
        cmocka_unit_test(test_where_the_guest_runs_can_be_read_and_nothing_else),
        cmocka_unit_test_setup(test_without_the_filter_files_are_still_out_of_reach, set_up),
        cmocka_unit_test(test_without_the_filter_no_tcp_connection_can_be_made),
        cmocka_unit_test(test_no_process_can_be_started_traced_or_signalled_but_the_vmm_killed),
        cmocka_unit_test(test_the_kernel_can_be_asked_for_little),
        cmocka_unit_test(test_a_thread_that_was_there_before_the_filter_is_under_it),
        cmocka_unit_test(test_a_failed_assertion_still_ends_the_process_with_sigabrt),
        cmocka_unit_test(test_an_attempt_to_start_a_thread_ends_the_process),
        cmocka_unit_test(test_refused_calls_are_logged_once),
#ifdef __x86_64__
        cmocka_unit_test(test_a_call_of_another_architecture_ends_the_process),
#endif
        cmocka_unit_test_setup(test_a_filler_that_makes_another_call_ends, set_up),
        cmocka_unit_test(test_a_filler_may_start_threads_and_nothing_like_them),
        cmocka_unit_test(test_a_confined_process_can_kill_the_vmm),
        cmocka_unit_test(test_who_could_not_kill_the_vmm_keeps_what_it_has_and_is_told),
    };

    return cmocka_run_group_tests(tests, begin, finish);
}
