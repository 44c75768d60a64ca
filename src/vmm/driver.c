/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.c - the gate before the drivers
 *
 * What is the same for all VMMs is here, once: arguments are checked, files of an earlier life of the VM are removed before a
 * new one begins, every timeout becomes one deadline, a VMM that is gone is not asked anything, and whatever fails while the
 * VMM ends gets the VMM's last words. A driver (driver_*.c) is left with what its VMM is told and what it answers.
 *
 * A new driver is a table in a file of its own and a line in all_drivers[].
 */

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "vmm/driver_private.h"
#include "vmm/jailer.h"

#define ASK_MS     10000u /* for a program that prints its version */
#define KILL_MS    10000u /* for a process to end that was killed */
#define MOUNTS     "/proc/self/mounts"
#define EXIT_MS    500u       /* for a keeper to write down what has happened */
#define FULL_BYTES (64 * KIB) /* that are free in a file system: it is full */

static const struct vmm_driver *const all_drivers[] = {
    &driver_fc,
    &driver_qemu,
    NULL,
};

const struct vmm_driver *vmm_driver_find(const char *name)
{
    for (unsigned i = 0; all_drivers[i]; i++) {
        if (strcmp(all_drivers[i]->name, name) == 0)
            return all_drivers[i];
    }
    return NULL;
}

const char *vmm_driver_name(const struct vmm_driver *driver)
{
    return driver->name;
}

/* ---- before there is a VM -------------------------------------------------------------------------------------- */

int vmm_driver_check(const struct vmm_driver *driver, const struct vmm_spec *spec,
                     const char *version)
{
    int r = spec_check(driver, spec);

    if (r == 0 && driver->check)
        r = driver->check(spec, version);
    assert(r <= 0);
    return r;
}

/* version_find() - the first word that looks like a version, without the 'v' before it. Return: its length, 0: none */
static size_t version_find(const char **text)
{
    const char *at = *text;

    while (*at != '\0') {
        size_t n = strcspn(at, " \t\r\n");
        const char *word = *at == 'v' ? at + 1 : at;

        if (isdigit((unsigned char)*word) && memchr(word, '.', n - (size_t)(word - at))) {
            *text = word;
            return n - (size_t)(word - at);
        }
        at += n;
        at += strspn(at, " \t\r\n");
    }
    return 0;
}

int vmm_program_version(const struct vmm_driver *driver, const char *program, char **out)
{
    const char *argv[] = {program ? program : driver->program, "--version", NULL};
    _cleanup_free_ char *text = NULL;
    const char *version;
    size_t len;
    int r = program_output(argv, ASK_MS, &text);

    if (r < 0)
        return r;
    assert(text);
    version = text;
    len = version_find(&version);
    if (len == 0)
        return err_origin(-EINVAL, "%s --version names no version: %.60s", argv[0], text);
    *out = strndup(version, len);
    return *out ? 0 : err_origin(-ENOMEM, "no memory for a version");
}

int vmm_program_stamp(const struct vmm_driver *driver, const char *program, char **out)
{
    return program_stamp(program ? program : driver->program, out);
}

int vmm_snapshot_format(const struct vmm_driver *driver, const struct vmm_spec *spec, char **out)
{
    return driver->snapshot_format(spec, spec->program ? spec->program : driver->program, out);
}

/* ---- a VM ------------------------------------------------------------------------------------------------------ */

struct vmm *vmm_free(struct vmm *vm)
{
    if (!vm)
        return NULL;
    spec_deinit(&vm->spec);
    free(vm->folder);
    free(vm->root);
    free(vm);
    return NULL;
}

/* find_root() - Return: 0 or a negative errno with a text */
static int find_root(struct vmm *vm)
{
    if (vm->driver->find_root)
        return vm->driver->find_root(vm, &vm->root);
    vm->root = strdup(vm->folder);
    return vm->root ? 0 : err_origin(-ENOMEM, "no memory for a VM");
}

int vmm_new(struct vmm **out, const struct vmm_driver *driver, const struct vmm_spec *spec,
            const char *folder)
{
    _cleanup_(vmm_freep) struct vmm *vm = NULL;
    int r = spec_check(driver, spec);

    if (r < 0)
        return r;
    vm = calloc(1, sizeof(*vm));
    if (!vm || spec_copy(&vm->spec, spec) < 0)
        return err_origin(-ENOMEM, "no memory for a VM");
    vm->driver = driver;
    vm->folder = realpath(folder, NULL);
    if (!vm->folder)
        return err_origin_errno(-errno, "cannot use the folder %s for a VM", folder);
    r = find_root(vm);
    if (r < 0)
        return r;
    *out = TAKE(vm);
    return 0;
}

int vmm_adopt(struct vmm **out, const struct vmm_driver *driver, const struct vmm_spec *spec,
              const char *folder, struct vmm_id id)
{
    _cleanup_(vmm_freep) struct vmm *vm = NULL;
    int r;

    /* First: of one that has ended there may be nothing left that a VM could be made of. */
    if (child_has_ended(id))
        return err_origin(-ESRCH, "the VMM in %s, process %d, has ended", folder, id.pid);
    r = vmm_new(&vm, driver, spec, folder);
    if (r < 0)
        return r;
    assert(vm);
    vm->id = id;
    *out = TAKE(vm);
    return 0;
}

const char *vmm_root(const struct vmm *vm)
{
    return vm->root;
}

const char *vmm_folder(const struct vmm *vm)
{
    return vm->folder;
}

int vmm_give(const struct vmm *vm, const char *name)
{
    return vm->spec.jail ? jail_give(vm->spec.jail, vm->root, name) : 0;
}

int vmm_clear(const char *folder)
{
    _cleanup_free_ char *root = NULL;
    int r = jail_find(folder, &root);

    if (r == 0)
        r = jail_remove_cgroups(root, MOUNTS);
    return r == -ENOENT ? 0 : r;
}

struct vmm_id vmm_id(const struct vmm *vm)
{
    return vm->id;
}

const char *vmm_program(const struct vmm *vm)
{
    return vm->spec.program ? vm->spec.program : vm->driver->program;
}

int vmm_path(const struct vmm *vm, const char *name, char *buf, size_t len)
{
    if (snprintf(buf, len, "%s/%s", vm->root, name) >= (int)len)
        return err_origin(-ENAMETOOLONG, "the name of %s in %s is too long", name, vm->root);
    return 0;
}

int vmm_folder_path(const struct vmm *vm, const char *name, char *buf, size_t len)
{
    if (snprintf(buf, len, "%s/%s", vm->folder, name) >= (int)len)
        return err_origin(-ENAMETOOLONG, "the name of %s in %s is too long", name, vm->folder);
    return 0;
}

/* ---- its end --------------------------------------------------------------------------------------------------- */

bool vmm_has_ended(const struct vmm *vm)
{
    return child_has_ended(vm->id);
}

int vmm_wait_end(const struct vmm *vm, unsigned timeout_ms)
{
    return child_wait_end(vm->id, timeout_ms);
}

/* read_end() - the keeper hears of the end when we do: it gets a moment to write it down */
static struct child_end read_end(const char *path)
{
    uint64_t deadline_ns = clock_now_ns() + EXIT_MS * NS_PER_MS;
    struct child_end end = child_end_read(path);

    while (end.how == CHILD_UNKNOWN && clock_left_ms(deadline_ns) > 0) {
        clock_sleep_ns(2 * NS_PER_MS);
        end = child_end_read(path);
    }
    return end;
}

int vmm_kill(struct vmm *vm, unsigned timeout_ms)
{
    bool lived = !vmm_has_ended(vm);
    char path[PATH_MAX];
    int r = child_kill(vm->id, timeout_ms);

    /* Then its keeper has nothing more to do in the folder, which may be removed or used again. */
    if (r == 0 && lived && vmm_folder_path(vm, VMM_FILE_EXIT, path, sizeof(path)) == 0)
        (void)read_end(path);
    return r;
}

/* is_full() - memory that is a file's has nowhere to be then: who writes to it is killed, and says nothing */
static bool is_full(const char *folder)
{
    struct statvfs fs;

    return statvfs(folder, &fs) == 0 && fs.f_bavail * fs.f_frsize < FULL_BYTES;
}

void vmm_end_text(const struct vmm *vm, char *buf, size_t len)
{
    struct child_end end;
    char path[PATH_MAX], how[64], last[256];
    const char *meaning = NULL;
    int n;

    (void)snprintf(buf, len, "runs");
    if (!vmm_has_ended(vm))
        return;
    (void)snprintf(path, sizeof(path), "%s/%s", vm->folder, VMM_FILE_EXIT);
    end = read_end(path);
    child_end_text(end, how, sizeof(how));
    if (end.how == CHILD_EXITED && vm->driver->exit_meaning)
        meaning = vm->driver->exit_meaning(end.number);
    (void)snprintf(path, sizeof(path), "%s/%s", vm->folder, VMM_FILE_LOG);
    log_last_line(path, last, sizeof(last));
    n = snprintf(buf, len, "%s%s%s%s%s%s", how, meaning ? ": " : "", meaning ? meaning : "",
                 last[0] ? " (its last words: " : "", last, last[0] ? ")" : "");
    if (end.how != CHILD_EXITED && n >= 0 && (size_t)n < len && is_full(vm->folder))
        (void)snprintf(buf + n, len - (size_t)n, "; the file system of %s is full", vm->folder);
}

/* last_words() - an operation failed with @r: if the VMM has ended, that is the more interesting half of the text */
static int last_words(const struct vmm *vm, int r)
{
    const struct err_kept e = err_keep(r);
    char how[400];

    assert(r < 0);
    if (vm->id.pid == 0 || !vmm_has_ended(vm))
        return r;
    vmm_end_text(vm, how, sizeof(how));
    return err_origin(r, "%s; %s, process %d, %s", e.text, vmm_program(vm), vm->id.pid, how);
}

/* kill_after() - an operation failed with @r, and the VMM is of no further use */
static int kill_after(struct vmm *vm, int r)
{
    const struct err_kept e = err_keep(r);

    if (vm->id.pid == 0)
        return r;
    /* One that is ending has its own last words; waiting a moment for them costs nothing. */
    if (vmm_wait_end(vm, 50) == 0)
        return last_words(vm, r);
    if (vmm_kill(vm, KILL_MS) < 0)
        return err_origin(r, "%s; and the VMM, process %d, could not be killed", e.text,
                          vm->id.pid);
    return err_tell(&e, 0);
}

/* ---- its life -------------------------------------------------------------------------------------------------- */

/* alive() - is there a VMM to ask? */
static int alive(const struct vmm *vm)
{
    if (vm->id.pid == 0)
        return err_origin(-ESRCH, "no VMM was started in %s", vm->folder);
    if (vmm_has_ended(vm))
        return last_words(vm, err_origin(-ESRCH, "there is nobody to ask"));
    return 0;
}

static uint64_t deadline_in(unsigned timeout_ms)
{
    return clock_now_ns() + timeout_ms * NS_PER_MS;
}

/* done() - what an operation returned: never a positive number */
static int done(const struct vmm *vm, int r)
{
    assert(r <= 0);
    return r < 0 ? last_words(vm, r) : 0;
}

int vmm_spawn(struct vmm *vm, const char *const *argv, const char *const *env, int stdin_fd,
              int stdout_fd)
{
    _cleanup_fd_ int log = -1;
    struct child_spec spec = {
        .argv = argv,
        .folder = vm->folder,
        .env = env,
        .stdin_fd = stdin_fd,
        .exit_file = VMM_FILE_EXIT,
        .id_file = VMM_FILE_PID,
    };
    char path[PATH_MAX];
    int r = vmm_folder_path(vm, VMM_FILE_LOG, path, sizeof(path));

    if (r < 0)
        return r;
    log = child_log_open(path);
    if (log < 0)
        return log;
    spec.stdout_fd = stdout_fd < 0 ? log : stdout_fd;
    spec.stderr_fd = log;
    return child_start(&spec, &vm->id);
}

static int need_file(const struct vmm *vm, bool needed, const char *name)
{
    char path[PATH_MAX];
    int r;

    if (!needed)
        return 0;
    r = vmm_path(vm, name, path, sizeof(path));
    if (r < 0)
        return r;
    return access(path, F_OK) == 0
               ? 0
               : err_origin_errno(-errno, "the VM needs the file %s in %s", name, vm->root);
}

static int need_files(const struct vmm *vm, bool loads)
{
    int r = need_file(vm, !loads, VMM_FILE_KERNEL);

    if (r == 0)
        r = need_file(vm, !loads && vm->spec.has_initrd, VMM_FILE_INITRD);
    if (r == 0)
        r = need_file(vm, vm->spec.has_rootfs, VMM_FILE_ROOTFS);
    if (r == 0)
        r = need_file(vm, loads, VMM_FILE_STATE);
    return r;
}

/* remove_stale() - what an earlier VMM has left: a socket that is there is taken for one that answers */
static int remove_stale(const struct vmm *vm)
{
    static const char *const in_folder[] = {VMM_FILE_LOG, VMM_FILE_CONSOLE, VMM_FILE_PID,
                                            VMM_FILE_EXIT};
    static const char *const in_root[] = {VMM_FILE_API, VMM_FILE_SERIAL, VMM_FILE_VSOCK};
    char path[PATH_MAX];
    int r = 0;

    for (unsigned i = 0; r == 0 && i < ARRAY_LEN(in_folder); i++) {
        r = vmm_folder_path(vm, in_folder[i], path, sizeof(path));
        if (r == 0)
            r = file_remove(path);
    }
    for (unsigned i = 0; r == 0 && i < ARRAY_LEN(in_root); i++) {
        r = vmm_path(vm, in_root[i], path, sizeof(path));
        if (r == 0)
            r = file_remove(path);
    }
    return r;
}

/* check_free() - does no VMM live in the folder, of this life or of one that this process knows nothing of? */
static int check_free(const struct vmm *vm)
{
    struct vmm_id id = vm->id;
    char path[PATH_MAX];
    int r = vmm_folder_path(vm, VMM_FILE_PID, path, sizeof(path));

    if (r < 0)
        return r;
    if (child_has_ended(id) && child_id_read(path, &id) < 0)
        return 0;
    if (!child_has_ended(id))
        return err_origin(-EBUSY, "a VMM runs in %s already, process %d", vm->folder, id.pid);
    r = vmm_folder_path(vm, VMM_FILE_EXIT, path, sizeof(path));
    if (r == 0)
        (void)read_end(path); /* or the last life's end would be taken for that of the next one */
    return r;
}

int vmm_start(struct vmm *vm, bool loads, unsigned timeout_ms)
{
    uint64_t deadline_ns = deadline_in(timeout_ms);
    int r = check_free(vm);

    if (r < 0)
        return r;
    vm->id = (struct vmm_id){0};
    r = need_files(vm, loads);
    if (r == 0)
        r = remove_stale(vm);
    if (r == 0)
        r = vm->driver->start(vm, loads, deadline_ns);
    assert(r <= 0);
    return r < 0 ? kill_after(vm, r) : 0;
}

int vmm_boot(struct vmm *vm, unsigned timeout_ms)
{
    int r = alive(vm);

    return r < 0 ? r : done(vm, vm->driver->boot(vm, deadline_in(timeout_ms)));
}

int vmm_load(struct vmm *vm, bool resume, unsigned timeout_ms)
{
    int r = alive(vm);

    if (r < 0)
        return r;
    r = vm->driver->load(vm, resume, deadline_in(timeout_ms));
    assert(r <= 0);
    return r < 0 ? kill_after(vm, r) : 0;
}

int vmm_pause(struct vmm *vm, unsigned timeout_ms)
{
    int r = alive(vm);

    return r < 0 ? r : done(vm, vm->driver->pause(vm, deadline_in(timeout_ms)));
}

int vmm_resume(struct vmm *vm, unsigned timeout_ms)
{
    int r = alive(vm);

    return r < 0 ? r : done(vm, vm->driver->resume(vm, deadline_in(timeout_ms)));
}

int vmm_snapshot(struct vmm *vm, bool with_memory, unsigned timeout_ms)
{
    char path[PATH_MAX];
    int r = alive(vm);

    if (r == 0)
        r = vmm_path(vm, VMM_FILE_STATE, path, sizeof(path));
    if (r < 0)
        return r;
    r = vm->driver->snapshot(vm, with_memory, deadline_in(timeout_ms));
    if (r < 0)
        (void)unlink(path);
    return done(vm, r);
}

bool vmm_saves_aside(const struct vmm *vm)
{
    return vm->driver->saves_aside && !vm->spec.vsock;
}

int vmm_state(struct vmm *vm, enum vmm_run_state *out, unsigned timeout_ms)
{
    enum vmm_run_state state = VMM_ENDED;
    int r;

    if (vm->id.pid == 0) {
        *out = VMM_NOT_STARTED;
        return 0;
    }
    r = vmm_has_ended(vm) ? 0 : vm->driver->state(vm, &state, deadline_in(timeout_ms));
    if (r < 0 && !vmm_has_ended(vm))
        return r;
    *out = r < 0 ? VMM_ENDED : state;
    return 0;
}

int vmm_balloon_set(struct vmm *vm, unsigned mib, unsigned timeout_ms)
{
    int r = alive(vm);

    if (r < 0)
        return r;
    /* All of it: no guest lives on, and QEMU cannot be asked for that. */
    if (mib >= vm->spec.memory_mib)
        return err_origin(-EINVAL,
                          "a balloon of %u MiB in a guest that has %u: expected %u at most", mib,
                          vm->spec.memory_mib, vm->spec.memory_mib - 1);
    return done(vm, vm->driver->balloon_set(vm, mib, deadline_in(timeout_ms)));
}

int vmm_balloon_get(struct vmm *vm, struct vmm_balloon *out, unsigned timeout_ms)
{
    int r = alive(vm);

    *out = (struct vmm_balloon){.target_mib = UINT64_MAX, .actual_mib = UINT64_MAX};
    return r < 0 ? r : done(vm, vm->driver->balloon_get(vm, out, deadline_in(timeout_ms)));
}

int vmm_hint(struct vmm *vm, unsigned timeout_ms)
{
    int r = alive(vm);

    if (r < 0)
        return r;
    if (!vm->driver->hint || !vm->spec.free_page_hinting)
        return err_origin(-EOPNOTSUPP, "the VM in %s has no free page hinting", vm->folder);
    r = vm->driver->hint(vm, deadline_in(timeout_ms));
    assert(r <= 1);
    return r < 0 ? last_words(vm, r) : r;
}

int vmm_console_write(struct vmm *vm, const char *text, size_t len, unsigned timeout_ms)
{
    int r = alive(vm);

    if (r < 0 || len == 0)
        return r;
    return done(vm, vm->driver->console_write(vm, text, len, deadline_in(timeout_ms)));
}
