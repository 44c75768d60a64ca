/* SPDX-License-Identifier: Apache-2.0 */
#include "node/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "node/state_copy.h"
#include "node/state_find.h"
#include "node/tree.h"
#include "pager/state_dir.h"
#include "vmm/child.h"

#define THAW_ITSELF "/proc/self/exe"
#define LOG_BYTES   4096
#define POLL_NS     (2 * NS_PER_MS)
#define PAGER_END_MS \
    10000u /* for a pager whose VMM is gone: it ends by itself, within milliseconds */
#define PAGER_ASKED_MS  2000u /* for one that was asked to end */
#define PAGER_ARGUMENTS 24u

/* ---- a pager -------------------------------------------------------------------------------------------------- */

/* struct pager_command - the command line of a pager, as it grows */
struct pager_command {
    const char *argv[PAGER_ARGUMENTS];
    size_t n;
    char *store;            /* owned: absolute, as the pager has a folder of its own */
    char program[PATH_MAX]; /* of this process: its own name is of use to who lists processes */
    char seconds[24];
    char uid[24];
};

static void command_deinit(struct pager_command *c)
{
    free(c->store);
}

static void command_add(struct pager_command *c, const char *word)
{
    assert(c->n + 1 < PAGER_ARGUMENTS);
    c->argv[c->n++] = word;
}

static void command_add_option(struct pager_command *c, const char *option, const char *value)
{
    if (!value)
        return;
    command_add(c, option);
    command_add(c, value);
}

/* find_program() - the file that this process was started from; by its link if the file was replaced meanwhile */
static void find_program(struct pager_command *c)
{
    ssize_t n = readlink(THAW_ITSELF, c->program, sizeof(c->program) - 1);

    if (n > 0)
        c->program[n] = '\0';
    if (n <= 0 || access(c->program, X_OK) < 0)
        (void)snprintf(c->program, sizeof(c->program), "%s", THAW_ITSELF);
}

/* command_init() - what all pagers are told */
static int command_init(struct pager_command *c, const struct instance_spec *serve)
{
    find_program(c);
    c->store = realpath(serve->store, NULL);
    if (!c->store)
        return err_origin_errno(-errno, "cannot find the store %s", serve->store);
    command_add(c, c->program);
    command_add(c, "serve");
    command_add(c, "--supervise");
    command_add_option(c, "--store", c->store);
    command_add_option(c, "--image", serve->image);
    command_add_option(c, "--state", serve->state_dir);
    command_add_option(c, "--stats", INSTANCE_FILE_PAGER_STATS);
    return 0;
}

/* command_listen() - what one is told that waits for a VMM; by way of the link to a jail's root: a socket's name must be short */
static void command_listen(struct pager_command *c, const struct instance_spec *serve,
                           const struct vmm_spec *spec)
{
    command_add_option(c, "--socket", spec->jail ? VMM_FILE_ROOT "/" VMM_FILE_UFFD : VMM_FILE_UFFD);
    command_add_option(c, serve->record_missed ? "--record-missed" : "--record", serve->record);
    if (serve->record && serve->record_seconds > 0) {
        (void)snprintf(c->seconds, sizeof(c->seconds), "%u", serve->record_seconds);
        command_add_option(c, "--record-seconds", c->seconds);
    }
    command_add_option(c, "--prefetch", serve->no_prefetch ? "none" : NULL);
    if (spec->jail) {
        (void)snprintf(c->uid, sizeof(c->uid), "%u", spec->jail->uid);
        command_add_option(c, "--allow-uid", c->uid);
    }
}

/* log_has() - does the file have this text in its first bytes? */
static bool log_has(const char *path, const char *text)
{
    _cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    char buf[LOG_BYTES];
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);

    if (n < 0)
        return false;
    buf[n] = '\0';
    return strstr(buf, text) != NULL;
}

/* wait_log() - until the pager has written @text */
static int wait_log(struct vmm_id pager, const char *log, const char *text, unsigned timeout_ms)
{
    uint64_t deadline_ns = clock_now_ns() + timeout_ms * NS_PER_MS;
    char last[512];

    for (;;) {
        bool ended = child_has_ended(pager); /* looked at first: what it wrote last counts */

        if (log_has(log, text))
            return 0;
        log_last_line(log, last, sizeof(last));
        if (ended)
            return err_origin(-EIO, "the pager ended before the VM had begun: %s",
                              last[0] != '\0' ? last : "it said nothing");
        if (clock_now_ns() >= deadline_ns)
            return err_origin(-ETIMEDOUT, "the pager was not ready within %u ms: %s", timeout_ms,
                              last[0] != '\0' ? last : "it said nothing");
        clock_sleep_ns(POLL_NS);
    }
}

/* set_state_path() - of the pager that was started in @in->pager */
static int set_state_path(struct instance *in, const char *state_dir)
{
    char by_itself[PATH_MAX];

    if (!state_dir && state_dir_default(by_itself, sizeof(by_itself)) < 0)
        return err_origin(-ENAMETOOLONG, "the name of the state directory is too long");
    return state_path(state_dir ? state_dir : by_itself, in->pager.pid, in->state_path,
                      sizeof(in->state_path));
}

/* pager_start() - run it, wait until it has written @ready */
static int pager_start(struct vmm_id *pager, struct pager_command *c, const char *folder,
                       const char *ready, unsigned timeout_ms)
{
    struct child_spec child = {.argv = c->argv,
                               .folder = folder,
                               .stdin_fd = -1,
                               .stdout_fd = -1,
                               .exit_file = INSTANCE_FILE_PAGER_EXIT,
                               .id_file = INSTANCE_FILE_PAGER_ID};
    _cleanup_fd_ int log_fd = -1;
    char log[PATH_MAX];
    int r = tree_path(log, sizeof(log), folder, INSTANCE_FILE_PAGER_LOG);

    if (r < 0)
        return r;
    log_fd = child_log_open(log);
    if (log_fd < 0)
        return log_fd;
    child.stderr_fd = log_fd;
    r = child_start(&child, pager);
    if (r < 0)
        return r;
    return wait_log(*pager, log, ready, timeout_ms);
}

/* start_listening() - the pager of a VM that does not exist yet */
static int start_listening(struct instance *in, const struct instance_spec *serve,
                           const struct vmm_spec *spec, const char *folder, unsigned timeout_ms)
{
    _cleanup_(command_deinit) struct pager_command c = {.n = 0};
    int r = command_init(&c, serve);

    if (r < 0)
        return r;
    command_listen(&c, serve, spec);
    r = pager_start(&in->pager, &c, folder, "msg=\"listening\"", timeout_ms);
    return r == 0 ? set_state_path(in, serve->state_dir) : r;
}

int instance_adopt(struct instance *in, const char *folder, const struct instance_spec *serve,
                   unsigned timeout_ms)
{
    _cleanup_(command_deinit) struct pager_command c = {.n = 0};
    int r = command_init(&c, serve);

    if (r < 0)
        return r;
    command_add_option(&c, "--adopt", in->state_path);
    return pager_start(&in->pager, &c, folder, "msg=\"serving\"", timeout_ms);
}

/* ---- both ----------------------------------------------------------------------------------------------------- */

static int load(struct instance *in, const struct vmm_driver *driver, const struct vmm_spec *spec,
                const char *folder, const struct instance_spec *serve, bool resume,
                unsigned timeout_ms)
{
    int r = vmm_new(&in->vmm, driver, spec, folder);

    if (r == 0)
        r = start_listening(in, serve, spec, folder, timeout_ms);
    if (serve->times)
        serve->times->listening_ns = clock_now_ns();
    if (r == 0)
        r = vmm_start(in->vmm, true, timeout_ms);
    if (serve->times)
        serve->times->started_ns = clock_now_ns();
    if (r < 0)
        return r;
    in->vmm_id = vmm_id(in->vmm);
    return vmm_load(in->vmm, resume, timeout_ms);
}

int instance_load(struct instance *in, const struct vmm_driver *driver, const struct vmm_spec *spec,
                  const char *folder, const struct instance_spec *serve, bool resume,
                  unsigned timeout_ms)
{
    struct err_kept e;
    int r = load(in, driver, spec, folder, serve, resume, timeout_ms);

    if (r == 0)
        return 0;
    e = err_keep(r);
    if (instance_end(in, timeout_ms) == 0)
        r = err_tell(&e, 0);
    instance_forget(in);
    return r;
}

/* id_of() - Return: 0; zeroes if there is no such file */
static int id_of(const char *folder, const char *name, struct vmm_id *out)
{
    char path[PATH_MAX];
    int r = tree_path(path, sizeof(path), folder, name);

    *out = (struct vmm_id){0};
    if (r == 0 && access(path, F_OK) < 0 && errno == ENOENT)
        return 0;
    return r == 0 ? child_id_read(path, out) : r;
}

/* is_state_of() - is this the state of that VMM? */
static bool is_state_of(const char *path, struct vmm_id vmm)
{
    _cleanup_(state_freep) struct state_copy *s = NULL;

    return state_read(path, &s) == 0 && s->block.header->vmm_pid == vmm.pid &&
           s->block.header->vmm_start_ticks == vmm.start_ticks;
}

/*
 * find_state() - the state file. A pager that has taken over serves from the file that an earlier one made: then it is found by
 * its VMM. Somebody else's file, of a process that had the same number, is none
 */
static int find_state(struct instance *in, const char *state_dir)
{
    int r = set_state_path(in, state_dir);

    if (r < 0 || is_state_of(in->state_path, in->vmm_id))
        return r;
    if (in->vmm_id.pid > 0 &&
        state_find(state_dir, in->vmm_id.pid, in->state_path, sizeof(in->state_path)) == 0 &&
        is_state_of(in->state_path, in->vmm_id))
        return 0;
    r = set_state_path(in, state_dir);
    if (r == 0 && access(in->state_path, F_OK) == 0)
        in->state_path[0] = '\0';
    return r;
}

int instance_find(struct instance *in, const struct vmm_driver *driver, const struct vmm_spec *spec,
                  const char *folder, const char *state_dir)
{
    int r;

    *in = (struct instance){0};
    r = id_of(folder, VMM_FILE_PID, &in->vmm_id);
    if (r == 0)
        r = id_of(folder, INSTANCE_FILE_PAGER_ID, &in->pager);
    if (r == 0 && in->pager.pid > 0)
        r = find_state(in, state_dir);
    if (r == 0 && in->vmm_id.pid > 0)
        r = vmm_adopt(&in->vmm, driver, spec, folder, in->vmm_id);
    return r == -ESRCH ? 0 : r;
}

void instance_forget(struct instance *in)
{
    in->vmm = vmm_free(in->vmm);
    *in = (struct instance){0};
}

/* ---- the end -------------------------------------------------------------------------------------------------- */

/* server_pid() - who holds the state file; 0: nobody */
static pid_t server_pid(const struct instance *in)
{
    _cleanup_(state_freep) struct state_copy *s = NULL;

    if (in->state_path[0] == '\0' || access(in->state_path, F_OK) < 0)
        return 0;
    return state_read(in->state_path, &s) == 0 && !s->stale ? s->block.header->pager_pid : 0;
}

bool instance_pager_lives(const struct instance *in)
{
    return !child_has_ended(in->pager) || server_pid(in) > 0;
}

/* end_supervisor() - one that has a VM ends when that is gone; one that waits for a VM is asked to */
static int end_supervisor(const struct instance *in)
{
    int r =
        access(in->state_path, F_OK) == 0 ? child_wait_end(in->pager, PAGER_END_MS) : -ETIMEDOUT;

    if (r == -ETIMEDOUT) {
        (void)child_signal(in->pager, SIGTERM);
        r = child_wait_end(in->pager, PAGER_ASKED_MS);
    }
    return r == -ETIMEDOUT ? child_kill(in->pager, PAGER_ASKED_MS) : r;
}

/* end_server() - a pager that has lost its supervisor. It is known by the lock that it holds */
static int end_server(const struct instance *in)
{
    uint64_t deadline_ns = clock_now_ns() + PAGER_END_MS * NS_PER_MS;
    uint64_t kill_ns = deadline_ns - PAGER_ASKED_MS * NS_PER_MS;
    pid_t pid;

    while ((pid = server_pid(in)) > 0) {
        if (clock_now_ns() >= deadline_ns)
            return err_origin(-ETIMEDOUT, "pager %d did not end, and its VMM is gone", pid);
        if (clock_now_ns() >= kill_ns)
            (void)kill(pid, SIGKILL);
        clock_sleep_ns(POLL_NS);
    }
    return 0;
}

int instance_end(struct instance *in, unsigned timeout_ms)
{
    int r = in->vmm ? vmm_kill(in->vmm, timeout_ms) : 0;

    if (r == 0 && in->pager.pid > 0)
        r = end_supervisor(in);
    if (r == 0 && in->pager.pid > 0)
        r = end_server(in);
    if (r == 0 && in->state_path[0] != '\0' && is_state_of(in->state_path, in->vmm_id))
        r = file_remove(in->state_path);
    return r;
}

/* end_by_file() - the process that an id file of the folder names, if it names one */
static int end_by_file(const char *folder, const char *name, unsigned patience_ms,
                       unsigned timeout_ms)
{
    char path[PATH_MAX];
    struct vmm_id id;
    int r = tree_path(path, sizeof(path), folder, name);

    if (r < 0 || !tree_exists(path) || child_id_read(path, &id) < 0)
        return r;
    if (patience_ms > 0 && child_wait_end(id, patience_ms) == 0)
        return 0;
    return child_kill(id, timeout_ms);
}

int instance_end_by_files(const char *folder, unsigned pager_ms, unsigned timeout_ms)
{
    int r = end_by_file(folder, VMM_FILE_PID, 0, timeout_ms);

    return r == 0 ? end_by_file(folder, INSTANCE_FILE_PAGER_ID, pager_ms, timeout_ms) : r;
}
