/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver_fc.c - Firecracker
 *
 * Each operation is a connection of its own, of a few requests (fc_client.h). What Firecracker has special:
 *
 * - The guest's serial line is its stdin and stdout. Stdout goes to `console.log`. Stdin is a FIFO in the VM's folder that
 *   Firecracker itself holds open in both directions, so that it never comes to an end, whoever comes and goes. Its own log
 *   goes elsewhere: there every request is quoted, and a marker that somebody waits for on the console would be in it.
 * - A snapshot always writes a memory file. Where nobody wants one, it is a sparse one of what is resident (Diff, from 1.13
 *   on; all of it before), and is removed. `vmstate` and `memory` are removed before they are written: their other names, in
 *   a template, must not be written to.
 * - A snapshot that cannot be loaded is the end of the process; and while it is loaded Firecracker touches memory, so its
 *   pager must be served by somebody else than who waits here.
 * - A balloon is there from the start on, as it cannot be added later; but not with huge pages before 1.14, which refuses both.
 * - Each request depends on the version. A process does not change it, so it is asked for once.
 * - In a jail (jailer.h), Firecracker sees the root only. What this process opens for it stays outside: console, FIFO, how it
 *   ended. The files of the spec must be readable by the jailed user, the rootfs writable unless it is read-only.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "vmm/driver_private.h"
#include "vmm/fc_client.h"
#include "vmm/fc_json.h"
#include "vmm/jailer.h"

#define ASK_MS         10000u /* for a program that prints its snapshots' version */
#define WAIT_SLICE_MS  100u /* after so long it is looked whether the process is there: at first */
#define HINT_POLL_NS   (5000 * NS_PER_US)
#define HINT_ANSWER_MS 1000u
#define HINT_DONE      1u /* host_cmd when there is no run */
#define MAX_VCPUS      32u
#define ROOT_DRIVE     "rootfs"
#define DEFAULT_ARGS   "console=ttyS0 reboot=k panic=1"
#define MEMORY_SCRATCH "memory.unwanted"

static const char *const fc_args[] = {"--api-sock", VMM_FILE_API, "--log-path", VMM_FILE_LOG, NULL};

static bool at_least(const struct thaw_version *v, unsigned major, unsigned minor)
{
    return v->major != major ? v->major > major : v->minor >= minor;
}

/* ---- before there is a VM -------------------------------------------------------------------------------------- */

static int fc_driver_check(const struct vmm_spec *spec, const char *version)
{
    struct thaw_features features;
    int r = spec_features(spec, THAW_VMM_FIRECRACKER, version, &features);

    if (r < 0)
        return r;
    if (!at_least(&features.version, 1, 1))
        return err_origin(
            -EINVAL, "Firecracker %s cannot have its memory served by a pager, 1.1 can", version);
    if (spec->huge_pages && !at_least(&features.version, 1, 7))
        return err_origin(-EINVAL, "Firecracker %s has no huge pages, 1.7 has", version);
    if (spec->machine)
        return err_origin(-EINVAL, "machine: Firecracker has one kind only, not '%s'",
                          spec->machine);
    if (spec->accel)
        return err_origin(-EINVAL, "accel: Firecracker always uses KVM, not '%s'", spec->accel);
    if (spec->cpu)
        return err_origin(-EINVAL, "cpu: Firecracker has no models of processors, '%s' is for QEMU",
                          spec->cpu);
    if (spec->n_vcpus > MAX_VCPUS)
        return err_origin(-EINVAL, "vcpus: %u, Firecracker has at most %u", spec->n_vcpus,
                          MAX_VCPUS);
    return 0;
}

static int fc_snapshot_format(const struct vmm_spec *spec, const char *program, char **out)
{
    const char *argv[] = {program, "--snapshot-version", NULL};
    _cleanup_free_ char *text = NULL;
    const char *from;
    int r = program_output(argv, ASK_MS, &text);

    (void)spec;
    if (r < 0)
        return r;
    assert(text);
    from = text + strspn(text, "v \t\r\n");
    *out = strndup(from, strcspn(from, " \t\r\n"));
    if (!*out)
        return err_origin(-ENOMEM, "no memory for a version");
    if ((*out)[0] >= '0' && (*out)[0] <= '9')
        return 0;
    free(*out);
    *out = NULL;
    return err_origin(-EINVAL, "%s --snapshot-version names no version: %.60s", program, text);
}

static int fc_find_root(const struct vmm *vm, char **out)
{
    if (vm->spec.jail)
        return jail_root(vm->spec.jail, vm->folder, vmm_program(vm), out);
    *out = strdup(vm->folder);
    return *out ? 0 : err_origin(-ENOMEM, "no memory for a VM");
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

static unsigned left_ms(uint64_t deadline_ns)
{
    int ms = clock_left_ms(deadline_ns);

    return ms > 0 ? (unsigned)ms : 1;
}

/* learn_version() - the process's own: asked for if nobody has yet */
static int learn_version(struct vmm *vm, struct fc_client *c, uint64_t deadline_ns)
{
    int r = fc_client_version(c, &vm->version, left_ms(deadline_ns));

    vm->has_version = r == 0;
    return r;
}

/* client_new() - @out: (give) nobody is asked anything */
static int client_new(const struct vmm *vm, uint64_t deadline_ns, struct fc_client **out)
{
    char path[PATH_MAX];
    int r = vmm_path(vm, VMM_FILE_API, path, sizeof(path));

    if (r == 0)
        r = fc_client_new(out, path, left_ms(deadline_ns));
    if (r == 0)
        fc_client_no_links(*out); /* in a jail, the prisoner can put one there */
    return r;
}

/* client_open() - @out: (give) one that knows the version */
static int client_open(struct vmm *vm, uint64_t deadline_ns, struct fc_client **out)
{
    int r = client_new(vm, deadline_ns, out);

    if (r == 0 && vm->has_version)
        fc_client_assume(*out, &vm->version);
    else if (r == 0)
        r = learn_version(vm, *out, deadline_ns);
    return r;
}

/*
 * wait_ready() - until it answers, ends, or the time is over
 *
 * One that has not answered in time still works on what it was asked, and on what was asked before. So it gets more time each time:
 * on a busy host it would be behind for ever otherwise.
 */
static int wait_ready(struct vmm *vm, uint64_t deadline_ns)
{
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;
    unsigned slice_ms = WAIT_SLICE_MS;
    int r = client_new(vm, deadline_ns, &c);

    if (r < 0)
        return r;
    for (;;) {
        unsigned left = left_ms(deadline_ns);

        r = fc_client_wait(c, left < slice_ms ? left : slice_ms);
        if (r == 0)
            return learn_version(vm, c, deadline_ns);
        if (r == -ETIMEDOUT && slice_ms < left)
            slice_ms *= 2;
        if (vmm_has_ended(vm) || clock_left_ms(deadline_ns) == 0)
            return r;
        if (r != -ETIMEDOUT && r != -ENOENT && r != -ECONNREFUSED && r != -EBUSY)
            return r;
    }
}

static int set_state(struct vmm *vm, enum fc_vm_state state, uint64_t deadline_ns)
{
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;
    struct fc_vm body = {.state = state};
    int r = client_open(vm, deadline_ns, &c);

    return r < 0 ? r : fc_patch_vm(c, NULL, &body, NULL, left_ms(deadline_ns));
}

/* ---- start ----------------------------------------------------------------------------------------------------- */

/* input_open() - a new FIFO, open in both directions. Return: fd (give) or a negative errno with a text */
static int input_open(const struct vmm *vm)
{
    char path[PATH_MAX];
    int fd, r = vmm_folder_path(vm, VMM_FILE_SERIAL_IN, path, sizeof(path));

    if (r < 0)
        return r;
    r = file_remove(path);
    if (r < 0)
        return r;
    if (mkfifo(path, 0600) < 0)
        return err_origin_errno(-errno, "cannot make the FIFO %s", path);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? err_origin_errno(-errno, "cannot open the FIFO %s", path) : fd;
}

static int console_open(const struct vmm *vm)
{
    char path[PATH_MAX];
    int r = vmm_folder_path(vm, VMM_FILE_CONSOLE, path, sizeof(path));

    return r < 0 ? r : child_log_open(path);
}

/* spawn_free() - without a jail */
static int spawn_free(struct vmm *vm, int in, int out)
{
    const char *argv[ARRAY_LEN(fc_args) + 1] = {vmm_program(vm)};

    memcpy((void *)&argv[1], (const void *)fc_args, sizeof(fc_args));
    return vmm_spawn(vm, argv, NULL, in, out);
}

/* spawn_jailed() - the jailer becomes Firecracker: it stays the same process */
static int spawn_jailed(struct vmm *vm, int in, int out)
{
    _cleanup_free_ char *program = NULL;
    _cleanup_fd_ int log_fd = -1;
    const struct vmm_jail *jail = vm->spec.jail;
    const char *argv[JAIL_MAX_ARGS];
    struct jail_numbers numbers;
    char log[PATH_MAX];
    struct child_spec child = {
        .argv = argv,
        .folder = vm->folder,
        .stdin_fd = in,
        .stdout_fd = out,
        .exit_file = VMM_FILE_EXIT,
        .id_file = VMM_FILE_PID,
    };
    int r = program_find(vmm_program(vm), &program);

    if (r == 0)
        r = jail_clear(vm->root, program);
    if (r == 0)
        r = jail_argv(jail, program, fc_args, &numbers, argv);
    if (r == 0)
        r = vmm_folder_path(vm, VMM_FILE_LOG, log, sizeof(log));
    if (r < 0)
        return r;
    log_fd = child_log_open(log);
    if (log_fd < 0)
        return log_fd;
    r = jail_add_log(jail, vm->root, log);
    if (r < 0)
        return r;
    child.stderr_fd = log_fd;
    return child_start(&child, &vm->id);
}

static int fc_start(struct vmm *vm, bool loads, uint64_t deadline_ns)
{
    _cleanup_fd_ int in = input_open(vm);
    _cleanup_fd_ int out = -1;
    int r;

    (void)loads;
    vm->has_version = false;
    if (in < 0)
        return in;
    out = console_open(vm);
    if (out < 0)
        return out;
    r = vm->spec.jail ? spawn_jailed(vm, in, out) : spawn_free(vm, in, out);
    return r < 0 ? r : wait_ready(vm, deadline_ns);
}

/* ---- boot ------------------------------------------------------------------------------------------------------ */

static int put_machine(struct fc_client *c, const struct vmm_spec *spec, unsigned timeout_ms)
{
    struct fc_machine_config machine = {
        .vcpu_count = spec->n_vcpus,
        .mem_size_mib = spec->memory_mib,
        .has_huge_pages = spec->huge_pages,
        .huge_pages = FC_HUGE_PAGES_2M,
    };

    return fc_put_machine_config(c, NULL, &machine, NULL, timeout_ms);
}

static int put_boot_source(struct fc_client *c, const struct vmm_spec *spec, unsigned timeout_ms)
{
    struct fc_boot_source source = {
        .kernel_image_path = VMM_FILE_KERNEL,
        .initrd_path = spec->has_initrd ? VMM_FILE_INITRD : NULL,
        .boot_args = spec->cmdline ? spec->cmdline : DEFAULT_ARGS,
    };

    return fc_put_boot_source(c, NULL, &source, NULL, timeout_ms);
}

static int put_drive(struct fc_client *c, const struct vmm_spec *spec, unsigned timeout_ms)
{
    struct fc_drive drive = {
        .drive_id = ROOT_DRIVE,
        .is_root_device = true,
        .path_on_host = VMM_FILE_ROOTFS,
        .has_is_read_only = true,
        .is_read_only = spec->rootfs_read_only,
    };

    return spec->has_rootfs ? fc_put_drive(c, NULL, &drive, NULL, timeout_ms) : 0;
}

static int put_vsock(struct fc_client *c, const struct vmm_spec *spec, unsigned timeout_ms)
{
    struct fc_vsock vsock = {.guest_cid = VMM_VSOCK_CID, .uds_path = VMM_FILE_VSOCK};

    return spec->vsock ? fc_put_vsock(c, NULL, &vsock, NULL, timeout_ms) : 0;
}

static int put_balloon(struct fc_client *c, const struct vmm_spec *spec, unsigned timeout_ms)
{
    struct fc_balloon balloon = {
        .deflate_on_oom = true,
        .has_free_page_hinting = spec->free_page_hinting,
        .free_page_hinting = true,
        .has_free_page_reporting = spec->free_page_reporting,
        .free_page_reporting = true,
    };
    struct thaw_version version;
    int r = fc_client_version(c, &version, timeout_ms);

    if (r < 0 || (spec->huge_pages && !at_least(&version, 1, 14)))
        return r;
    return fc_put_balloon(c, NULL, &balloon, NULL, timeout_ms);
}

static int fc_boot(struct vmm *vm, uint64_t deadline_ns)
{
    static int (*const steps[])(struct fc_client *, const struct vmm_spec *, unsigned) = {
        put_machine, put_boot_source, put_drive, put_vsock, put_balloon};
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;
    struct fc_action start = {.action_type = FC_ACTION_TYPE_INSTANCE_START};
    int r = client_open(vm, deadline_ns, &c);

    for (unsigned i = 0; r == 0 && i < ARRAY_LEN(steps); i++)
        r = steps[i](c, &vm->spec, left_ms(deadline_ns));
    return r < 0 ? r : fc_put_actions(c, NULL, &start, NULL, left_ms(deadline_ns));
}

/* ---- snapshots ------------------------------------------------------------------------------------------------- */

static int fc_load(struct vmm *vm, bool resume, uint64_t deadline_ns)
{
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;
    bool from_file = vm->spec.memory_from_file;
    struct fc_snapshot_load load = {
        .snapshot_path = VMM_FILE_STATE,
        .has_mem_backend = true,
        .mem_backend = {.backend_type = from_file ? FC_BACKEND_TYPE_FILE : FC_BACKEND_TYPE_UFFD,
                        .backend_path = from_file ? VMM_FILE_MEMORY : VMM_FILE_UFFD},
        .has_resume_vm = resume,
        .resume_vm = resume,
    };
    int r = client_open(vm, deadline_ns, &c);

    if (r == 0 && !from_file)
        r = vmm_give(vm, VMM_FILE_UFFD);
    return r < 0 ? r : fc_load_snapshot(c, NULL, &load, NULL, left_ms(deadline_ns));
}

/* remove_file() - of the root. Return: 0, also if there was none, or a negative errno with a text */
static int remove_file(const struct vmm *vm, const char *name)
{
    char path[PATH_MAX];
    int r = vmm_path(vm, name, path, sizeof(path));

    return r == 0 ? file_remove(path) : r;
}

/* drop_file() - the same, where another error has its text already */
static void drop_file(const struct vmm *vm, const char *name)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/%s", vm->root, name) < (int)sizeof(path))
        (void)unlink(path);
}

/* snapshot_type() - the one that writes least */
static int snapshot_type(struct fc_client *c, bool with_memory, uint64_t deadline_ns,
                         enum fc_snapshot_type *out)
{
    struct thaw_version version;
    int r = fc_client_version(c, &version, left_ms(deadline_ns));

    if (r == 0)
        *out = with_memory || !at_least(&version, 1, 13) ? FC_SNAPSHOT_TYPE_FULL
                                                         : FC_SNAPSHOT_TYPE_DIFF;
    return r;
}

static int fc_snapshot(struct vmm *vm, bool with_memory, uint64_t deadline_ns)
{
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;
    const char *memory = with_memory ? VMM_FILE_MEMORY : MEMORY_SCRATCH;
    struct fc_snapshot_create create = {
        .mem_file_path = memory,
        .snapshot_path = VMM_FILE_STATE,
        .has_snapshot_type = true,
    };
    int r = client_open(vm, deadline_ns, &c);

    if (r == 0)
        r = snapshot_type(c, with_memory, deadline_ns, &create.snapshot_type);
    if (r == 0)
        r = remove_file(vm, VMM_FILE_STATE);
    if (r == 0)
        r = remove_file(vm, memory);
    if (r < 0)
        return r;
    r = fc_create_snapshot(c, NULL, &create, NULL, left_ms(deadline_ns));
    /* One that has not answered may write on: what it writes to has no name then. */
    if (r < 0 || !with_memory)
        drop_file(vm, memory);
    return r;
}

/* ---- a VM that runs -------------------------------------------------------------------------------------------- */

static int fc_resume(struct vmm *vm, uint64_t deadline_ns)
{
    return set_state(vm, FC_VM_STATE_RESUMED, deadline_ns);
}

static int fc_state(struct vmm *vm, enum vmm_run_state *out, uint64_t deadline_ns)
{
    static const enum vmm_run_state states[] = {
        [FC_INSTANCE_STATE_NOT_STARTED] = VMM_NOT_STARTED,
        [FC_INSTANCE_STATE_RUNNING] = VMM_RUNNING,
        [FC_INSTANCE_STATE_PAUSED] = VMM_PAUSED,
    };
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;
    struct fc_instance answer = {0};
    int r = client_open(vm, deadline_ns, &c);

    if (r == 0)
        r = fc_get_instance(c, NULL, NULL, &answer, left_ms(deadline_ns));
    if (r == 0)
        *out = states[answer.state];
    fc_model_clear(&fc_model_instance, &answer);
    return r;
}

/*
 * fc_pause() - the guest stands, and nothing that it has asked of its devices is left to be done
 *
 * Only processors are paused: the thread that answers requests is also the devices'. A queue that the guest has kicked before (free
 * pages that it reports) may wait in the same round of events as the request, and be worked on after its answer. Each request
 * is a round of its own, so that is over when another one has been answered; nobody kicks any more.
 */
static int fc_pause(struct vmm *vm, uint64_t deadline_ns)
{
    enum vmm_run_state state;
    int r = set_state(vm, FC_VM_STATE_PAUSED, deadline_ns);

    return r == 0 ? fc_state(vm, &state, deadline_ns) : r;
}

static int fc_balloon_set(struct vmm *vm, unsigned mib, uint64_t deadline_ns)
{
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;
    struct fc_balloon_patch body = {.amount_mib = mib};
    int r = client_open(vm, deadline_ns, &c);

    return r < 0 ? r : fc_patch_balloon(c, NULL, &body, NULL, left_ms(deadline_ns));
}

/* Statistics are off, so how much the guest has given is not known. */
static int fc_balloon_get(struct vmm *vm, struct vmm_balloon *out, uint64_t deadline_ns)
{
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;
    struct fc_balloon answer = {0};
    int r = client_open(vm, deadline_ns, &c);

    if (r == 0)
        r = fc_get_balloon(c, NULL, NULL, &answer, left_ms(deadline_ns));
    if (r == 0) {
        out->target_mib = answer.amount_mib;
        out->free_page_reporting = answer.has_free_page_reporting && answer.free_page_reporting;
        out->free_page_hinting = answer.has_free_page_hinting && answer.free_page_hinting;
    }
    fc_model_clear(&fc_model_balloon, &answer);
    return r;
}

/*
 * hint_is_done() - after a start, host_cmd is the run's number until the guest has come to its end. Return: 1, 0 or -errno
 *
 * Near the deadline the VMM gets time of its own to answer: it is the guest that may be late.
 */
static int hint_is_done(struct fc_client *c, uint64_t deadline_ns)
{
    struct fc_hinting_status status = {0};
    unsigned answer_ms = left_ms(deadline_ns);
    int r = fc_get_hinting(c, NULL, NULL, &status,
                           answer_ms > HINT_ANSWER_MS ? answer_ms : HINT_ANSWER_MS);
    bool done = r == 0 && status.host_cmd == HINT_DONE;

    fc_model_clear(&fc_model_hinting_status, &status);
    return r < 0 ? r : done;
}

static int fc_hint(struct vmm *vm, uint64_t deadline_ns)
{
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;
    struct fc_hinting_start start = {.has_acknowledge_on_stop = true, .acknowledge_on_stop = true};
    int r = client_open(vm, deadline_ns, &c);

    if (r == 0)
        r = fc_start_hinting(c, NULL, &start, NULL, left_ms(deadline_ns));
    if (r < 0)
        return r;
    while (clock_left_ms(deadline_ns) > 0) {
        r = hint_is_done(c, deadline_ns);
        if (r != 0)
            return r < 0 ? r : 0;
        clock_sleep_ns(HINT_POLL_NS);
    }
    /* The guest may have its pages back. */
    r = fc_stop_hinting(c, NULL, NULL, NULL, HINT_ANSWER_MS);
    return r < 0 ? r : 1;
}

static int fc_console_write(struct vmm *vm, const char *text, size_t len, uint64_t deadline_ns)
{
    _cleanup_fd_ int fd = -1;
    char path[PATH_MAX];
    int r = vmm_folder_path(vm, VMM_FILE_SERIAL_IN, path, sizeof(path));

    if (r < 0)
        return r;
    fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC |
                        O_NOFOLLOW); /* not only for writing: that is SIGPIPE when it ends */
    if (fd < 0)
        return err_origin_errno(-errno, "cannot type at the console %s", path);
    while (len > 0) {
        struct pollfd pfd = {.fd = fd, .events = POLLOUT};
        ssize_t n = write(fd, text, len);

        if (n >= 0) {
            text += n;
            len -= (size_t)n;
        } else if (errno != EAGAIN && errno != EINTR) {
            return err_origin_errno(-errno, "cannot type at the console %s", path);
        } else if (clock_left_ms(deadline_ns) == 0) {
            return err_origin(-ETIMEDOUT,
                              "the guest does not read its console %s: %zu bytes are left", path,
                              len);
        } else {
            (void)poll(&pfd, 1, clock_left_ms(deadline_ns));
        }
    }
    return 0;
}

const struct vmm_driver driver_fc = {
    .name = "firecracker",
    .program = "firecracker",
    .knows_jail = true,
    .saves_aside = true,
    .check = fc_driver_check,
    .snapshot_format = fc_snapshot_format,
    .find_root = fc_find_root,
    .start = fc_start,
    .boot = fc_boot,
    .load = fc_load,
    .pause = fc_pause,
    .resume = fc_resume,
    .snapshot = fc_snapshot,
    .state = fc_state,
    .balloon_set = fc_balloon_set,
    .balloon_get = fc_balloon_get,
    .hint = fc_hint,
    .console_write = fc_console_write,
    .exit_meaning = fc_exit_meaning,
};
