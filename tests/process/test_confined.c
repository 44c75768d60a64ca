/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_confined.c - what a confined process cannot do any more, tried from inside
 *
 * Each test forks: the child confines itself as a pager does, with a process that waits as its VMM, tries a list of things,
 * and writes down what each came to. SECURITY.md says the same in words.
 */
#include "unit/testing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/linux_compat.h"
#include "pager/confine.h"
#include "pager/landlock.h"
#include "pager/syscall_filter.h"

#define MAX_TRIES 64

/* struct attempt - something to try. @expected: the errno it must fail with; 0: it must work */
struct attempt {
    const char *what;
    long (*fn)(void);
    int expected;
};

static struct shared {
    int error[MAX_TRIES]; /* what came of each */
    unsigned refused;
    int last_nr;
    char line[1024]; /* what was logged last */
} * shared;

static char dir[64];      /* the test's own folder */
static char kept[80];     /* files may be written in it */
static char state[80];    /* files may be removed in it */
static char outside[80];  /* neither */
static struct peer vmm;   /* of a process that waits */
static char path[4][128]; /* room for names */
static int control_fd = -1;

/* ---- stages --------------------------------------------------------------------------------------------------- */

static void keep_line(void *ctx, enum thaw_log_level level, const char *line)
{
    (void)ctx;
    (void)level;
    (void)snprintf(shared->line, sizeof(shared->line), "%s", line);
}

static const char *in(unsigned slot, const char *folder, const char *name)
{
    (void)snprintf(path[slot], sizeof(path[slot]), "%s/%s", folder, name);
    return path[slot];
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
        .state_dir = state,
        .write_dir = kept,
        .control = &control,
        .log = &log,
    };
    int r = control_init(&control);

    control_fd = control.fd;
    if (r == 0)
        r = confine_privileges(&plan, &vmm);
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

/* ---- attempts: files ------------------------------------------------------------------------------------------ */

static long read_passwd(void)
{
    return open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static long read_in_kept_folder(void)
{
    return open(in(0, kept, "old"), O_RDONLY | O_CLOEXEC);
}

static long write_to_old_file(void)
{
    return open(in(0, kept, "old"), O_WRONLY | O_CLOEXEC);
}

static long open_for_writing_by_name(const char *folder)
{
    return open(in(0, folder, "new"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

static long make_file_outside(void)
{
    return open_for_writing_by_name(outside);
}

static long make_file_in_state_folder(void)
{
    return open_for_writing_by_name(state);
}

static long make_file_in_kept_folder(void)
{
    return open_for_writing_by_name(kept);
}

static long replace_file_in_kept_folder(void)
{
    return rename(in(0, kept, "new"), in(1, kept, "old"));
}

static long move_file_out(void)
{
    return rename(in(0, kept, "old"), in(1, outside, "new"));
}

static long move_file_in(void)
{
    return rename(in(0, outside, "old"), in(1, kept, "new"));
}

static long remove_outside(void)
{
    return unlink(in(0, outside, "old"));
}

static long remove_state_file(void)
{
    return unlink(in(0, state, "old"));
}

static long make_folder(void)
{
    return mkdir(in(0, kept, "folder"), 0700);
}

static long make_symlink(void)
{
    return symlink("/etc/passwd", in(0, kept, "link"));
}

static long make_link(void)
{
    return link("/etc/passwd", in(0, kept, "link"));
}

static long change_mode(void)
{
    return chmod(in(0, kept, "old"), 0666);
}

static long change_owner(void)
{
    return chown(in(0, kept, "old"), 65534, 65534);
}

static long cut_file(void)
{
    return truncate(in(0, kept, "old"), 1);
}

/* ---- attempts: processes -------------------------------------------------------------------------------------- */

static long fork_one(void)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    return pid;
}

static void *nothing(void *arg)
{
    return arg;
}

static long start_thread(void)
{
    pthread_t t;
    int r = pthread_create(&t, NULL, nothing, NULL);

    errno = r;
    return -r;
}

static long start_program(void)
{
    char *argv[] = {(char *)"true", NULL};

    return execv("/bin/true", argv);
}

static long trace_vmm(void)
{
    return ptrace(PTRACE_SEIZE, vmm.pid, NULL, NULL);
}

static long read_vmm(void)
{
    char byte;
    struct iovec iov = {&byte, 1};

    return process_vm_readv(vmm.pid, &iov, 1, &iov, 1, 0);
}

static long kill_init(void)
{
    return kill(1, SIGCONT);
}

static long kill_vmm_by_number(void)
{
    return kill(vmm.pid, 0);
}

static long kill_thread_of_vmm(void)
{
    return syscall(SYS_tgkill, vmm.pid, vmm.pid, SIGABRT);
}

static long hold_init(void)
{
    return syscall(SYS_pidfd_open, 1, 0);
}

static long take_from_vmm(void)
{
    return syscall(SYS_pidfd_getfd, vmm.pidfd, 0, 0);
}

static long stop_vmm_for_a_while(void)
{
    return syscall(SYS_pidfd_send_signal, vmm.pidfd, SIGSTOP, NULL, 0);
}

static long ask_for_vmm(void)
{
    return peer_can_stop(&vmm);
}

/* ---- attempts: network, kernel -------------------------------------------------------------------------------- */

static long unix_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static long tcp_socket(void)
{
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

static long tcp_connection(void)
{
    const struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons(9),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    return connect(fd, (const struct sockaddr *)&to, sizeof(to));
}

static long another_userfaultfd(void)
{
    return syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
}

static long register_memory(void)
{
    struct uffdio_register reg = {0};

    return ioctl(control_fd, UFFDIO_REGISTER, &reg);
}

static long unregister_memory(void)
{
    struct uffdio_range range = {0};

    return ioctl(control_fd, UFFDIO_UNREGISTER, &range);
}

static long type_into_terminal(void)
{
    return ioctl(STDERR_FILENO, TIOCSTI, "x");
}

static long install_page(void)
{
    struct uffdio_copy copy = {0};

    return ioctl(control_fd, UFFDIO_COPY,
                 &copy); /* gets through to the eventfd, which knows no such thing */
}

static long map_code(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? -1 : 0;
}

static long map_data(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? -1 : 0;
}

static long make_data_code(void)
{
    static char page[8192];

    return mprotect((void *)align_up((uintptr_t)page, 4096), 4096, PROT_READ | PROT_EXEC);
}

static long become_dumpable(void)
{
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static long become_root(void)
{
    return setuid(0);
}

static long new_namespace(void)
{
    return unshare(CLONE_NEWUSER);
}

static long more_files(void)
{
    const struct rlimit more = {1 << 20, 1 << 20};

    return setrlimit(RLIMIT_NOFILE, &more);
}

static long load_bpf(void)
{
    return syscall(SYS_bpf, 0, NULL, 0);
}

static long io_uring(void)
{
    return syscall(SYS_io_uring_setup, 1, NULL);
}

static long take_sigsys(void)
{
    struct sigaction act = {.sa_handler = SIG_IGN};

    return sigaction(SIGSYS, &act, NULL);
}

static long unknown_call(void)
{
    return syscall(1000);
}

/* ---- tests ---------------------------------------------------------------------------------------------------- */

static int set_up(void **unused)
{
    (void)unused;
    touch(in(0, kept, "old"));
    touch(in(0, state, "old"));
    touch(in(0, outside, "old"));
    (void)unlink(in(0, kept, "new"));
    return 0;
}

static void test_nothing_can_be_opened_made_or_removed_but_what_the_end_needs(void **unused)
{
    static const struct attempt attempts[] = {
        {"read /etc/passwd", read_passwd, EPERM},
        {"read a file in the folder of the statistics", read_in_kept_folder, EPERM},
        {"write to a file that is there", write_to_old_file, EPERM},
        {"make a file elsewhere", make_file_outside, EACCES},
        {"make a file in the state folder", make_file_in_state_folder, EACCES},
        {"move a file out", move_file_out, EACCES},
        {"move a file in", move_file_in, EACCES},
        {"remove a file elsewhere", remove_outside, EACCES},
        {"make a folder", make_folder, EPERM},
        {"make a symbolic link", make_symlink, EPERM},
        {"make a link", make_link, EPERM},
        {"change a mode", change_mode, EPERM},
        {"change an owner", change_owner, EPERM},
        {"cut a file", cut_file, EPERM},
        {"make a file in the folder of the statistics", make_file_in_kept_folder, 0},
        {"replace a file there", replace_file_in_kept_folder, 0},
        {"remove a file in the state folder", remove_state_file, 0},
    };

    (void)unused;
    if (landlock_version() < 0)
        skip();
    try_all(true, attempts, ARRAY_LEN(attempts));
}

static void test_without_the_filter_files_are_still_out_of_reach(void **unused)
{
    static const struct attempt attempts[] = {
        {"read /etc/passwd", read_passwd, EACCES},
        {"make a file elsewhere", make_file_outside, EACCES},
        {"make a folder", make_folder, EACCES},
        {"make a symbolic link", make_symlink, EACCES},
        {"start a program", start_program, EACCES},
        {"remove a file elsewhere", remove_outside, EACCES},
        {"change an owner", change_owner, EPERM},
    };

    (void)unused;
    if (landlock_version() < 0)
        skip();
    try_all(false, attempts, ARRAY_LEN(attempts));
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
    static const struct attempt attempts[] = {
        {"fork", fork_one, EPERM},
        {"start a program", start_program, EPERM},
        {"trace the VMM", trace_vmm, EPERM},
        {"read the VMM's memory", read_vmm, EPERM},
        {"signal process 1", kill_init, EPERM},
        {"signal the VMM by number", kill_vmm_by_number, EPERM},
        {"signal a thread of the VMM", kill_thread_of_vmm, EPERM},
        {"hold process 1", hold_init, EPERM},
        {"take a descriptor of the VMM", take_from_vmm, EPERM},
        {"stop the VMM for a while", stop_vmm_for_a_while, EPERM},
        {"ask whether the VMM lives", ask_for_vmm, 0},
    };

    (void)unused;
    try_all(true, attempts, ARRAY_LEN(attempts));
}

static void test_the_kernel_can_be_asked_for_little(void **unused)
{
    static const struct attempt attempts[] = {
        {"make a unix socket", unix_socket, EPERM},
        {"make a TCP socket", tcp_socket, EPERM},
        {"make a userfaultfd", another_userfaultfd, EPERM},
        {"register memory", register_memory, EPERM},
        {"unregister memory", unregister_memory, EPERM},
        {"type into a terminal", type_into_terminal, EPERM},
        {"map code", map_code, EPERM},
        {"make data code", make_data_code, EPERM},
        {"become dumpable", become_dumpable, EPERM},
        {"become root", become_root, EPERM},
        {"make a namespace", new_namespace, EPERM},
        {"raise a limit", more_files, EPERM},
        {"load a BPF program", load_bpf, EPERM},
        {"set up io_uring", io_uring, EPERM},
        {"take SIGSYS", take_sigsys, EPERM},
        {"make a call that does not exist", unknown_call, EPERM},
        {"install a page", install_page, ENOTTY},
        {"map data", map_data, 0},
    };

    (void)unused;
    try_all(true, attempts, ARRAY_LEN(attempts));
    assert_int_equal(shared->refused, ARRAY_LEN(attempts) - 2);
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

/* ---- the VMM must be killable --------------------------------------------------------------------------------- */

/* start_vmm() - a process of this user that waits for ever; it is that user's when this returns */
static void start_vmm(uid_t uid)
{
    pid_t parent = getpid();
    int ready[2];
    char byte = 0;

    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    vmm = (struct peer){.pid = fork(), .uid = uid, .pagemap = -1};
    if (vmm.pid == 0) {
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
    vmm.pidfd = (int)syscall(SYS_pidfd_open, vmm.pid, 0);
    assert_true(vmm.pidfd >= 0);
}

static void end_vmm(void)
{
    (void)kill(vmm.pid, SIGKILL);
    (void)waitpid(vmm.pid, NULL, 0);
    peer_deinit(&vmm);
}

static long kill_vmm(void)
{
    return peer_stop(&vmm, NULL, NULL);
}

static void test_a_confined_process_can_kill_the_vmm(void **unused)
{
    int status = 0;
    pid_t child = vmm.pid;

    (void)unused;
    assert_int_equal(ends_with(kill_vmm), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    peer_deinit(&vmm);
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
    if (syscall(SYS_capset, &head, before) < 0 || confine_privileges(&plan, &vmm) != -EPERM)
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
    (void)snprintf(dir, sizeof(dir), "/tmp/thaw-confined-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    (void)snprintf(kept, sizeof(kept), "%s/kept", dir);
    (void)snprintf(state, sizeof(state), "%s/state", dir);
    (void)snprintf(outside, sizeof(outside), "%s/outside", dir);
    start_vmm(0);
    return mkdir(kept, 0700) < 0 || mkdir(state, 0700) < 0 || mkdir(outside, 0700) < 0 ? -1 : 0;
}

static int finish(void **unused)
{
    static const char *const names[] = {"old", "new"};
    const char *const folders[] = {kept, state, outside};

    (void)unused;
    end_vmm();
    for (unsigned i = 0; i < ARRAY_LEN(folders); i++) {
        for (unsigned j = 0; j < ARRAY_LEN(names); j++)
            (void)unlink(in(0, folders[i], names[j]));
        (void)rmdir(folders[i]);
    }
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_nothing_can_be_opened_made_or_removed_but_what_the_end_needs,
                               set_up),
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
        cmocka_unit_test(test_a_confined_process_can_kill_the_vmm),
        cmocka_unit_test(test_who_could_not_kill_the_vmm_keeps_what_it_has_and_is_told),
    };

    return cmocka_run_group_tests(tests, begin, finish);
}
