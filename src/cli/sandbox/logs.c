/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logs.c - `thaw logs`: what a sandbox's guest, VMM or pager has written
 *
 * Only files are read: nothing waits for whoever is at work on the sandbox.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "cli/cli.h"
#include "cli/sandbox/sandbox.h"
#include "node/instance.h"
#include "node/sandbox_look.h"
#include "node/tree.h"

#define VERB   "logs"
#define NAP_NS (100 * NS_PER_MS)
#define PIECE  65536

static const char help[] =
    "usage: thaw logs NAME [OPTIONS]\n"
    "\n"
    "Prints what the guest of a sandbox has written to its console: since it was resumed last, or\n"
    "before it was paused last.\n"
    "\n"
    "      --vmm           what its VMM has written\n"
    "      --pager         what its pager has written\n"
    "  -f, --follow        go on until its VMM ends\n" SANDBOX_HELP;

/* struct wish - which log, and how */
struct wish {
    const char *file; /* NULL: the guest's */
    bool follow;
};

static int take(void *ctx, int option, const char *value)
{
    struct wish *w = ctx;
    const char *file = option == 'v' ? VMM_FILE_LOG : INSTANCE_FILE_PAGER_LOG;

    (void)value;
    if (option == 'f') {
        w->follow = true;
        return CLI_OK;
    }
    if (w->file && strcmp(w->file, file) != 0)
        return cli_usage_error(VERB, "--vmm and --pager: expected one of them");
    w->file = file;
    return CLI_OK;
}

/* copy_out() - all that has been added. Return: 0 or a negative errno with a text */
static int copy_out(int fd, const char *path)
{
    static char buf[PIECE];
    ssize_t n;

    while ((n = read(fd, buf, sizeof(buf))) > 0) {
        int r = fd_write_all(STDOUT_FILENO, buf, (size_t)n);

        if (r < 0)
            return err_origin_errno(r, "cannot write");
    }
    return n < 0 ? err_origin_errno(-errno, "cannot read %s", path) : 0;
}

/* goes_on() - may there be more? The VMM writes until it ends, or until its folder goes away */
static bool goes_on(int fd, const char *path, const char *exit_path)
{
    struct stat open_one;
    struct stat named;

    return fstat(fd, &open_one) == 0 && stat(path, &named) == 0 &&
           open_one.st_ino == named.st_ino && !tree_exists(exit_path);
}

static int follow(int fd, const char *path, const char *exit_path)
{
    bool more = true;
    int r = copy_out(fd, path);

    while (r == 0 && more) {
        clock_sleep_ns(NAP_NS);
        more =
            goes_on(fd, path, exit_path); /* looked at first: then all that was written is there */
        r = copy_out(fd, path);
    }
    return r;
}

static int print_log(const char *store, const char *name, const struct wish *w)
{
    const char *file = w->file ? w->file : VMM_FILE_CONSOLE;
    struct sandbox_files files;
    char path[PATH_MAX];
    char exit_path[PATH_MAX];
    _cleanup_fd_ int fd = -1;
    int r = sandbox_files(&files, store, name);

    if (r == 0)
        r = tree_path(path, sizeof(path), files.vm, file);
    if (r == 0)
        r = tree_path(exit_path, sizeof(exit_path), files.vm, VMM_FILE_EXIT);
    if (r < 0)
        return r;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0 && w->follow)
        return follow(fd, path, exit_path);
    if (fd < 0 && errno == ENOENT && tree_path(path, sizeof(path), files.logs, file) == 0)
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return 0; /* nothing was written yet */
    return fd < 0 ? err_origin_errno(-errno, "cannot open %s", path) : copy_out(fd, path);
}

int cli_logs(int argc, char **argv)
{
    static const struct option options[] = {
        {"vmm", no_argument, NULL, 'v'},
        {"pager", no_argument, NULL, 'p'},
        {"follow", no_argument, NULL, 'f'},
        SANDBOX_OPTIONS,
    };
    struct wish w = {0};
    struct sandbox_verb v = {
        .name = VERB, .help = help, .shorts = "fh", .options = options, .take = take, .ctx = &w};
    int status;

    if (!sandbox_parse(&v, argc, argv, &status))
        return status;
    if (optind + 1 != argc)
        return cli_usage_error(VERB, "expected the name of one sandbox");
    return print_log(v.store, argv[optind], &w) < 0 ? cli_error(VERB, "%s", err_text()) : CLI_OK;
}
