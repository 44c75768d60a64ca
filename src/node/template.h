/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_TEMPLATE_H
#define NODE_TEMPLATE_H

/*
 * template.h - a VM that was booted once and is resumed many times: what is on disk of it
 *
 *     STORE/templates/NAME/template.json   all that is known of it (struct template)
 *                          vmstate         the devices' state
 *                          kernel initrd   what it was booted with
 *                          rootfs          the disk, as it was when the snapshot was taken
 *     STORE/names/NAME                     leads to the image of its memory
 *
 * Whoever uses a template's files holds its folder shared meanwhile; whoever removes it, alone (folder.h). What was made of a
 * template has its own files or links to them, and an image whose parent is the template's: so the template is needed
 * only as long as something is made of it, and its image as long as the store says so.
 */

#include <thaw/features.h>

#include "node/folder.h"
#include "node/host_facts.h"
#include "vmm/driver.h"

#define TEMPLATE_MEMORY_MIB_MAX 1048576u
#define TEMPLATE_VCPUS_MAX      32u
#define TEMPLATE_PORT_MAX       4294967294u /* vsock(7): the last one means any */
#define TEMPLATE_LOCK_MS        5000u

/* Words of records and options, in the order of enum thaw_vmm and enum thaw_choice */
extern const char *const template_vmm_words[];
extern const char *const template_choice_words[];

/** struct template_feature - what was asked for, and what the VM has */
struct template_feature {
    unsigned asked; /* enum thaw_choice */
    bool on;
};

/** struct template - one that is there; texts are owned, those that may be NULL say so */
struct template
{
    char *name;   /* of its folder; not in the record */
    unsigned vmm; /* enum thaw_vmm */
    char *vmm_version;
    char *snapshot_format;
    char *program; /* NULL: the driver's own name for it */
    char *stamp;   /* vmm_program_stamp(), of the program that has the version; NULL: it has none */
    char *machine; /* NULL: the VMM has no choice of it */
    char *accel;   /* the same */
    char *cpu;     /* NULL: the driver's own choice */
    char *cmdline; /* NULL: the driver's own */
    unsigned memory_mib;
    unsigned n_vcpus;
    bool huge_pages;
    bool has_initrd;
    bool has_rootfs;
    bool rootfs_read_only;
    struct template_feature free_page_reporting;
    struct template_feature free_page_hinting;
    char *ready;     /* NULL: it was ready when its shell answered */
    char *start_cmd; /* NULL: none */
    bool has_shell;  /* at the serial console */
    bool vsock;
    unsigned ready_vsock; /* the port at which somebody listens when it is ready; 0: none */
    char *devices;        /* words, with a blank between them */
    char *image;          /* its id, in digits */
    uint64_t image_bytes;
    bool has_working_set;
    uint64_t built_s; /* since 1970 */
    struct host_facts host;
};

/** template_form - of its record */
extern const struct record_form template_form;

/** template_folder() - STORE/templates/NAME. Return: (give) NULL: no memory */
char *template_folder(const char *store, const char *name);

/** template_load() - @out: zeroed; (give) template_deinit() it. Return: 0; -ENOENT if there is none; others; with a text */
int template_load(struct template *out, const char *store, const char *name);

/** template_save() - its record, into a folder that is being made. Return: 0 or a negative errno with a text */
int template_save(const struct template *t, const char *folder);

void template_deinit(struct template *t);

/** template_list() - names, sorted; of whole ones. @out: (give) folder_list_deinit() it */
int template_list(const char *store, struct folder_list *out);

/** template_spec() - what a VM of it is made of; without a jail. The texts are borrowed of @t */
struct vmm_spec template_spec(const struct template *t);

/**
 * template_remove() - and its image, if that is still the one that the name leads to
 *
 * Return: 0; -ENOENT; -EBUSY: something is being made of it, or a sandbox of it is there; others; with a text
 */
int template_remove(const char *store, const char *name);

/**
 * template_users() - sandboxes that are of this template
 * @out: (give) folder_list_deinit() it
 */
int template_users(const char *store, const char *name, struct folder_list *out);

/**
 * template_compare_vmm() - may this VMM load what another one has saved? Adds a sentence for each reason against it
 * @version, @format: as vmm_program_version() and vmm_snapshot_format() say them
 */
void template_compare_vmm(const struct template *t, const char *version, const char *format,
                          struct reasons *why_not);

/**
 * template_check_here() - can it be resumed on this host, now? Adds a sentence for each reason against it
 *
 * Looks at the host, the VMM's version and format, huge pages, and whether the files and the image are there.
 *
 * Return: 0, whatever was found, or a negative errno with a text
 */
int template_check_here(const struct template *t, const char *store, struct reasons *why_not);

/** template_check_host() - the same without the files: of what was made of a template and has its own */
int template_check_host(const struct template *t, struct reasons *why_not);

DEFINE_CLEANUP(struct template *, template_deinit);

#endif
