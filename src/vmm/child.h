/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_CHILD_H
#define VMM_CHILD_H

/*
 * child.h - programs that outlive whoever has started them: VMMs and their pagers
 *
 * A program belongs to a small process of its own, its keeper, which waits for it and writes down how it ended. Starter and
 * program have nothing to do with each other afterwards: the starter may end, and whoever comes later finds the program by
 * its number and the time at which it began.
 */

#include <sys/types.h>

#include "base/base.h"

/** struct vmm_id - which process, of a VMM or a pager: a number alone is used again one day. A zeroed one is none */
struct vmm_id {
    pid_t pid;
    uint64_t start_ticks; /* procfs_start_ticks() */
};

/**
 * struct child_spec - what is to be started
 * @argv:      (borrow) with a NULL at its end. The program is argv[0]: looked for on PATH if there is no slash in it, else
 *             relative to the starter's folder, not to @folder
 * @folder:    what the program has as its working directory
 * @env:       (borrow) changes to the starter's environment, with a NULL at the end: "NAME=value" sets, "NAME" takes away;
 *             NULL: none
 * @stdin_fd, @stdout_fd, @stderr_fd: (borrow for the call) -1: /dev/null. Note that 0 is the starter's own stdin
 * @exit_file: in which it says how the program ended, in @folder if relative; NULL: nowhere
 * @id_file:   in which it says which process it is, before it runs (child_id_read()); NULL: nowhere
 */
struct child_spec {
    const char *const *argv;
    const char *folder;
    const char *const *env;
    int stdin_fd;
    int stdout_fd;
    int stderr_fd;
    const char *exit_file;
    const char *id_file;
};

/**
 * child_start() - start a program
 * @out: set on success
 *
 * The program gets nothing of the starter but what child_spec says, its user, limits and oom_score_adj: no descriptors, no
 * blocked or ignored signals, no session, no controlling terminal. It is the leader of a process group.
 *
 * Context: makes processes with fork(); other threads of the caller do no harm.
 * Return: 0 once the program runs, or a negative errno with a text; then it does not. -ENOENT: there is no such program
 */
int child_start(const struct child_spec *spec, struct vmm_id *out);

/** child_id_read() - what @path, an id_file, says. Return: 0 or a negative errno with a text */
int child_id_read(const char *path, struct vmm_id *out);

/**
 * fd_wait() - until something can be done with a descriptor: poll(2), whatever signals come
 * @events:      POLLIN of a pidfd: until all threads of its process have ended, waited for or not
 * @deadline_ns: of clock_now_ns()
 *
 * Return: 0; -ETIMEDOUT; another negative errno (no text)
 */
int fd_wait(int fd, short events, uint64_t deadline_ns);

/** child_has_ended() - is there no such process any more, or only a zombie? */
bool child_has_ended(struct vmm_id id);

/** child_wait_end() - Return: 0 when it has ended; -ETIMEDOUT (no text); another negative errno with a text */
int child_wait_end(struct vmm_id id, unsigned timeout_ms);

/** child_signal() - send it a signal. Return: 0; -ESRCH (no text) if it has ended; another negative errno with a text */
int child_signal(struct vmm_id id, int signal);

/** child_kill() - SIGKILL, and wait until it has ended. One that has ended is no error. Return: 0 or -errno with a text */
int child_kill(struct vmm_id id, unsigned timeout_ms);

/** enum child_ending - how a program ended */
enum child_ending {
    CHILD_UNKNOWN, /* nobody wrote it down: its keeper was killed, or it runs */
    CHILD_EXITED,
    CHILD_SIGNALLED,
};

/** struct child_end - @number: the exit status or the signal */
struct child_end {
    enum child_ending how;
    int number;
};

/** child_end_read() - what @path, an exit_file, says. Return: CHILD_UNKNOWN if it says nothing */
struct child_end child_end_read(const char *path);

/** child_end_text() - "exited with status 1", "killed by signal 9 (KILL)", "ended, nobody knows how" */
void child_end_text(struct child_end end, char *buf, size_t len);

/** child_log_open() - a log for a program's output: a new, empty file. Return: fd (give), appending; or -errno with a text */
int child_log_open(const char *path);

/** log_last_line() - the last line of the file @path that is not empty, cut at @len; "" if there is none */
void log_last_line(const char *path, char *buf, size_t len);

/**
 * program_find() - the file that is run when somebody says @name
 * @out: (give) absolute; free() it
 *
 * Return: 0; -ENOENT or -EACCES with a text
 */
int program_find(const char *name, char **out);

/**
 * program_stamp() - which file a program is, such that another file, or another content of it, has another stamp
 * @out: (give) path, device, inode, bytes and the time of its last change; free() it. NULL if a stamp would say nothing: a
 *       script's answers come from other files
 *
 * Return: 0; as program_find()
 */
int program_stamp(const char *name, char **out);

/**
 * program_output() - run a program to its end, for what it prints
 * @argv: (borrow) as in child_spec
 * @out:  (give) what it wrote to stdout, at most 64 KiB, with a NUL behind it; free() it
 *
 * Return: 0; -ENOENT if there is no such program; -ETIMEDOUT, then it was killed; -EIO if it ended with a status other than
 * 0; all with a text
 */
int program_output(const char *const *argv, unsigned timeout_ms, char **out);

#endif
