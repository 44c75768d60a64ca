/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SERVE_OPTIONS_H
#define CLI_SERVE_OPTIONS_H

/* serve_options.h - the command line of `thaw serve`, understood */

#include <limits.h>

#include <thaw/thaw.h>

#include "base/base.h"

#define SERVE_MAX_UIDS 64u

/** struct serve_args - options; strings are (borrow) from the command line */
struct serve_args {
    struct thaw_pager_options opts;
    const char *stats_path; /* NULL: stdout */
    char write_dir[PATH_MAX];
    int resume_fd; /* owned; -1: none */
    bool around_given;
    bool share_given;
    uid_t uids[SERVE_MAX_UIDS];
    enum thaw_log_level log_level;
    unsigned grace_ms;
    bool supervise;
    bool grace_given;
    const char *
        fixed; /* an option that was given and cannot be chosen when a VM is taken over; NULL: none */
    bool help;
};

extern const char serve_help[];

/** serve_parse_args() - Return: CLI_OK, or CLI_USAGE after an error was printed. With @help set nothing else counts */
int serve_parse_args(struct serve_args *a, int argc, char **argv);

#endif
