/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve.c - `thaw serve`: one pager process for one VM
 *
 * Options become struct thaw_pager_options, signals become requests, statistics become a file. The rest is the library's.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <thaw/thaw.h>

#include "base/fd.h"
#include "base/log.h"
#include "cli/cli.h"

#define VERB     "serve"
#define MAX_UIDS 64u

static const char help[] =
    "usage: thaw serve --socket SOCKET --memory FILE [OPTIONS]\n"
    "       thaw serve SOCKET FILE [OPTIONS]\n"
    "       thaw serve --adopt VMM_PID [OPTIONS]\n"
    "\n"
    "Listens on SOCKET for one VMM (Firecracker, or QEMU with libthaw-preload.so), takes over the "
    "page faults of its\n"
    "guest memory, and serves them from the snapshot's memory file FILE. Ends when the VMM ends.\n"
    "\n"
    "  -s, --socket PATH             unix socket that the VMM connects to\n"
    "  -m, --memory FILE             the snapshot's memory file, raw\n"
    "      --page-size auto|4K|2M    page size of guest memory; auto: as the VMM says (default)\n"
    "      --fault-around SIZE       install so much around a fault if it is in memory; 0: the "
    "page alone (default 64K)\n"
    "      --track none|wp           learn of the guest's writes by write protection (default "
    "none)\n"
    "      --supervise               serve in a child process, and start another one when it dies\n"
    "      --grace SECS              how long the VM may be without a pager before the supervisor "
    "stops it (default 10)\n"
    "      --adopt VMM_PID|FILE      go on with a VM whose pager was killed; FILE: its state file\n"
    "      --stats FILE              where the statistics go, one JSON object, at the end and on "
    "SIGUSR1 (default: stdout)\n"
    "      --state DIR               where the state file goes (default /run/thaw, or "
    "$XDG_RUNTIME_DIR/thaw)\n"
    "      --allow-uid UID           who may connect; can be given again (default: root and the "
    "user of this process)\n"
    "      --handshake-timeout SECS  how long the VMM may take to hand over its memory once "
    "connected (default 30)\n"
    "      --confine on|off          give away all rights that serving does not need (default on)\n"
    "      --user UID[:GID]          become this user and group once the VMM is there\n"
    "      --log-level LEVEL         error, warn, info or debug (default info)\n"
    "\n"
    "SIGTERM, SIGINT: stop the VM (SIGKILL to the VMM), then end. SIGUSR1: write the statistics.\n"
    "Exit status: 0 the VM ended or was stopped by request; 1 it could not be served; 2 usage.\n";

struct serve_args {
    struct thaw_pager_options opts;
    const char *stats_path; /* NULL: stdout */
    char write_dir[PATH_MAX];
    uid_t uids[MAX_UIDS];
    enum thaw_log_level log_level;
    unsigned grace_ms;
    bool supervise;
    bool grace_given;
    const char *
        fixed; /* an option that was given and cannot be chosen when a VM is taken over; NULL: none */
    bool help;
};

enum {
    OPT_PAGE_SIZE = 256,
    OPT_FAULT_AROUND,
    OPT_TRACK,
    OPT_STATS,
    OPT_STATE,
    OPT_ALLOW_UID,
    OPT_HANDSHAKE_TIMEOUT,
    OPT_LOG_LEVEL,
    OPT_SUPERVISE,
    OPT_GRACE,
    OPT_ADOPT,
    OPT_CONFINE,
    OPT_USER,
};

static const struct option long_options[] = {
    {"socket", required_argument, NULL, 's'},
    {"memory", required_argument, NULL, 'm'},
    {"page-size", required_argument, NULL, OPT_PAGE_SIZE},
    {"fault-around", required_argument, NULL, OPT_FAULT_AROUND},
    {"track", required_argument, NULL, OPT_TRACK},
    {"stats", required_argument, NULL, OPT_STATS},
    {"state", required_argument, NULL, OPT_STATE},
    {"allow-uid", required_argument, NULL, OPT_ALLOW_UID},
    {"handshake-timeout", required_argument, NULL, OPT_HANDSHAKE_TIMEOUT},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"supervise", no_argument, NULL, OPT_SUPERVISE},
    {"grace", required_argument, NULL, OPT_GRACE},
    {"adopt", required_argument, NULL, OPT_ADOPT},
    {"confine", required_argument, NULL, OPT_CONFINE},
    {"user", required_argument, NULL, OPT_USER},
    {"help", no_argument, NULL, 'h'},
    {0},
};

/* ---- arguments ------------------------------------------------------------------------------------------------ */

static int parse_page_size(struct serve_args *a, const char *text)
{
    uint64_t bytes = 0;

    if (strcmp(text, "auto") != 0 &&
        (cli_parse_size(text, &bytes) < 0 || (bytes != 4 * KIB && bytes != 2 * MIB)))
        return cli_usage_error(VERB, "--page-size is %s, expected auto, 4K or 2M", text);
    a->opts.page_bytes = bytes;
    return CLI_OK;
}

static int parse_fault_around(struct serve_args *a, const char *text)
{
    uint64_t *bytes = &a->opts.fault_around_bytes;

    if (cli_parse_size(text, bytes) < 0 || *bytes > 2 * MIB || (*bytes != 0 && *bytes < 4 * KIB) ||
        (*bytes & (*bytes - 1)) != 0)
        return cli_usage_error(
            VERB, "--fault-around is %s, expected 0 or a power of two from 4K to 2M", text);
    return CLI_OK;
}

static int parse_track(struct serve_args *a, const char *text)
{
    if (strcmp(text, "none") == 0)
        a->opts.track = THAW_TRACK_NONE;
    else if (strcmp(text, "wp") == 0)
        a->opts.track = THAW_TRACK_WP;
    else
        return cli_usage_error(VERB, "--track is %s, expected none or wp", text);
    return CLI_OK;
}

static int parse_uid(struct serve_args *a, const char *text)
{
    uint64_t uid;

    if (cli_parse_u64(text, UINT32_MAX - 1, &uid) < 0)
        return cli_usage_error(VERB, "--allow-uid is %s, expected a user's number", text);
    if (a->opts.n_allow_uids == MAX_UIDS)
        return cli_usage_error(VERB, "--allow-uid was given more than %u times", MAX_UIDS);
    a->uids[a->opts.n_allow_uids++] = (uid_t)uid;
    return CLI_OK;
}

static int parse_timeout(struct serve_args *a, const char *text)
{
    uint64_t seconds;

    if (cli_parse_u64(text, 86400, &seconds) < 0 || seconds == 0)
        return cli_usage_error(VERB, "--handshake-timeout is %s, expected seconds from 1 to 86400",
                               text);
    a->opts.handshake_timeout_ms = (unsigned)seconds * 1000;
    return CLI_OK;
}

static int parse_grace(struct serve_args *a, const char *text)
{
    uint64_t seconds;

    if (cli_parse_u64(text, 86400, &seconds) < 0)
        return cli_usage_error(VERB, "--grace is %s, expected seconds from 0 to 86400", text);
    a->grace_ms = (unsigned)seconds * 1000;
    a->grace_given = true;
    return CLI_OK;
}

static int parse_log_level(struct serve_args *a, const char *text)
{
    for (int level = THAW_LOG_ERROR; level <= THAW_LOG_DEBUG; level++) {
        if (strcmp(text, log_level_name((enum thaw_log_level)level)) == 0) {
            a->log_level = (enum thaw_log_level)level;
            return CLI_OK;
        }
    }
    return cli_usage_error(VERB, "--log-level is %s, expected error, warn, info or debug", text);
}

static int parse_confine(struct serve_args *a, const char *text)
{
    if (strcmp(text, "on") == 0)
        a->opts.confine = THAW_CONFINE_ON;
    else if (strcmp(text, "off") == 0)
        a->opts.confine = THAW_CONFINE_OFF;
    else
        return cli_usage_error(VERB, "--confine is %s, expected on or off", text);
    return CLI_OK;
}

/* parse_user() - UID[:GID]; without GID the group of the same number */
static int parse_user(struct serve_args *a, const char *text)
{
    const char *colon = strchrnul(text, ':');
    char uid_text[16];
    uint64_t uid = 0;
    uint64_t gid = 0;
    int r;

    (void)snprintf(uid_text, sizeof(uid_text), "%.*s", (int)min_u64(15, colon - text), text);
    r = cli_parse_u64(uid_text, UINT32_MAX - 1, &uid);
    if (r == 0)
        r = cli_parse_u64(*colon ? colon + 1 : uid_text, UINT32_MAX - 1, &gid);
    if (r < 0 || uid == 0 || gid == 0)
        return cli_usage_error(VERB, "--user is %s, expected UID or UID:GID, numbers above 0",
                               text);
    a->opts.run_uid = (uid_t)uid;
    a->opts.run_gid = (gid_t)gid;
    return CLI_OK;
}

static int parse_option(struct serve_args *a, int option, const char *value)
{
    switch (option) {
    case 's':
        a->opts.socket_path = value;
        return CLI_OK;
    case 'm':
        a->opts.memory_path = value;
        return CLI_OK;
    case OPT_PAGE_SIZE:
        a->fixed = "--page-size";
        return parse_page_size(a, value);
    case OPT_FAULT_AROUND:
        return parse_fault_around(a, value);
    case OPT_TRACK:
        a->fixed = "--track";
        return parse_track(a, value);
    case OPT_STATS:
        a->stats_path = value;
        return CLI_OK;
    case OPT_STATE:
        a->opts.state_dir = value;
        return CLI_OK;
    case OPT_ALLOW_UID:
        return parse_uid(a, value);
    case OPT_HANDSHAKE_TIMEOUT:
        return parse_timeout(a, value);
    case OPT_LOG_LEVEL:
        return parse_log_level(a, value);
    case OPT_SUPERVISE:
        a->supervise = true;
        return CLI_OK;
    case OPT_GRACE:
        return parse_grace(a, value);
    case OPT_ADOPT:
        a->opts.adopt = value;
        return CLI_OK;
    case OPT_CONFINE:
        return parse_confine(a, value);
    case OPT_USER:
        return parse_user(a, value);
    case 'h':
        a->help = true;
        return CLI_OK;
    default:
        return CLI_USAGE; /* getopt has said what is wrong */
    }
}

/* take_positional() - SOCKET MEMFILE, as page-fault handlers are usually called */
static int take_positional(struct serve_args *a, int n, char **words)
{
    if (n == 0)
        return CLI_OK;
    if (a->opts.socket_path || a->opts.memory_path || a->opts.adopt)
        return cli_usage_error(VERB, "unexpected argument %s", words[0]);
    if (n != 2)
        return cli_usage_error(VERB, "%d arguments, expected two: SOCKET FILE", n);
    a->opts.socket_path = words[0];
    a->opts.memory_path = words[1];
    return CLI_OK;
}

/* check_args() - what goes together */
static int check_args(const struct serve_args *a)
{
    if (a->grace_given && !a->supervise)
        return cli_usage_error(VERB, "--grace is for --supervise");
    if (a->opts.adopt) {
        if (a->opts.socket_path)
            return cli_usage_error(VERB, "--adopt takes over a VM that is there: no --socket");
        if (a->fixed)
            return cli_usage_error(VERB, "%s cannot be chosen with --adopt: it stays as it was",
                                   a->fixed);
        return CLI_OK;
    }
    if (!a->opts.socket_path)
        return cli_usage_error(VERB, "--socket is missing");
    if (!a->opts.memory_path)
        return cli_usage_error(VERB, "--memory is missing");
    return CLI_OK;
}

static int parse_args(struct serve_args *a, int argc, char **argv)
{
    char program[] = "thaw serve"; /* what getopt begins its messages with */
    int option;
    int r;

    argv[0] = program;
    optind = 1;
    while ((option = getopt_long(argc, argv, "s:m:h", long_options, NULL)) >= 0) {
        r = parse_option(a, option, optarg);
        if (r != CLI_OK || a->help)
            return r;
    }
    r = take_positional(a, argc - optind, argv + optind);
    if (r != CLI_OK)
        return r;
    a->opts.allow_uids = a->uids;
    return check_args(a);
}

/* ---- serving -------------------------------------------------------------------------------------------------- */

static struct thaw_pager *signalled_pager; /* whom signals are for; set before the handlers are */

static void on_signal(int signal)
{
    thaw_pager_request(signalled_pager, signal == SIGUSR1 ? THAW_REQUEST_STATS : THAW_REQUEST_STOP);
}

static sigset_t asking_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    return set;
}

/* hold_signals() - until there is a pager that can be asked to stop, signals wait: nothing is left behind */
static void hold_signals(void)
{
    sigset_t set = asking_signals();

    (void)sigprocmask(SIG_BLOCK, &set, NULL);
}

/*
 * release_signals() - from here on they are handled as they come
 *
 * What waits is taken here and not left to come up as the mask is lifted: ThreadSanitizer loses some of those (GCC 12).
 */
/* #syscalls:start rt_sigtimedwait */
static void release_signals(void)
{
    sigset_t set = asking_signals();
    const struct timespec at_once = {0};
    int signal;

    while ((signal = sigtimedwait(&set, NULL, &at_once)) > 0)
        on_signal(signal);
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/* #syscalls:start rt_sigaction */
static void set_signals(struct thaw_pager *p)
{
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    signalled_pager = p;
    sigemptyset(&act.sa_mask);
    (void)sigaction(SIGTERM, &act, NULL);
    (void)sigaction(SIGINT, &act, NULL);
    (void)sigaction(SIGUSR1, &act, NULL);
    act.sa_handler = SIG_IGN;
    (void)sigaction(SIGPIPE, &act,
                    NULL); /* whoever reads our statistics may go away; the VM stays */
    (void)sigaction(SIGHUP, &act, NULL);
}

/* keep_stats_dir() - where the statistics' file is replaced until the end */
static void keep_stats_dir(struct serve_args *a)
{
    const char *slash = a->stats_path ? strrchr(a->stats_path, '/') : NULL;

    if (!a->stats_path)
        return;
    (void)snprintf(a->write_dir, sizeof(a->write_dir), "%.*s",
                   slash ? (int)(slash - a->stats_path) + 1 : 1, slash ? a->stats_path : ".");
    a->opts.write_dir = a->write_dir;
}

/* end_pager() - signals from here on wait for the end of the process: there is nobody to ask any more */
static void end_pager(struct thaw_pager *p)
{
    hold_signals();
    (void)thaw_pager_free(p);
}

static void print_log(void *ctx, enum thaw_log_level level, const char *line)
{
    const struct serve_args *a = ctx;

    if (level <= a->log_level)
        (void)fprintf(stderr, "level=%s %s\n", log_level_name(level), line);
}

/* print_line() - one line, or none where nobody reads: a VM waits for this thread. A pipe has room for PIPE_BUF or says no */
/* #syscalls poll */
static void print_line(const char *line, size_t len)
{
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};

    if (poll(&out, 1, 0) > 0 && (out.revents & POLLOUT))
        (void)fd_write_all(STDOUT_FILENO, line, len);
}

static void write_stats(void *ctx, const char *json)
{
    const struct serve_args *a = ctx;
    char *line;
    int len = asprintf(&line, "%s\n", json);

    if (len < 0)
        return;
    if (!a->stats_path)
        print_line(line, (size_t)len);
    else if (file_replace(a->stats_path, line, (size_t)len) < 0)
        (void)cli_error(VERB, "%s", thaw_last_error());
    free(line);
}

/* serve() - until the VM is gone, in this process; the pager is freed. Return: the exit status */
static int serve(void *ctx, struct thaw_pager *p)
{
    int r = thaw_pager_run(p);

    (void)ctx;
    r = r < 0 ? cli_error(VERB, "%s", thaw_last_error()) : CLI_OK;
    end_pager(p);
    return r;
}

/* serve_or_supervise() - the same, in child processes if wanted */
static int serve_or_supervise(struct serve_args *a, struct thaw_pager *p)
{
    int r;

    if (!a->supervise)
        return serve(a, p);
    r = thaw_pager_supervise(p, a->grace_ms, serve, a);
    if (r < 0)
        r = cli_error(VERB, "%s", thaw_last_error());
    end_pager(p);
    return r;
}

int cli_serve(int argc, char **argv)
{
    struct serve_args a = {
        .opts = {.fault_around_bytes = THAW_FAULT_AROUND_DEFAULT, .confine = THAW_CONFINE_ON},
        .log_level = THAW_LOG_INFO,
        .grace_ms = THAW_GRACE_DEFAULT_MS,
    };
    struct thaw_pager *p = NULL;
    int r = parse_args(&a, argc, argv);

    if (r != CLI_OK)
        return r;
    if (a.help) {
        (void)fputs(help, stdout);
        return CLI_OK;
    }
    a.opts.log = print_log;
    a.opts.log_ctx = &a;
    keep_stats_dir(&a);
    hold_signals();
    r = thaw_pager_new(&p, &a.opts);
    if (r < 0)
        return cli_error(VERB, "%s", thaw_last_error());
    thaw_pager_on_stats(p, write_stats, &a);
    set_signals(p);
    release_signals();
    r = thaw_pager_accept(p);
    if (r == 0)
        return serve_or_supervise(&a, p);
    r = r < 0 ? cli_error(VERB, "%s", thaw_last_error()) : CLI_OK;
    end_pager(p);
    return r;
}
