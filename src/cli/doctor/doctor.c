/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor.c - `thaw doctor`: what this host can do, and what to do about the rest
 *
 * The table below is the whole list. Each check fills in a finding; printing knows nothing of the
 * checks. The verb succeeds if no check came out as "missing".
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/linux_compat.h"
#include "cli/cli.h"
#include "cli/doctor/doctor.h"

#define TEXT_COLUMN  24u
#define LINE_COLUMNS 100u

static const struct check {
    const char *name;
    void (*run)(struct doctor_finding *f);
} checks[] = {
    {"kernel", doctor_kernel},
    {"userfaultfd", doctor_userfaultfd},
    {"features", doctor_features},
    {"page-fault", doctor_page_fault},
    {"kernel-fault", doctor_kernel_fault},
    {"discard", doctor_discard},
    {"write-tracking", doctor_write_tracking},
    {"run-directory", doctor_run_directory},
    {"pidfd", doctor_pidfd},
    {"take-over", doctor_take_over},
    {"landlock", doctor_landlock},
    {"seccomp", doctor_seccomp},
    {"kvm", doctor_kvm},
    {"memory", doctor_memory},
    {"swap", doctor_swap},
    {"huge-pages", doctor_huge_pages},
    {"thp", doctor_thp},
    {"cpu-idle", doctor_cpu_idle},
    {"open-files", doctor_open_files},
    {"locked-memory", doctor_locked_memory},
    {"memory-maps", doctor_memory_maps},
};

#define N_CHECKS ARRAY_LEN(checks)

static const struct {
    const char *name;
    const char *colour; /* SGR parameters, on terminals */
} states[N_DOCTOR_STATES] = {
    [DOCTOR_OK] = {"ok", "32"},
    [DOCTOR_WARN] = {"warn", "33"},
    [DOCTOR_MISSING] = {"missing", "1;31"},
};

void doctor_found(struct doctor_finding *f, enum doctor_state state, const char *fmt, ...)
{
    va_list args;

    f->state = state;
    va_start(args, fmt);
    (void)vsnprintf(f->found, sizeof(f->found), fmt, args);
    va_end(args);
}

void doctor_advise(struct doctor_finding *f, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(f->advice, sizeof(f->advice), fmt, args);
    va_end(args);
}

static int wait_until(int pidfd, unsigned deadline_ms)
{
    struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
    int n;

    do {
        n = poll(&pfd, 1, (int)deadline_ms);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return n == 0 ? -ETIMEDOUT : 0;
}

int doctor_in_child(int (*fn)(void), unsigned deadline_ms)
{
    _cleanup_fd_ int pidfd = -1;
    int status = 0;
    pid_t child;
    int r;

    child = fork();
    if (child < 0)
        return -errno;
    if (child == 0)
        _exit(fn());
    pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    r = pidfd < 0 ? -errno : wait_until(pidfd, deadline_ms);
    if (r < 0)
        (void)kill(child, SIGKILL);
    if (waitpid(child, &status, 0) < 0)
        return -errno;
    if (r < 0)
        return r;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -ECHILD;
}

/* Prints @text in lines of words from TEXT_COLUMN on, where the cursor is already. */
static void print_wrapped(const char *text)
{
    size_t column = TEXT_COLUMN;

    while (*text) {
        size_t n = strcspn(text, " ");

        if (column > TEXT_COLUMN && column + 1 + n > LINE_COLUMNS) {
            printf("\n%*s", (int)TEXT_COLUMN, "");
            column = TEXT_COLUMN;
        } else if (column > TEXT_COLUMN) {
            putchar(' ');
            column++;
        }
        printf("%.*s", (int)n, text);
        column += n;
        text += n;
        text += strspn(text, " ");
    }
    putchar('\n');
}

static void print_finding(const char *name, const struct doctor_finding *f, bool colours)
{
    const char *state = states[f->state].name;

    if (colours)
        printf("\x1b[%sm%-7s\x1b[0m %-15s ", states[f->state].colour, state, name);
    else
        printf("%-7s %-15s ", state, name);
    print_wrapped(f->found);
    if (f->advice[0]) {
        char line[sizeof(f->advice) + 4];

        (void)snprintf(line, sizeof(line), "-> %s", f->advice);
        printf("%*s", (int)TEXT_COLUMN, "");
        print_wrapped(line);
    }
}

static void print_text(const struct doctor_finding found[N_CHECKS], unsigned n_missing)
{
    bool colours = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");

    for (unsigned i = 0; i < N_CHECKS; i++)
        print_finding(checks[i].name, &found[i], colours);
    if (n_missing > 0)
        printf("\nThis host cannot serve a VM: mend what is missing (%u).\n", n_missing);
    else
        printf("\nThis host can serve VMs.\n");
}

static int print_json(const struct doctor_finding found[N_CHECKS], unsigned n_missing)
{
    json_t *list = json_array();
    json_t *top;
    int r = -1;

    for (unsigned i = 0; i < N_CHECKS; i++) {
        (void)json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name", checks[i].name,
                                                    "state", states[found[i].state].name, "found",
                                                    found[i].found, "advice", found[i].advice));
    }
    top = json_pack("{s:s, s:b, s:o}", "version", THAW_VERSION, "can_serve", n_missing == 0,
                    "checks", list);
    if (top) {
        r = json_dumpf(top, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    json_decref(top);
    return r;
}

static void print_help(void)
{
    printf("usage: thaw doctor [--json]\n"
           "\n"
           "Tries what serving a VM takes, and says what is missing and what to do about it.\n"
           "\n"
           "  --json   one JSON object: version, can_serve, checks (name, state, found, advice)\n"
           "\n"
           "Each line is ok, warn (VMs can be served; something is slower, missing or misleading)\n"
           "or missing (no VM can be served). Exit status: 0 if nothing is missing, else 1.\n");
}

int cli_doctor(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct doctor_finding found[N_CHECKS];
    unsigned n_missing = 0;
    bool json = false;
    int c;

    opterr = 0;
    optind = 1;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 'h') {
            print_help();
            return CLI_OK;
        }
        if (c != 'j')
            return cli_usage_error("doctor", "unknown option %s", argv[optind - 1]);
        json = true;
    }
    if (optind < argc)
        return cli_usage_error("doctor", "unexpected argument %s", argv[optind]);

    memset(found, 0, sizeof(found));
    for (unsigned i = 0; i < N_CHECKS; i++) {
        checks[i].run(&found[i]);
        n_missing += found[i].state == DOCTOR_MISSING;
    }
    if (!json)
        print_text(found, n_missing);
    else if (print_json(found, n_missing) < 0)
        return cli_error("doctor", "cannot write JSON");
    if (fflush(stdout) != 0)
        return cli_error("doctor", "cannot write: %s", strerror(errno));
    return n_missing == 0 ? CLI_OK : CLI_FAILED;
}
