/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qemu_command.c - QEMU's command line
 *
 * The lives of a VM have the same machine and devices and differ in where the RAM is:
 *
 *     booted    memory-backend-file, share=on: the file `memory` of the VM's folder is the RAM
 *     loaded    memory-backend-memfd, share=on, which libthaw-preload.so replaces by memory that a pager fills
 *     compared  memory-backend-file, share=off: QEMU's own way, a private mapping of the file `memory`. Not shared, but a state
 *               has no page of it, so the file's bytes are what it has
 *
 * The first two are "shared" to QEMU and have one name, so that a migration leaves the RAM out (x-ignore-shared) and carries the
 * devices' state only; see vmm/preload.c and decision 20.
 *
 * A VM that is loaded is given neither kernel nor initrd: what was loaded of them is in the RAM already, and with -no-reboot
 * nobody asks for them again. A sandbox needs no copy of them, and its QEMU does not read them into its own memory.
 */

#include "vmm/qemu_command.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"

#define PRELOAD_NAME "libthaw-preload.so"

const char *qemu_machine(const struct vmm_spec *spec)
{
    return spec->machine ? spec->machine : "pc";
}

bool qemu_machine_is_micro(const struct vmm_spec *spec)
{
    return strcmp(qemu_machine(spec), "microvm") == 0;
}

/* ---- words ----------------------------------------------------------------------------------------------------- */

PRINTF_LIKE(5, 0)
static void add_text(struct qemu_command *c, char **list, size_t *n, size_t max, const char *fmt,
                     va_list args)
{
    assert(*n + 1 < max);
    if (vasprintf(&list[*n], fmt, args) < 0) {
        list[*n] = NULL;
        c->out_of_memory = true;
        return;
    }
    (*n)++;
}

static void add(struct qemu_command *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void add_env(struct qemu_command *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void add(struct qemu_command *c, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    add_text(c, c->argv, &c->n_argv, QEMU_ARGS, fmt, args);
    va_end(args);
}

static void add_env(struct qemu_command *c, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    add_text(c, c->env, &c->n_env, QEMU_ENV, fmt, args);
    va_end(args);
}

void qemu_command_deinit(struct qemu_command *c)
{
    for (size_t i = 0; i < c->n_argv; i++)
        free(c->argv[i]);
    for (size_t i = 0; i < c->n_env; i++)
        free(c->env[i]);
    *c = (struct qemu_command){0};
}

/* ---- the machine ----------------------------------------------------------------------------------------------- */

static bool uses_kvm(const struct vmm_spec *spec)
{
    if (spec->accel)
        return strcmp(spec->accel, "kvm") == 0;
    return access("/dev/kvm", R_OK | W_OK) == 0;
}

static void add_machine(struct qemu_command *c, const struct vmm_spec *spec)
{
    bool kvm = uses_kvm(spec);

    add(c, "-accel");
    add(c, "%s", kvm ? "kvm" : "tcg,thread=multi");
    add(c, "-cpu"); /* with KVM, "max" cannot be saved */
    add(c, "%s", spec->cpu ? spec->cpu : kvm ? "host" : "max");
    add(c, "-smp");
    add(c, "%u", spec->n_vcpus);
    add(c, "-m");
    add(c, "%uM", spec->memory_mib);
    add(c, "-machine");
    add(c, "%s,memory-backend=%s,mem-merge=off,dump-guest-core=off", qemu_machine(spec), QEMU_RAM);
}

static void add_ram(struct qemu_command *c, const struct vmm_spec *spec, bool loads)
{
    add(c, "-object");
    if (loads && spec->memory_from_file)
        add(c, "memory-backend-file,id=%s,size=%uM,mem-path=%s,share=off", QEMU_RAM,
            spec->memory_mib, VMM_FILE_MEMORY);
    else if (loads)
        add(c, "memory-backend-memfd,id=%s,size=%uM,share=on", QEMU_RAM, spec->memory_mib);
    else
        add(c, "memory-backend-file,id=%s,size=%uM,mem-path=%s,share=on", QEMU_RAM,
            spec->memory_mib, VMM_FILE_MEMORY);
}

static void add_devices(struct qemu_command *c, const struct vmm_spec *spec)
{
    const char *bus = qemu_machine_is_micro(spec) ? "device" : "pci";

    add(c, "-device");
    add(c, "virtio-balloon-%s,id=%s,free-page-reporting=%s,deflate-on-oom=on", bus, QEMU_BALLOON,
        spec->free_page_reporting ? "on" : "off");
    if (!spec->has_rootfs)
        return;
    add(c, "-drive");
    add(c, "if=none,id=rootfs,format=raw,file=%s,read-only=%s", VMM_FILE_ROOTFS,
        spec->rootfs_read_only ? "on" : "off");
    add(c, "-device");
    add(c, "virtio-blk-%s,id=rootfs0,drive=rootfs", bus);
}

static void add_sockets(struct qemu_command *c)
{
    add(c, "-chardev");
    add(c, "socket,id=serial0,path=%s,server=on,wait=off,logfile=%s", VMM_FILE_SERIAL,
        VMM_FILE_CONSOLE);
    add(c, "-serial");
    add(c, "chardev:serial0");
    add(c, "-qmp");
    add(c, "unix:%s,server=on,wait=off", VMM_FILE_API);
}

static void add_kernel(struct qemu_command *c, const struct vmm_spec *spec)
{
    /* panic=-1: a guest that panics reboots at once, and with -no-reboot that is QEMU's end. */
    const char *root = spec->has_initrd || !spec->has_rootfs ? ""
                       : spec->rootfs_read_only              ? " root=/dev/vda ro"
                                                             : " root=/dev/vda rw";

    add(c, "-kernel");
    add(c, "%s", VMM_FILE_KERNEL);
    if (spec->has_initrd) {
        add(c, "-initrd");
        add(c, "%s", VMM_FILE_INITRD);
    }
    add(c, "-append");
    if (spec->cmdline)
        add(c, "%s", spec->cmdline);
    else
        add(c, "console=ttyS0 quiet panic=-1%s", root);
}

/* ---- the memory of a VM that is loaded -------------------------------------------------------------------------- */

/* find_preload() - Return: 0 or -ENOENT with a text */
static int find_preload(const struct vmm_spec *spec, char *out, size_t len)
{
    /* Beside the program, where it was built, where it is installed. */
    static const char *const places[] = {"", "../vmm/", "../lib/"};
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    self[n < 0 ? 0 : n] = '\0';
    slash = strrchr(self, '/');
    if (slash)
        slash[1] = '\0';
    for (unsigned i = 0; !spec->preload && i < ARRAY_LEN(places); i++) {
        if (snprintf(out, len, "%s%s%s", self, places[i], PRELOAD_NAME) < (int)len &&
            access(out, R_OK) == 0)
            return 0;
    }
    (void)snprintf(out, len, "%s", spec->preload ? spec->preload : THAW_LIBDIR "/" PRELOAD_NAME);
    if (access(out, R_OK) < 0)
        return err_origin_errno(-errno, "QEMU's memory cannot be served without %s", out);
    return 0;
}

/* add_preload() - what makes QEMU's memory that of a pager; see vmm/preload.c */
static int add_preload(struct qemu_command *c, const struct vmm_spec *spec)
{
    const char *before = getenv("LD_PRELOAD");
    char found[PATH_MAX];
    char *path;
    int r = find_preload(spec, found, sizeof(found));

    if (r < 0)
        return r;
    path = realpath(found, NULL); /* QEMU has another working directory */
    if (!path)
        return err_origin_errno(-errno, "cannot find %s", found);
    if (strpbrk(path, ": "))
        r = err_origin(-EINVAL, "%s: a library to preload cannot have ':' or a blank in its name",
                       path);
    add_env(c, "LD_PRELOAD=%s%s%s", path, before ? ":" : "", before ? before : "");
    add_env(c, "THAW_PRELOAD_SOCKET=%s", VMM_FILE_UFFD);
    add_env(c, "THAW_PRELOAD_SIZES=%uM", spec->memory_mib);
    add_env(c, "THAW_PRELOAD_SHARED=1");
    add_env(c, "THAW_PRELOAD_HUGE=%d", spec->huge_pages ? 1 : 0);
    free(path);
    return r;
}

int qemu_command_init(struct qemu_command *c, const struct vmm_spec *spec, const char *program,
                      bool loads)
{
    int r = 0;

    add(c, "%s", program);
    add(c, "-no-user-config");
    add(c, "-nodefaults");
    add(c, "-display");
    add(c, "none");
    add(c, "-no-reboot");
    add(c, "-S");
    add_machine(c, spec);
    add_ram(c, spec, loads);
    add_sockets(c);
    add_devices(c, spec);
    if (loads) {
        add(c, "-incoming");
        add(c, "defer");
        if (spec->memory_from_file)
            add_env(c, "THAW_PRELOAD_SOCKET");
        else
            r = add_preload(c, spec);
    } else {
        add_kernel(c, spec);
        add_env(c, "THAW_PRELOAD_SOCKET");
    }
    if (r == 0 && c->out_of_memory)
        r = err_origin(-ENOMEM, "no memory for QEMU's command line");
    return r;
}

/* ---- machines' names ------------------------------------------------------------------------------------------- */

/* line_copy() - (give) what stands between two texts of a line; NULL if it is not there */
static char *line_between(const char *line, size_t len, const char *before, char after)
{
    const char *at = memmem(line, len, before, strlen(before));
    const char *end;

    if (!at)
        return NULL;
    at += strlen(before);
    end = memchr(at, after, len - (size_t)(at - line));
    return end ? strndup(at, (size_t)(end - at)) : NULL;
}

int qemu_machine_versioned(const char *help, const char *machine, char **out)
{
    size_t len = strlen(machine);

    /* pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2) */
    for (const char *line = help; *line != '\0';) {
        size_t n = strcspn(line, "\n");

        if (strncmp(line, machine, len) == 0 && line[len] == ' ') {
            *out = line_between(line, n, "(alias of ", ')');
            return 0;
        }
        line += n;
        line += *line == '\n';
    }
    return err_origin(-EINVAL, "machine: this QEMU has no '%s'", machine);
}
