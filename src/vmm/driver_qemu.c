/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver_qemu.c - QEMU behind vmm/driver.h
 *
 * QEMU is configured by its command line (qemu_command.c) and controlled by QMP (qmp.c). Each operation makes a connection of
 * its own; a second one waits until QEMU is done with the first.
 *
 * Memory. A VM that is booted has the file `memory` as its RAM; the file changes as long as the guest runs. A VM that is loaded
 * has its RAM from a pager, by libthaw-preload.so. QEMU takes both for shared memory and leaves it out of the state that it
 * saves (qemu_migrate.c). So a state is of some hundred KiB, and VM after VM can be saved and loaded, generation by generation.
 *
 * To be compared with there is QEMU's own way, a private mapping of the file (memory_from_file). QEMU punches holes into that
 * file where the guest gives memory back, which would damage a snapshot that others use: such a VM has no free page reporting,
 * its balloon stays empty, and it cannot be saved.
 *
 * After a state was saved QEMU does not save another one before the guest has run again, and says so.
 *
 * Whether the guest runs. QEMU is started with -S and does nothing until it is told to. A VM that was loaded stands, because
 * the one that was saved did.
 */

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thaw/features.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "vmm/driver_private.h"
#include "vmm/qemu_command.h"
#include "vmm/qemu_migrate.h"
#include "vmm/qmp.h"

#define HELP_MS      10000u
#define BALLOON_PATH "/machine/peripheral/" QEMU_BALLOON
#define RAM_PATH     "/objects/" QEMU_RAM

/* ---- before there is a VM -------------------------------------------------------------------------------------- */

static bool starts_with(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* A discard punches a hole into a file that is mapped, even privately: the next VM would find zeros there. */
static int check_discards(const struct vmm_spec *spec)
{
    if (spec->memory_from_file && spec->free_page_reporting)
        return err_origin(-EINVAL,
                          "memory_from_file: QEMU punches holes into the file where the guest "
                          "reports free pages; leave free_page_reporting off");
    return 0;
}

static int qemu_check(const struct vmm_spec *spec, const char *version)
{
    const char *machine = qemu_machine(spec);
    struct thaw_features features;

    if (strcmp(machine, "pc") != 0 && strcmp(machine, "q35") != 0 && !qemu_machine_is_micro(spec) &&
        !starts_with(machine, "pc-i440fx-") && !starts_with(machine, "pc-q35-"))
        return err_origin(-EINVAL,
                          "machine: '%s' is none of pc, q35, microvm, and no pc-i440fx-... or "
                          "pc-q35-...",
                          machine);
    if (strchr(machine, ','))
        return err_origin(-EINVAL, "machine: '%s' has options", machine);
    if (spec->accel && strcmp(spec->accel, "tcg") != 0 && strcmp(spec->accel, "kvm") != 0)
        return err_origin(-EINVAL, "accel: '%s' is neither tcg nor kvm", spec->accel);
    if (spec->cpu &&
        (spec->cpu[0] == '\0' || spec->cpu[0] == '-' || strcmp(spec->cpu, "help") == 0))
        return err_origin(-EINVAL, "cpu: '%s' is no model of a processor", spec->cpu);
    if (spec->vsock)
        return err_origin(-EINVAL, "vsock: QEMU's takes a number that no other VM of the host has; "
                                   "Firecracker's does not");
    if (check_discards(spec) < 0)
        return -EINVAL;
    return spec_features(spec, THAW_VMM_QEMU, version, &features);
}

/* A microvm has no versions of its own: QEMU's own two numbers stand for them. */
static int micro_format(const struct vmm_spec *spec, char **out)
{
    _cleanup_free_ char *version = NULL;
    size_t n;
    int r = vmm_program_version(&driver_qemu, spec->program, &version);

    if (r < 0)
        return r;
    assert(version);
    n = strcspn(version, ".");
    n += version[n] != '\0' ? 1 + strcspn(version + n + 1, ".") : 0;
    if (asprintf(out, "microvm-%.*s", (int)n, version) < 0)
        return err_origin(-ENOMEM, "no memory for the name of a format");
    return 0;
}

static int qemu_snapshot_format(const struct vmm_spec *spec, const char *program, char **out)
{
    const char *argv[] = {program, "-machine", "help", NULL};
    _cleanup_free_ char *help = NULL;
    int r;

    if (qemu_machine_is_micro(spec))
        return micro_format(spec, out);
    r = program_output(argv, HELP_MS, &help);
    if (r < 0)
        return r;
    assert(help);
    *out = NULL;
    r = qemu_machine_versioned(help, qemu_machine(spec), out);
    if (r < 0)
        return r;
    if (!*out)
        *out = strdup(qemu_machine(spec)); /* it is a versioned one */
    return *out ? 0 : err_origin(-ENOMEM, "no memory for the name of a format");
}

/* ---- talking to it --------------------------------------------------------------------------------------------- */

static int connect_qmp(const struct vmm *vm, uint64_t deadline_ns, struct qmp **out)
{
    int fd = vmm_connect(vm, VMM_FILE_API, deadline_ns);

    return fd < 0 ? fd : qmp_new(out, fd, deadline_ns);
}

/* tell() - one command without a result. @args: (take) */
static int tell(const struct vmm *vm, const char *command, json_t *args, uint64_t deadline_ns)
{
    _cleanup_(qmp_freep) struct qmp *qmp = NULL;
    int r = connect_qmp(vm, deadline_ns, &qmp);

    if (r < 0) {
        json_decref(args);
        return r;
    }
    return qmp_execute(qmp, command, args, NULL);
}

static int qemu_start(struct vmm *vm, bool loads, uint64_t deadline_ns)
{
    _cleanup_(qemu_command_deinit) struct qemu_command command = {0};
    _cleanup_(qmp_freep) struct qmp *qmp = NULL;
    char path[PATH_MAX];
    int r = loads ? check_discards(&vm->spec) : 0;

    if (r == 0)
        r = qemu_command_init(&command, &vm->spec, vmm_program(vm), loads);
    if (r == 0)
        r = vmm_path(vm, VMM_FILE_MEMORY, path, sizeof(path));
    if (r < 0)
        return r;
    /* It would be the RAM with all that is in it. */
    r = loads ? 0 : file_remove(path);
    if (r < 0)
        return r;
    r = vmm_spawn(vm, (const char *const *)command.argv, (const char *const *)command.env, -1, -1);
    return r < 0 ? r : connect_qmp(vm, deadline_ns, &qmp);
}

static int qemu_pause(struct vmm *vm, uint64_t deadline_ns)
{
    return tell(vm, "stop", NULL, deadline_ns);
}

static int qemu_resume(struct vmm *vm, uint64_t deadline_ns)
{
    return tell(vm, "cont", NULL, deadline_ns);
}

/* query() - a member of a command's result that is a text. Return: 0 or a negative errno with a text */
static int query_text(struct qmp *qmp, const char *command, const char *member, char *out,
                      size_t len)
{
    _cleanup_json_ json_t *answer = NULL;
    const char *text;
    int r = qmp_execute(qmp, command, NULL, &answer);

    if (r < 0)
        return r;
    text = json_string_value(json_object_get(answer, member));
    if (!text)
        return err_origin(-EPROTO, "QEMU's answer to %s has no '%s'", command, member);
    (void)snprintf(out, len, "%s", text);
    return 0;
}

static int qemu_state(struct vmm *vm, enum vmm_run_state *out, uint64_t deadline_ns)
{
    _cleanup_(qmp_freep) struct qmp *qmp = NULL;
    char status[32];
    int r = connect_qmp(vm, deadline_ns, &qmp);

    if (r == 0)
        r = query_text(qmp, "query-status", "status", status, sizeof(status));
    if (r < 0)
        return r;
    if (strcmp(status, "prelaunch") == 0 || strcmp(status, "inmigrate") == 0)
        *out = VMM_NOT_STARTED;
    else if (strcmp(status, "running") == 0 || strcmp(status, "suspended") == 0)
        *out = VMM_RUNNING;
    else
        *out = VMM_PAUSED;
    return 0;
}

/* ---- snapshots ------------------------------------------------------------------------------------------------- */

static int qemu_load_state(struct vmm *vm, bool resume, uint64_t deadline_ns)
{
    _cleanup_(qmp_freep) struct qmp *qmp = NULL;
    char path[PATH_MAX];
    int r = vmm_path(vm, VMM_FILE_STATE, path, sizeof(path));

    if (r == 0)
        r = connect_qmp(vm, deadline_ns, &qmp);
    if (r == 0)
        r = qemu_load(qmp, path, deadline_ns);
    return r < 0 || !resume ? r : qmp_execute(qmp, "cont", NULL, NULL);
}

/* ram_property() - Return: 0 or a negative errno with a text. @out: (give) */
static int ram_property(struct qmp *qmp, const char *name, json_t **out)
{
    return qmp_execute(qmp, "qom-get", json_pack("{s:s, s:s}", "path", RAM_PATH, "property", name),
                       out);
}

/* ram_is_file() - was this VM booted, so that `memory` is its RAM? Return: 0, 1 or a negative errno with a text */
static int ram_is_file(struct qmp *qmp)
{
    _cleanup_json_ json_t *type = NULL;
    _cleanup_json_ json_t *share = NULL;
    int r = ram_property(qmp, "type", &type);

    if (r == 0)
        r = ram_property(qmp, "share", &share);
    if (r < 0)
        return r;
    /* A private mapping of the file: QEMU would put all of the RAM into the state. */
    if (!json_is_true(share))
        return err_origin(-EOPNOTSUPP,
                          "a VM whose memory is mapped from a file privately cannot be "
                          "saved: QEMU does not leave it out of the state");
    return json_is_string(type) && strcmp(json_string_value(type), "memory-backend-file") == 0;
}

/* is_one_block() - is the guest's memory one range of addresses? Above 4 GiB there is a second one. Return: as ram_is_file() */
static int is_one_block(struct qmp *qmp)
{
    _cleanup_json_ json_t *answer = NULL;
    int r = qmp_execute(qmp, "human-monitor-command",
                        json_pack("{s:s}", "command-line", "gpa2hva 0x100000000"), &answer);

    if (r < 0)
        return r;
    return !json_is_string(answer) || !strstr(json_string_value(answer), " is 0x");
}

/* check_memory() - can that of a VM that was loaded be written? */
static int check_memory(struct qmp *qmp)
{
    int r = is_one_block(qmp);

    if (r == 0)
        return err_origin(-EOPNOTSUPP,
                          "the memory of a VM that was loaded can be written to a file only if all "
                          "of it is below 4 GiB");
    return r < 0 ? r : 0;
}

/* save_memory() - of a VM that was loaded: QEMU reads all of it, which brings it in from the pager */
static int save_memory(const struct vmm *vm, struct qmp *qmp)
{
    json_int_t bytes = (json_int_t)(vm->spec.memory_mib * MIB);
    char path[PATH_MAX];
    int r = vmm_path(vm, VMM_FILE_MEMORY, path, sizeof(path));

    if (r < 0)
        return r;
    (void)unlink(path);
    r = qmp_execute(
        qmp, "pmemsave",
        json_pack("{s:i, s:I, s:s}", "val", 0, "size", bytes, "filename", VMM_FILE_MEMORY), NULL);
    if (r < 0)
        (void)unlink(path);
    return r;
}

static int qemu_snapshot(struct vmm *vm, bool with_memory, uint64_t deadline_ns)
{
    _cleanup_(qmp_freep) struct qmp *qmp = NULL;
    char path[PATH_MAX], status[32];
    bool writes_memory;
    int r = vmm_path(vm, VMM_FILE_STATE, path, sizeof(path));

    if (r == 0)
        r = connect_qmp(vm, deadline_ns, &qmp);
    if (r == 0)
        r = query_text(qmp, "query-status", "status", status, sizeof(status));
    if (r < 0)
        return r;
    if (strcmp(status, "running") == 0)
        return err_origin(-EBUSY, "the guest runs: a snapshot is of one that stands");
    r = ram_is_file(qmp);
    writes_memory = r == 0 && with_memory;
    if (writes_memory)
        r = check_memory(qmp);
    if (r >= 0)
        r = qemu_save(qmp, path, deadline_ns);
    /* Afterwards, as whoever reads it from the process does; and nothing that fails later leaves it behind. */
    return r == 0 && writes_memory ? save_memory(vm, qmp) : r;
}

/* ---- the balloon ----------------------------------------------------------------------------------------------- */

/* To QEMU the number is what the guest keeps. */
static int qemu_balloon_set(struct vmm *vm, unsigned mib, uint64_t deadline_ns)
{
    json_int_t bytes = (json_int_t)((vm->spec.memory_mib - mib) * MIB);

    if (vm->spec.memory_from_file)
        return err_origin(-EOPNOTSUPP, "a balloon would have QEMU punch holes into the file that "
                                       "the VM's memory is mapped from");
    return tell(vm, "balloon", json_pack("{s:I}", "value", bytes), deadline_ns);
}

static int qemu_balloon_get(struct vmm *vm, struct vmm_balloon *out, uint64_t deadline_ns)
{
    _cleanup_(qmp_freep) struct qmp *qmp = NULL;
    _cleanup_json_ json_t *balloon = NULL;
    _cleanup_json_ json_t *reporting = NULL;
    uint64_t kept_mib;
    int r = connect_qmp(vm, deadline_ns, &qmp);

    if (r == 0)
        r = qmp_execute(qmp, "query-balloon", NULL, &balloon);
    if (r == 0)
        r = qmp_execute(
            qmp, "qom-get",
            json_pack("{s:s, s:s}", "path", BALLOON_PATH, "property", "free-page-reporting"),
            &reporting);
    if (r < 0)
        return r;
    if (!json_is_integer(json_object_get(balloon, "actual")) || !json_is_boolean(reporting))
        return err_origin(-EPROTO, "QEMU's answer about the balloon is not understood");
    kept_mib = (uint64_t)json_integer_value(json_object_get(balloon, "actual")) / MIB;
    out->actual_mib = vm->spec.memory_mib - min_u64(kept_mib, vm->spec.memory_mib);
    out->free_page_reporting = json_is_true(reporting);
    return 0;
}

/* ---- the console ----------------------------------------------------------------------------------------------- */

/* type() - send all of @text, take what the guest writes meanwhile, until QEMU has read the end and closes as well */
static int type(int fd, const char *text, size_t len, uint64_t deadline_ns)
{
    char echo[4096];

    for (;;) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN | (len > 0 ? POLLOUT : 0)};
        int n = poll(&pfd, 1, clock_left_ms(deadline_ns));
        ssize_t sent;

        /* Looked at each time: a guest that never stops talking always has something to read. */
        if (n == 0 || clock_left_ms(deadline_ns) == 0)
            return err_origin(-ETIMEDOUT, "the guest does not read from its console");
        if (pfd.revents & POLLIN) {
            ssize_t got = recv(fd, echo, sizeof(echo), MSG_DONTWAIT);

            if (got == 0 && len == 0)
                return 0;
            if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
                return err_origin(-ECONNRESET, "QEMU has closed the guest's console");
        }
        sent = len > 0 ? send(fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
        if (sent < 0 && errno != EINTR && errno != EAGAIN)
            return err_origin_errno(-errno, "cannot type at the guest's console");
        if (sent > 0) {
            text += sent;
            len -= (size_t)sent;
            /* Half closed only: a connection that is closed altogether is dropped with what QEMU has not read of it. */
            if (len == 0)
                (void)shutdown(fd, SHUT_WR);
        }
    }
}

static int qemu_console_write(struct vmm *vm, const char *text, size_t len, uint64_t deadline_ns)
{
    _cleanup_fd_ int fd = vmm_connect(vm, VMM_FILE_SERIAL, deadline_ns);

    return fd < 0 ? fd : type(fd, text, len, deadline_ns);
}

const struct vmm_driver driver_qemu = {
    .name = "qemu",
    .program = "qemu-system-x86_64",
    .check = qemu_check,
    .snapshot_format = qemu_snapshot_format,
    .start = qemu_start,
    .boot = qemu_resume,
    .load = qemu_load_state,
    .pause = qemu_pause,
    .resume = qemu_resume,
    .snapshot = qemu_snapshot,
    .state = qemu_state,
    .balloon_set = qemu_balloon_set,
    .balloon_get = qemu_balloon_get,
    .console_write = qemu_console_write,
};
