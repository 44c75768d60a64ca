/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exec.c - `thaw exec`: run a command in a sandbox, over its serial console
 *
 * The sandbox itself is not held meanwhile: it can be looked at, paused and killed. Its console is: two commands typed at the same
 * time would be one mess.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/sandbox/sandbox.h"
#include "node/console.h"
#include "node/sandbox_look.h"
#include "node/tree.h"

#define VERB       "exec"
#define TIMEOUT_MS 60000u

static const char help[] =
    "usage: thaw exec NAME [--timeout SECONDS] -- COMMAND...\n"
    "\n"
    "Runs a command in the shell at a sandbox's serial console, prints its output, and ends with "
    "its\n"
    "exit status. The words of COMMAND are joined with blanks and are the shell's to understand.\n"
    "A child of that shell runs them, with nothing to read; what it writes and its errors are "
    "one.\n"
    "\n"
    "      --timeout SECONDS  that the command may take (60); it goes on in the guest all the "
    "same\n" SANDBOX_HELP;

static int take(void *ctx, int option, const char *value)
{
    (void)option;
    return sandbox_parse_seconds(VERB, "--timeout", value, ctx);
}

/* join() - Return: (give) NULL: no memory */
static char *join(char *const *words)
{
    size_t len = 1;
    char *line;

    for (char *const *w = words; *w; w++)
        len += strlen(*w) + 1;
    line = calloc(1, len);
    for (char *const *w = words; *w && line; w++) {
        if (w != words)
            strcat(line, " "); /* NOLINT: there is room for all of it */
        strcat(line, *w);      /* NOLINT: the same */
    }
    return line;
}

/* lock_console() - it is ours until the fd is closed. @deadline_ns: to wait for */
static int lock_console(const char *store, const char *name, uint64_t deadline_ns)
{
    _cleanup_fd_ int fd = -1;
    struct sandbox_files files;
    char path[PATH_MAX];
    int r = sandbox_files(&files, store, name);

    if (r == 0)
        r = tree_path(path, sizeof(path), files.vm, VMM_FILE_CONSOLE);
    if (r < 0)
        return r;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return err_origin_errno(-errno, "cannot open %s", path);
    r = fd_lock(fd, LOCK_EX, deadline_ns);
    if (r == -EWOULDBLOCK)
        return err_origin(-EBUSY, "somebody else is at the console of the sandbox %s", name);
    return r < 0 ? err_origin_errno(r, "cannot lock %s", path) : TAKE_FD(fd);
}

static int print(void *ctx, const char *bytes, size_t len)
{
    int r = fd_write_all(STDOUT_FILENO, bytes, len);

    (void)ctx;
    return r < 0 ? err_origin_errno(r, "cannot write") : 0;
}

/* open_vm() - its VMM, without the sandbox */
static int open_vm(struct vmm **out, const char *store, const char *name)
{
    _cleanup_(sandbox_closep) struct sandbox *s = NULL;
    int r = sandbox_open(&s, store, name, SANDBOX_RECONCILED, SANDBOX_LOCK_MS);

    if (r == 0 && !s->origin.has_shell)
        r = err_origin(-EINVAL, "the template %s has no shell at its serial console",
                       s->record.template_name);
    return r == 0 ? sandbox_vm(s, out) : r;
}

static int run(const char *store, const char *name, const char *command, unsigned timeout_ms,
               int *status)
{
    const struct console_wait wait = {.timeout_ms = timeout_ms};
    _cleanup_(vmm_freep) struct vmm *vmm = NULL;
    _cleanup_fd_ int lock_fd = -1;
    struct console_result result = {0};
    int r = open_vm(&vmm, store, name);

    if (r < 0)
        return r;
    lock_fd = lock_console(store, name, clock_now_ns() + timeout_ms * NS_PER_MS);
    if (lock_fd < 0)
        return lock_fd;
    r = console_run(vmm, command, CONSOLE_SHELL_CHILD, &wait, print, NULL, &result);
    if (r == 0)
        *status = result.status;
    console_result_deinit(&result);
    return r;
}

int cli_exec(int argc, char **argv)
{
    static const struct option options[] = {
        {"timeout", required_argument, NULL, 't'},
        SANDBOX_OPTIONS,
    };
    unsigned timeout_ms = TIMEOUT_MS;
    struct sandbox_verb v = {.name = VERB,
                             .help = help,
                             .shorts = "h",
                             .options = options,
                             .take = take,
                             .ctx = &timeout_ms};
    char *command;
    int status;

    if (!sandbox_parse(&v, argc, argv, &status))
        return status;
    if (argc - optind < 2)
        return cli_usage_error(VERB, "expected the name of a sandbox, and a command behind --");
    command = join(argv + optind + 1);
    if (!command)
        return cli_error(VERB, "no memory for the command");
    if (run(v.store, argv[optind], command, timeout_ms, &status) < 0)
        status = cli_error(VERB, "%s", err_text());
    free(command);
    return status;
}
