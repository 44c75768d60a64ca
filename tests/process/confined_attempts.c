/* SPDX-License-Identifier: Apache-2.0 */
/* confined_attempts.c - each attempt is a function that does one thing and returns what the call did, with its errno */
#include "process/confined_attempts.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/linux_compat.h"

struct confined_rig rig = {.tasks_fd = -1};

const char *in(unsigned slot, const char *folder, const char *name)
{
    static char names[4][128];

    (void)snprintf(names[slot], sizeof(names[slot]), "%s/%s", folder, name);
    return names[slot];
}

/* ---- attempts: files ------------------------------------------------------------------------------------------ */

static long read_passwd(void)
{
    return open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static long read_in_kept_folder(void)
{
    return open(in(0, rig.kept, "old"), O_RDONLY | O_CLOEXEC);
}

static long write_to_old_file(void)
{
    return open(in(0, rig.kept, "old"), O_WRONLY | O_CLOEXEC);
}

static long open_for_writing_by_name(const char *folder)
{
    return open(in(0, folder, "new"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

static long make_file_outside(void)
{
    return open_for_writing_by_name(rig.outside);
}

static long make_file_in_state_folder(void)
{
    return open_for_writing_by_name(rig.state);
}

static long make_file_in_kept_folder(void)
{
    return open_for_writing_by_name(rig.kept);
}

static long replace_file_in_kept_folder(void)
{
    return rename(in(0, rig.kept, "new"), in(1, rig.kept, "old"));
}

static long move_file_out(void)
{
    return rename(in(0, rig.kept, "old"), in(1, rig.outside, "new"));
}

static long move_file_in(void)
{
    return rename(in(0, rig.outside, "old"), in(1, rig.kept, "new"));
}

static long remove_outside(void)
{
    return unlink(in(0, rig.outside, "old"));
}

static long remove_state_file(void)
{
    return unlink(in(0, rig.state, "old"));
}

static long make_folder(void)
{
    return mkdir(in(0, rig.kept, "folder"), 0700);
}

static long make_symlink(void)
{
    return symlink("/etc/passwd", in(0, rig.kept, "link"));
}

static long make_link(void)
{
    return link("/etc/passwd", in(0, rig.kept, "link"));
}

static long change_mode(void)
{
    return chmod(in(0, rig.kept, "old"), 0666);
}

static long change_owner(void)
{
    return chown(in(0, rig.kept, "old"), 65534, 65534);
}

static long cut_file(void)
{
    return truncate(in(0, rig.kept, "old"), 1);
}

/* ---- attempts: where the VMM's threads run -------------------------------------------------------------------- */

/* open_at() - as a pager does that follows the guest */
static long open_at(const char *name, int flags)
{
    return openat(rig.tasks_fd, name, flags | O_CLOEXEC);
}

static const char *of_vmm(const char *name)
{
    static char path[64];

    (void)snprintf(path, sizeof(path), "%d/%s", rig.vmm.pid, name);
    return path;
}

static long read_where_vmm_runs(void)
{
    return open_at(of_vmm("stat"), O_RDONLY);
}

static long open_memory_of_vmm(void)
{
    return open_at(of_vmm("mem"), O_RDONLY);
}

static long write_to_vmm(void)
{
    return open_at(of_vmm("comm"), O_WRONLY);
}

static long leave_by_root_of_vmm(void)
{
    return open_at(of_vmm("root/etc/passwd"), O_RDONLY);
}

static long leave_by_parents(void)
{
    return open_at("../../self/status", O_RDONLY);
}

static long leave_by_absolute_name(void)
{
    return open_at("/etc/passwd", O_RDONLY);
}

static long list_threads_of_vmm(void)
{
    char entries[512];

    return syscall(SYS_getdents64, rig.tasks_fd, entries, sizeof(entries));
}

static long name_any_folder(void)
{
    for (int fd = -1; fd < 100; fd++) {
        if (openat(fd, "/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0 || errno != EPERM)
            return 0;
    }
    return -1;
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

long start_thread(void)
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
    return ptrace(PTRACE_SEIZE, rig.vmm.pid, NULL, NULL);
}

static long read_vmm(void)
{
    char byte;
    struct iovec iov = {&byte, 1};

    return process_vm_readv(rig.vmm.pid, &iov, 1, &iov, 1, 0);
}

static long kill_init(void)
{
    return kill(1, SIGCONT);
}

static long kill_vmm_by_number(void)
{
    return kill(rig.vmm.pid, 0);
}

static long kill_thread_of_vmm(void)
{
    return syscall(SYS_tgkill, rig.vmm.pid, rig.vmm.pid, SIGABRT);
}

static long hold_init(void)
{
    return syscall(SYS_pidfd_open, 1, 0);
}

static long take_from_vmm(void)
{
    return syscall(SYS_pidfd_getfd, rig.vmm.pidfd, 0, 0);
}

static long stop_vmm_for_a_while(void)
{
    return syscall(SYS_pidfd_send_signal, rig.vmm.pidfd, SIGSTOP, NULL, 0);
}

static long ask_for_vmm(void)
{
    return peer_can_stop(&rig.vmm);
}

/* ---- attempts: network, kernel -------------------------------------------------------------------------------- */

long unix_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

long tcp_socket(void)
{
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

long tcp_connection(void)
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

    return ioctl(rig.control_fd, UFFDIO_REGISTER, &reg);
}

static long map_what_is_cached(void)
{
    struct uffdio_continue more = {0};

    return ioctl(rig.control_fd, UFFDIO_CONTINUE, &more);
}

static long type_into_terminal(void)
{
    return ioctl(STDERR_FILENO, TIOCSTI, "x");
}

static long install_page(void)
{
    struct uffdio_copy copy = {0};

    return ioctl(rig.control_fd, UFFDIO_COPY,
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

/* ---- tables ---------------------------------------------------------------------------------------------------- */

const struct attempt attempts_at_files[] = {
    {"read /etc/passwd", read_passwd, EPERM},
    {"read a file in the folder of the statistics", read_in_kept_folder, EPERM},
    {"write to a file that is there", write_to_old_file, EPERM},
    {"make a file elsewhere", make_file_outside, EACCES},
    {"make a file in the rig.state folder", make_file_in_state_folder, EACCES},
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
    {"remove a file in the rig.state folder", remove_state_file, 0},
};
const unsigned n_attempts_at_files = ARRAY_LEN(attempts_at_files);

const struct attempt attempts_at_tasks[] = {
    {"read where the VMM runs", read_where_vmm_runs, 0},
    {"list the VMM's threads", list_threads_of_vmm, 0},
    {"open the VMM's memory", open_memory_of_vmm, EACCES},
    {"write to a file of the VMM", write_to_vmm, EACCES},
    {"leave by the VMM's root folder", leave_by_root_of_vmm, EACCES},
    {"leave by way of the parents", leave_by_parents, EACCES},
    {"leave by an absolute name", leave_by_absolute_name, EACCES},
    {"read /etc/passwd", read_passwd, EPERM},
    {"make a folder", make_folder, EPERM},
};
const unsigned n_attempts_at_tasks = ARRAY_LEN(attempts_at_tasks);

const struct attempt attempts_without_tasks[] = {
    {"name any folder", name_any_folder, EPERM},
};
const unsigned n_attempts_without_tasks = ARRAY_LEN(attempts_without_tasks);

const struct attempt attempts_at_files_by_landlock[] = {
    {"read /etc/passwd", read_passwd, EACCES},
    {"make a file elsewhere", make_file_outside, EACCES},
    {"make a folder", make_folder, EACCES},
    {"make a symbolic link", make_symlink, EACCES},
    {"start a program", start_program, EACCES},
    {"remove a file elsewhere", remove_outside, EACCES},
    {"change an owner", change_owner, EPERM},
};
const unsigned n_attempts_at_files_by_landlock = ARRAY_LEN(attempts_at_files_by_landlock);

const struct attempt attempts_at_processes[] = {
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
const unsigned n_attempts_at_processes = ARRAY_LEN(attempts_at_processes);

const struct attempt attempts_at_the_kernel[] = {
    {"make a unix socket", unix_socket, EPERM},
    {"make a TCP socket", tcp_socket, EPERM},
    {"make a userfaultfd", another_userfaultfd, EPERM},
    {"register memory", register_memory, EPERM},
    {"map what is cached", map_what_is_cached, EPERM},
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
const unsigned n_attempts_at_the_kernel = ARRAY_LEN(attempts_at_the_kernel);
