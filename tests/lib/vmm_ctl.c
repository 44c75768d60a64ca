/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm_ctl.c - src/vmm/driver.h as a command line, for tests
 *
 *     vmm_ctl [OPTION...] FOLDER OPERATION [ARGUMENT]
 *
 * One operation a run: so what one process has started, others find again by its folder, as it is meant to be. Prints what
 * the operation says. Exit status 0; 1: "error NAME: TEXT" on stderr; 2: usage; 3: a hint without an answer.
 */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "vmm/driver.h"

static const struct vmm_driver *driver;
static struct vmm_spec spec = {.memory_mib = 32, .n_vcpus = 1};
static struct vmm_jail jail = {.cgroup_version = 2};
static const char *cgroups[4];
static unsigned timeout_ms = 20000;

enum option_id {
    OPT_PROGRAM = 256,
    OPT_MACHINE,
    OPT_ACCEL,
    OPT_CPU,
    OPT_PRELOAD,
    OPT_CMDLINE,
    OPT_INITRD,
    OPT_ROOTFS,
    OPT_READ_ONLY,
    OPT_MEMORY,
    OPT_VCPUS,
    OPT_HUGE,
    OPT_FROM_FILE,
    OPT_REPORTING,
    OPT_HINTING,
    OPT_TIMEOUT,
    OPT_JAILER,
    OPT_JAIL_ID,
    OPT_JAIL_BASE,
    OPT_JAIL_USER,
    OPT_JAIL_NETNS,
    OPT_JAIL_CGROUP,
};

static const struct option options[] = {
    {"program", required_argument, NULL, OPT_PROGRAM},
    {"machine", required_argument, NULL, OPT_MACHINE},
    {"accel", required_argument, NULL, OPT_ACCEL},
    {"cpu", required_argument, NULL, OPT_CPU},
    {"preload", required_argument, NULL, OPT_PRELOAD},
    {"cmdline", required_argument, NULL, OPT_CMDLINE},
    {"initrd", no_argument, NULL, OPT_INITRD},
    {"rootfs", no_argument, NULL, OPT_ROOTFS},
    {"read-only", no_argument, NULL, OPT_READ_ONLY},
    {"memory", required_argument, NULL, OPT_MEMORY},
    {"vcpus", required_argument, NULL, OPT_VCPUS},
    {"huge", no_argument, NULL, OPT_HUGE},
    {"from-file", no_argument, NULL, OPT_FROM_FILE},
    {"reporting", no_argument, NULL, OPT_REPORTING},
    {"hinting", no_argument, NULL, OPT_HINTING},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"jailer", required_argument, NULL, OPT_JAILER},
    {"jail-id", required_argument, NULL, OPT_JAIL_ID},
    {"jail-base", required_argument, NULL, OPT_JAIL_BASE},
    {"jail-user", required_argument, NULL, OPT_JAIL_USER},
    {"jail-netns", required_argument, NULL, OPT_JAIL_NETNS},
    {"jail-cgroup", required_argument, NULL, OPT_JAIL_CGROUP},
    {"driver", required_argument, NULL, 'd'},
    {NULL, 0, NULL, 0},
};

static unsigned number(const char *text)
{
    return (unsigned)strtoul(text, NULL, 10);
}

static void jail_option(int c, const char *value)
{
    spec.jail = &jail;
    switch (c) {
    case OPT_JAILER:
        jail.program = value;
        break;
    case OPT_JAIL_ID:
        jail.id = value;
        break;
    case OPT_JAIL_BASE:
        jail.chroot_base = value;
        break;
    case OPT_JAIL_USER:
        jail.uid = jail.gid = number(value);
        break;
    case OPT_JAIL_NETNS:
        jail.netns = value;
        break;
    default:
        assert(jail.n_cgroups < ARRAY_LEN(cgroups));
        cgroups[jail.n_cgroups++] = value;
        jail.cgroups = cgroups;
        break;
    }
}

static void spec_option(int c, const char *value)
{
    switch (c) {
    case OPT_PROGRAM:
        spec.program = value;
        break;
    case OPT_MACHINE:
        spec.machine = value;
        break;
    case OPT_ACCEL:
        spec.accel = value;
        break;
    case OPT_CPU:
        spec.cpu = value;
        break;
    case OPT_PRELOAD:
        spec.preload = value;
        break;
    case OPT_CMDLINE:
        spec.cmdline = value;
        break;
    case OPT_MEMORY:
        spec.memory_mib = number(value);
        break;
    case OPT_VCPUS:
        spec.n_vcpus = number(value);
        break;
    default:
        jail_option(c, value);
        break;
    }
}

static void flag_option(int c)
{
    spec.has_initrd |= c == OPT_INITRD;
    spec.has_rootfs |= c == OPT_ROOTFS;
    spec.rootfs_read_only |= c == OPT_READ_ONLY;
    spec.huge_pages |= c == OPT_HUGE;
    spec.memory_from_file |= c == OPT_FROM_FILE;
    spec.free_page_reporting |= c == OPT_REPORTING;
    spec.free_page_hinting |= c == OPT_HINTING;
}

/* ---- operations ------------------------------------------------------------------------------------------------ */

static int do_start(struct vmm *vm, bool loads)
{
    int r = vmm_start(vm, loads, timeout_ms);

    if (r == 0)
        printf("%d\n", vmm_id(vm).pid);
    return r;
}

static int do_state(struct vmm *vm)
{
    static const char *const names[] = {
        [VMM_NOT_STARTED] = "not-started",
        [VMM_RUNNING] = "running",
        [VMM_PAUSED] = "paused",
        [VMM_ENDED] = "ended",
    };
    enum vmm_run_state state;
    int r = vmm_state(vm, &state, timeout_ms);

    if (r == 0)
        printf("%s\n", names[state]);
    return r;
}

static int do_balloon(struct vmm *vm)
{
    struct vmm_balloon b;
    int r = vmm_balloon_get(vm, &b, timeout_ms);

    if (r == 0)
        printf("{\"target_mib\": %" PRIi64 ", \"actual_mib\": %" PRIi64
               ", \"reporting\": %s, \"hinting\": %s}\n",
               (int64_t)b.target_mib, (int64_t)b.actual_mib,
               b.free_page_reporting ? "true" : "false", b.free_page_hinting ? "true" : "false");
    return r;
}

/* with_vm() - Return: as the operation; INT_MAX: there is no such */
static int with_vm(struct vmm *vm, const char *what, const char *arg)
{
    if (strcmp(what, "boot") == 0)
        return vmm_boot(vm, timeout_ms);
    if (strcmp(what, "load") == 0)
        return vmm_load(vm, false, timeout_ms);
    if (strcmp(what, "load-resume") == 0)
        return vmm_load(vm, true, timeout_ms);
    if (strcmp(what, "pause") == 0)
        return vmm_pause(vm, timeout_ms);
    if (strcmp(what, "resume") == 0)
        return vmm_resume(vm, timeout_ms);
    if (strcmp(what, "snapshot") == 0)
        return vmm_snapshot(vm, false, timeout_ms);
    if (strcmp(what, "snapshot-memory") == 0)
        return vmm_snapshot(vm, true, timeout_ms);
    if (strcmp(what, "state") == 0)
        return do_state(vm);
    if (strcmp(what, "balloon") == 0)
        return arg ? vmm_balloon_set(vm, number(arg), timeout_ms) : do_balloon(vm);
    if (strcmp(what, "hint") == 0)
        return vmm_hint(vm, timeout_ms);
    if (strcmp(what, "type") == 0 && arg)
        return vmm_console_write(vm, arg, strlen(arg), timeout_ms);
    if (strcmp(what, "kill") == 0)
        return vmm_kill(vm, timeout_ms);
    return INT_MAX;
}

/* existing() - a VM that somebody has started. Return: as vmm_adopt() */
static int existing(struct vmm **vm, const char *folder)
{
    char path[PATH_MAX];
    struct vmm_id id;
    int r;

    (void)snprintf(path, sizeof(path), "%s/%s", folder, VMM_FILE_PID);
    r = child_id_read(path, &id);
    return r < 0 ? r : vmm_adopt(vm, driver, &spec, folder, id);
}

/* say() - @text: (take) what an operation gave, if @r is 0 */
static int say(int r, char *text)
{
    if (r == 0 && text) {
        printf("%s\n", text);
        free(text);
    }
    return r;
}

static int run(const char *folder, const char *what, const char *arg)
{
    _cleanup_(vmm_freep) struct vmm *vm = NULL;
    char text[512], *answer = NULL;
    int r;

    if (strcmp(what, "check") == 0 && arg)
        return vmm_driver_check(driver, &spec, arg);
    if (strcmp(what, "version") == 0) {
        r = vmm_program_version(driver, spec.program, &answer);
        return say(r, answer);
    }
    if (strcmp(what, "format") == 0) {
        r = vmm_snapshot_format(driver, &spec, &answer);
        return say(r, answer);
    }
    if (strcmp(what, "start") != 0 && strcmp(what, "start-load") != 0 &&
        strcmp(what, "root") != 0 && strcmp(what, "end") != 0) {
        r = existing(&vm, folder);
        return r < 0 ? r : with_vm(vm, what, arg);
    }
    r = vmm_new(&vm, driver, &spec, folder);
    if (r < 0)
        return r;
    assert(vm);
    if (strcmp(what, "root") == 0)
        return say(0, strdup(vmm_root(vm)));
    if (strcmp(what, "end") != 0)
        return do_start(vm, strcmp(what, "start-load") == 0);
    vmm_end_text(vm, text, sizeof(text));
    return say(0, strdup(text));
}

int main(int argc, char **argv)
{
    int c, r;

    driver = vmm_driver_find("firecracker");
    while ((c = getopt_long(argc, argv, "+d:", options, NULL)) != -1) {
        if (c == '?')
            return 2;
        if (c == 'd')
            driver = vmm_driver_find(optarg);
        else if (c == OPT_TIMEOUT)
            timeout_ms = number(optarg);
        else if (optarg)
            spec_option(c, optarg);
        else
            flag_option(c);
    }
    if (!driver || argc - optind < 2)
        return 2;
    r = run(argv[optind], argv[optind + 1], argv[optind + 2]);
    if (r == INT_MAX)
        return 2;
    if (r < 0)
        fprintf(stderr, "error %s: %s\n", strerrorname_np(-r), err_text());
    return r < 0 ? 1 : r == 0 ? 0 : 3;
}
