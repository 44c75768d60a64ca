/* SPDX-License-Identifier: Apache-2.0 */
/*
 * restore_vm.c - one VM of `thaw bench restore`
 *
 * Its folder is made before the clock runs, with links to the template's files; a disk that the guest may write to is copied, and that
 * is left out of the times: how long it takes depends on the file system, not on who brings the memory.
 *
 * The guest has answered when the shell at its console has run a command (node/console.h).
 *
 * When the first fault is answered is seen in the pager's state file by a thread that looks at the counter; with many VMs at
 * once such threads would be in the way of what they look at, so only a VM that is alone has one.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "cli/bench/restore.h"
#include "core/block.h"
#include "node/console.h"
#include "node/instance.h"
#include "node/state_copy.h"
#include "node/tree.h"
#include "pager/state_dir.h"
#include "vmm/child.h"

#define POLL_NS (500 * NS_PER_US)

struct restore_vm {
    const struct restore_ground *ground;
    const struct vmm_driver *driver;
    struct vmm_spec spec;
    enum restore_kind kind;
    char folder[PATH_MAX];
    struct instance in;
};

/* ---- its folder ----------------------------------------------------------------------------------------------- */

static int bring_files(const struct restore_vm *vm)
{
    const struct template *t = vm->ground->template;
    char *from = template_folder(vm->ground->store, t->name);
    int r = from ? 0 : err_origin_errno(-ENOMEM, "no memory for the name of a folder");

    if (r == 0)
        r = tree_put_file(tree_link_file, from, vm->folder, VMM_FILE_STATE);
    if (r == 0)
        r = tree_put_file(tree_link_file, from, vm->folder, VMM_FILE_KERNEL);
    if (r == 0 && t->has_initrd)
        r = tree_put_file(tree_link_file, from, vm->folder, VMM_FILE_INITRD);
    if (r == 0 && t->has_rootfs)
        r = tree_put_file(t->rootfs_read_only ? tree_link_file : tree_copy_file, from, vm->folder,
                          VMM_FILE_ROOTFS);
    if (r == 0 && vm->kind == RESTORE_FILE)
        r = tree_put_file(tree_link_file, vm->ground->folder, vm->folder, VMM_FILE_MEMORY);
    free(from);
    return r;
}

int restore_vm_new(struct restore_vm **out, const struct restore_ground *g, enum restore_kind kind,
                   unsigned number)
{
    _cleanup_(restore_vm_freep) struct restore_vm *vm = calloc(1, sizeof(*vm));
    char name[32];
    int r;

    if (!vm)
        return err_origin_errno(-ENOMEM, "no memory for a VM");
    vm->ground = g;
    vm->kind = kind;
    vm->driver = vmm_driver_find(template_vmm_words[g->template->vmm]);
    vm->spec = template_spec(g->template);
    vm->spec.memory_from_file = kind == RESTORE_FILE;
    (void)snprintf(name, sizeof(name), "vm%u", number);
    r = tree_path(vm->folder, sizeof(vm->folder), g->folder, name);
    if (r == 0 && mkdir(vm->folder, 0700) < 0)
        r = err_origin_errno(-errno, "cannot make the folder %s", vm->folder);
    if (r == 0)
        r = bring_files(vm);
    if (r < 0)
        return r;
    *out = TAKE(vm);
    return 0;
}

/* ---- the first fault ------------------------------------------------------------------------------------------ */

/* struct watcher - a thread that looks for the first fault of a VM */
struct watcher {
    const struct restore_vm *vm;
    uint64_t faulted_ns; /* clock_now_ns(); 0: it has not seen one */
    atomic_bool over;
    bool runs;
    pthread_t thread;
};

/* find_state() - the state file of the VM's pager, as soon as there is a pager. Return: is there one? */
static bool find_state(const struct restore_vm *vm, char *buf, size_t len)
{
    char dir[PATH_MAX];
    char path[PATH_MAX];
    struct vmm_id pager;

    return tree_path(path, sizeof(path), vm->folder, INSTANCE_FILE_PAGER_ID) == 0 &&
           tree_exists(path) && child_id_read(path, &pager) == 0 &&
           state_dir_default(dir, sizeof(dir)) == 0 && state_path(dir, pager.pid, buf, len) == 0;
}

/* has_faulted() - does a state file say that a fault was answered? */
static bool has_faulted(const char *state)
{
    _cleanup_fd_ int fd = open(state, O_RDONLY | O_CLOEXEC);
    struct block_header header;

    return fd >= 0 && pread(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header) &&
           header.fault_ns.n > 0;
}

static void *watch(void *ctx)
{
    struct watcher *w = ctx;
    char state[PATH_MAX] = "";

    while (!atomic_load(&w->over)) {
        if (state[0] == '\0' && !find_state(w->vm, state, sizeof(state)))
            state[0] = '\0';
        if (state[0] != '\0' && has_faulted(state)) {
            w->faulted_ns = clock_now_ns();
            break;
        }
        clock_sleep_ns(POLL_NS);
    }
    return NULL;
}

static void watcher_start(struct watcher *w, const struct restore_vm *vm)
{
    w->vm = vm;
    w->runs = pthread_create(&w->thread, NULL, watch, w) == 0;
}

static void watcher_end(struct watcher *w)
{
    atomic_store(&w->over, true);
    if (w->runs)
        (void)pthread_join(w->thread, NULL);
    w->runs = false;
}

/* ---- the restore ---------------------------------------------------------------------------------------------- */

/* ask() - have the shell at its console do something */
static int ask(struct restore_vm *vm)
{
    const struct console_wait wait = {.timeout_ms = vm->ground->timeout_ms, .nap_ns = POLL_NS};
    struct console_result done;
    int r = console_run(vm->in.vmm, "true", CONSOLE_SHELL_ITSELF, &wait, NULL, NULL, &done);

    console_result_deinit(&done);
    return r;
}

static int load_served(struct restore_vm *vm, uint64_t began_ns, struct restore_times *times)
{
    struct instance_times marks = {0};
    struct instance_spec serve = {.store = vm->ground->store,
                                  .image = vm->ground->template->image,
                                  .no_prefetch = vm->ground->no_prefetch,
                                  .times = &marks};
    int r = instance_load(&vm->in, vm->driver, &vm->spec, vm->folder, &serve, true,
                          vm->ground->timeout_ms);

    times->ns[RESTORE_LISTENING] = marks.listening_ns - began_ns;
    times->ns[RESTORE_STARTED] = marks.started_ns - began_ns;
    return r;
}

static int load_from_file(struct restore_vm *vm, uint64_t began_ns, struct restore_times *times)
{
    int r = vmm_new(&vm->in.vmm, vm->driver, &vm->spec, vm->folder);

    if (r == 0)
        r = vmm_start(vm->in.vmm, true, vm->ground->timeout_ms);
    times->ns[RESTORE_STARTED] = clock_now_ns() - began_ns;
    return r == 0 ? vmm_load(vm->in.vmm, true, vm->ground->timeout_ms) : r;
}

/* count() - what the pager's state says of the VM's pages */
static void count(const struct restore_vm *vm, struct restore_times *times)
{
    _cleanup_(state_freep) struct state_copy *state = NULL;

    if (vm->in.state_path[0] == '\0' || state_read(vm->in.state_path, &state) < 0)
        return;
    times->n_faults = state->block.header->counters.faults;
    times->n_ahead = state->block.header->counters.pages_ahead;
}

int restore_vm_run(struct restore_vm *vm, uint64_t began_ns, struct restore_times *times)
{
    struct watcher watcher = {0};
    int r;

    *times = (struct restore_times){0};
    if (vm->kind == RESTORE_THAW && vm->ground->alone)
        watcher_start(&watcher, vm);
    r = vm->kind == RESTORE_THAW ? load_served(vm, began_ns, times)
                                 : load_from_file(vm, began_ns, times);
    times->ns[RESTORE_LOADED] = clock_now_ns() - began_ns;
    if (r == 0)
        r = ask(vm);
    times->ns[RESTORE_READY] = clock_now_ns() - began_ns;
    watcher_end(&watcher);
    if (watcher.faulted_ns > began_ns)
        times->ns[RESTORE_FAULTED] = watcher.faulted_ns - began_ns;
    count(vm, times);
    return r;
}

struct restore_vm *restore_vm_free(struct restore_vm *vm)
{
    if (!vm)
        return NULL;
    /* A VM that does not end keeps its folder: its userfaultfd may be of use to somebody. */
    if (instance_end(&vm->in, vm->ground->timeout_ms) == 0 && vm->folder[0] != '\0')
        (void)tree_remove(vm->folder);
    instance_forget(&vm->in);
    free(vm);
    return NULL;
}
