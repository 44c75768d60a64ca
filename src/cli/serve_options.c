/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/serve_options.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "pager/cpu_list.h"

#define VERB      "serve"
#define OURSELVES "/proc/self/exe" /* the program that is running */

const char serve_help[] =
    "usage: thaw serve --socket SOCKET --memory FILE|--image NAME [OPTIONS]\n"
    "       thaw serve SOCKET FILE [OPTIONS]\n"
    "       thaw serve --adopt VMM_PID [OPTIONS]\n"
    "\n"
    "Listens on SOCKET for one VMM (Firecracker, or QEMU with libthaw-preload.so), takes over the "
    "page faults of its\n"
    "guest memory, and serves them from the snapshot's memory file FILE, or from an image. Ends "
    "when the VMM ends.\n"
    "\n"
    "  -s, --socket PATH             unix socket that the VMM connects to\n"
    "  -m, --memory FILE             the snapshot's memory file, raw\n"
    "  -i, --image NAME              an image (thaw image), by its name or id\n"
    "      --store DIR               the store that has it ($THAW_STORE, or /var/lib/thaw)\n"
    "      --image-cache SIZE        keep so much of it decompressed (default 64M)\n"
    "      --image-share SIZE|off    keep so much of it decompressed for all pagers of the image "
    "(default 256M)\n"
    "      --page-size auto|4K|2M    page size of guest memory; auto: as the VMM says (default)\n"
    "      --fault-around SIZE       install so much around a fault if it is in memory; 0: the "
    "page alone (default 64K)\n"
    "      --track none|wp           learn of writes by write protection (default none)\n"
    "      --prefetch FILE|none      install a working set (thaw-workingset(5)) ahead of the "
    "guest (default: the image's)\n"
    "      --prefetch-before-resume SIZE|all\n"
    "                                so much of it before --resume-fd says that the VM may go on\n"
    "      --fill                    install everything else after it\n"
    "      --prefetch-rate SIZE      bytes a second for --prefetch and --fill (default: no limit)\n"
    "      --let-go on|off           give long zero ranges back to the kernel (default on)\n"
    "      --leave-when-full         end when every page is there: the VM goes on without a pager\n"
    "      --resume-fd FD            write \"resume\" and a newline there when the VM may go on\n"
    "      --record FILE             record the guest's working set (default --fault-around 0)\n"
    "      --record-missed FILE      the same of what it asks for beside one that is installed\n"
    "      --record-seconds SECS     ... for so long; without it until `thaw ready` says so\n"
    "      --latency-qos auto|on|off keep idle processors awake while the guest faults a lot "
    "(default auto)\n"
    "      --cpu follow|LIST|any     where the pager runs: on the guest's processor, on these "
    "(0-3,7), anywhere (default follow)\n"
    "      --spin auto|off|USECS     look for messages before sleeping (default auto)\n"
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
    "SIGUSR2: the guest is ready (thaw ready).\n"
    "Exit status: 0 the VM ended or was stopped by request; 1 it could not be served; 2 usage.\n";

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
    OPT_PREFETCH,
    OPT_BEFORE_RESUME,
    OPT_FILL,
    OPT_RATE,
    OPT_LEAVE,
    OPT_LET_GO,
    OPT_RESUME_FD,
    OPT_RECORD,
    OPT_RECORD_MISSED,
    OPT_RECORD_SECONDS,
    OPT_LATENCY_QOS,
    OPT_CPU,
    OPT_SPIN,
    OPT_STORE,
    OPT_IMAGE_CACHE,
    OPT_IMAGE_SHARE,
};

static const struct option long_options[] = {
    {"socket", required_argument, NULL, 's'},
    {"memory", required_argument, NULL, 'm'},
    {"image", required_argument, NULL, 'i'},
    {"store", required_argument, NULL, OPT_STORE},
    {"image-cache", required_argument, NULL, OPT_IMAGE_CACHE},
    {"image-share", required_argument, NULL, OPT_IMAGE_SHARE},
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
    {"prefetch", required_argument, NULL, OPT_PREFETCH},
    {"prefetch-before-resume", required_argument, NULL, OPT_BEFORE_RESUME},
    {"fill", no_argument, NULL, OPT_FILL},
    {"prefetch-rate", required_argument, NULL, OPT_RATE},
    {"let-go", required_argument, NULL, OPT_LET_GO},
    {"leave-when-full", no_argument, NULL, OPT_LEAVE},
    {"resume-fd", required_argument, NULL, OPT_RESUME_FD},
    {"record", required_argument, NULL, OPT_RECORD},
    {"record-missed", required_argument, NULL, OPT_RECORD_MISSED},
    {"record-seconds", required_argument, NULL, OPT_RECORD_SECONDS},
    {"latency-qos", required_argument, NULL, OPT_LATENCY_QOS},
    {"cpu", required_argument, NULL, OPT_CPU},
    {"spin", required_argument, NULL, OPT_SPIN},
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

    a->around_given = true;
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
    if (a->opts.n_allow_uids == SERVE_MAX_UIDS)
        return cli_usage_error(VERB, "--allow-uid was given more than %u times", SERVE_MAX_UIDS);
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

/* parse_prefetch() - a file, or that even an image's own working set is not wanted */
static int parse_prefetch(struct serve_args *a, const char *text)
{
    a->opts.no_working_set = strcmp(text, "none") == 0;
    a->opts.prefetch_path = a->opts.no_working_set ? NULL : text;
    return CLI_OK;
}

static int parse_image_cache(struct serve_args *a, const char *text)
{
    if (cli_parse_size(text, &a->opts.image_cache_bytes) < 0 || a->opts.image_cache_bytes == 0)
        return cli_usage_error(VERB, "--image-cache is %s, expected a size above 0, such as 64M",
                               text);
    return CLI_OK;
}

static int parse_image_share(struct serve_args *a, const char *text)
{
    uint64_t *bytes = &a->opts.image_share_bytes;

    a->opts.image_filler = strcmp(text, "off") == 0 ? NULL : OURSELVES;
    if (a->opts.image_filler && (cli_parse_size(text, bytes) < 0 || *bytes == 0))
        return cli_usage_error(
            VERB, "--image-share is %s, expected off or a size above 0, such as 256M", text);
    a->share_given = true;
    return CLI_OK;
}

static int parse_before_resume(struct serve_args *a, const char *text)
{
    uint64_t *bytes = &a->opts.before_resume_bytes;

    if (strcmp(text, "all") == 0)
        *bytes = UINT64_MAX;
    else if (cli_parse_size(text, bytes) < 0 || *bytes == 0)
        return cli_usage_error(
            VERB, "--prefetch-before-resume is %s, expected all or a size above 0, such as 16M",
            text);
    return CLI_OK;
}

static int parse_rate(struct serve_args *a, const char *text)
{
    if (cli_parse_size(text, &a->opts.ahead_bytes_per_s) < 0 || a->opts.ahead_bytes_per_s == 0)
        return cli_usage_error(
            VERB, "--prefetch-rate is %s, expected bytes a second above 0, such as 200M", text);
    return CLI_OK;
}

static int parse_record_seconds(struct serve_args *a, const char *text)
{
    uint64_t seconds;

    if (cli_parse_u64(text, 86400, &seconds) < 0 || seconds == 0)
        return cli_usage_error(VERB, "--record-seconds is %s, expected seconds from 1 to 86400",
                               text);
    a->opts.record_ms = (unsigned)seconds * 1000;
    return CLI_OK;
}

/* #syscalls:start fcntl */
/* parse_resume_fd() - a descriptor that the caller left open for us */
static int parse_resume_fd(struct serve_args *a, const char *text)
{
    uint64_t fd;

    if (cli_parse_u64(text, INT_MAX, &fd) < 0 || fcntl((int)fd, F_GETFD) < 0)
        return cli_usage_error(VERB, "--resume-fd is %s, expected an open file descriptor", text);
    a->resume_fd = (int)fd;
    return CLI_OK;
}

static int parse_latency_qos(struct serve_args *a, const char *text)
{
    if (strcmp(text, "auto") == 0)
        a->opts.latency_qos = THAW_LATENCY_QOS_AUTO;
    else if (strcmp(text, "on") == 0)
        a->opts.latency_qos = THAW_LATENCY_QOS_ON;
    else if (strcmp(text, "off") == 0)
        a->opts.latency_qos = THAW_LATENCY_QOS_OFF;
    else
        return cli_usage_error(VERB, "--latency-qos is %s, expected auto, on or off", text);
    return CLI_OK;
}

/* #syscalls:start sched_getaffinity */
static int parse_cpu(struct serve_args *a, const char *text)
{
    cpu_set_t usable;
    cpu_set_t list;

    a->opts.cpus = text;
    if (strcmp(text, "follow") == 0 || strcmp(text, "any") == 0)
        return CLI_OK;
    if (cpu_list_parse(text, &list) < 0)
        return cli_usage_error(VERB, "--cpu is %s, expected follow, any or numbers such as 0-3,7",
                               text);
    if (sched_getaffinity(0, sizeof(usable), &usable) < 0)
        return CLI_OK;
    CPU_AND(&list, &list, &usable);
    if (CPU_COUNT(&list) == 0)
        return cli_usage_error(VERB, "--cpu is %s, of which this process may use none", text);
    return CLI_OK;
}

static int parse_spin(struct serve_args *a, const char *text)
{
    uint64_t us = 0;

    if (strcmp(text, "auto") == 0)
        a->opts.spin_us = THAW_SPIN_AUTO;
    else if (strcmp(text, "off") != 0 &&
             (cli_parse_u64(text, THAW_SPIN_MAX_US, &us) < 0 || us == 0))
        return cli_usage_error(VERB,
                               "--spin is %s, expected auto, off or microseconds from 1 to %u",
                               text, THAW_SPIN_MAX_US);
    else
        a->opts.spin_us = (unsigned)us;
    return CLI_OK;
}

/* parse_wakeup_option() - how waking is made cheap. Return: CLI_*, or -1: not one of these */
static int parse_wakeup_option(struct serve_args *a, int option, const char *value)
{
    switch (option) {
    case OPT_LATENCY_QOS:
        return parse_latency_qos(a, value);
    case OPT_CPU:
        return parse_cpu(a, value);
    case OPT_SPIN:
        return parse_spin(a, value);
    default:
        return -1;
    }
}

/* parse_image_option() - Return: CLI_*, or -1: not one of these */
static int parse_image_option(struct serve_args *a, int option, const char *value)
{
    switch (option) {
    case 'i':
        a->opts.image = value;
        return CLI_OK;
    case OPT_STORE:
        a->opts.store = value;
        return CLI_OK;
    case OPT_IMAGE_CACHE:
        return parse_image_cache(a, value);
    case OPT_IMAGE_SHARE:
        return parse_image_share(a, value);
    default:
        return parse_wakeup_option(a, option, value);
    }
}

/* parse_ahead_option() - what is done ahead of the guest. Return: CLI_*, or -1: not one of these */
static int parse_ahead_option(struct serve_args *a, int option, const char *value)
{
    switch (option) {
    case OPT_PREFETCH:
        return parse_prefetch(a, value);
    case OPT_BEFORE_RESUME:
        return parse_before_resume(a, value);
    case OPT_FILL:
        a->opts.fill = true;
        return CLI_OK;
    case OPT_RATE:
        return parse_rate(a, value);
    case OPT_LEAVE:
        a->opts.leave_when_full = true;
        return CLI_OK;
    case OPT_LET_GO:
        a->opts.keep_registered = strcmp(value, "off") == 0;
        if (!a->opts.keep_registered && strcmp(value, "on") != 0)
            return cli_usage_error(VERB, "--let-go is %s, expected on or off", value);
        return CLI_OK;
    case OPT_RESUME_FD:
        return parse_resume_fd(a, value);
    case OPT_RECORD:
    case OPT_RECORD_MISSED:
        a->opts.record_path = value;
        a->opts.record_missed = option == OPT_RECORD_MISSED;
        return CLI_OK;
    case OPT_RECORD_SECONDS:
        return parse_record_seconds(a, value);
    default:
        return parse_image_option(a, option, value);
    }
}

static int parse_option(struct serve_args *a, int option, const char *value)
{
    int r;

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
        r = parse_ahead_option(a, option, value);
        return r < 0 ? CLI_USAGE : r; /* getopt has said what is wrong */
    }
}

/* take_positional() - SOCKET MEMFILE, as page-fault handlers are usually called */
static int take_positional(struct serve_args *a, int n, char **words)
{
    if (n == 0)
        return CLI_OK;
    if (a->opts.socket_path || a->opts.memory_path || a->opts.image || a->opts.adopt)
        return cli_usage_error(VERB, "unexpected argument %s", words[0]);
    if (n != 2)
        return cli_usage_error(VERB, "%d arguments, expected two: SOCKET FILE", n);
    a->opts.socket_path = words[0];
    a->opts.memory_path = words[1];
    return CLI_OK;
}

/* check_ahead() - the same, of what is done ahead of the guest */
static int check_ahead(const struct serve_args *a)
{
    const struct thaw_pager_options *o = &a->opts;

    bool sees_all = o->record_path && !o->record_missed;
    bool has_set = o->prefetch_path || (o->image && !o->no_working_set && !sees_all);

    if (o->before_resume_bytes != 0 && !has_set)
        return cli_usage_error(VERB, "--prefetch-before-resume is for --prefetch");
    if (o->ahead_bytes_per_s != 0 && !has_set && !o->fill)
        return cli_usage_error(VERB, "--prefetch-rate is for --prefetch and --fill");
    if (o->leave_when_full && o->track != THAW_TRACK_NONE)
        return cli_usage_error(VERB,
                               "--leave-when-full is not for --track: writes would not be seen");
    if (o->record_ms != 0 && !o->record_path)
        return cli_usage_error(VERB, "--record-seconds is for --record and --record-missed");
    if (o->record_path && o->adopt)
        return cli_usage_error(VERB, "a record is of a VM from its beginning, not for --adopt");
    if (sees_all && (o->prefetch_path || o->fill))
        return cli_usage_error(
            VERB, "--record sees faults only: not with --prefetch or --fill, which avoid them");
    return CLI_OK;
}

/* check_image() - the same, of where the memory is */
static int check_image(const struct serve_args *a)
{
    const struct thaw_pager_options *o = &a->opts;

    if (o->image && o->memory_path)
        return cli_usage_error(VERB, "--memory and --image, expected one of them");
    if (o->store && !o->image)
        return cli_usage_error(VERB, "--store is for --image");
    if (o->image_cache_bytes != 0 && !o->image && !o->adopt)
        return cli_usage_error(VERB, "--image-cache is for --image");
    if (a->share_given && !o->image && !o->adopt)
        return cli_usage_error(VERB, "--image-share is for --image");
    return CLI_OK;
}

/* check_args() - what goes together */
static int check_args(const struct serve_args *a)
{
    if (check_ahead(a) != CLI_OK || check_image(a) != CLI_OK)
        return CLI_USAGE;
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
    if (!a->opts.memory_path && !a->opts.image)
        return cli_usage_error(VERB, "--memory or --image is missing");
    return CLI_OK;
}

int serve_parse_args(struct serve_args *a, int argc, char **argv)
{
    char program[] = "thaw serve"; /* what getopt begins its messages with */
    int option;
    int r;

    argv[0] = program;
    optind = 1;
    while ((option = getopt_long(argc, argv, "s:m:i:h", long_options, NULL)) >= 0) {
        r = parse_option(a, option, optarg);
        if (r != CLI_OK || a->help)
            return r;
    }
    r = take_positional(a, argc - optind, argv + optind);
    if (r != CLI_OK)
        return r;
    a->opts.allow_uids = a->uids;
    if (a->opts.image || a->opts.store)
        a->opts.store = image_store_path(a->opts.store);
    if (a->opts.record_path && !a->opts.record_missed && !a->around_given)
        a->opts.fault_around_bytes = 0; /* what is installed along with another page is not seen */
    return check_args(a);
}
