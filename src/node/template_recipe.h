/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_TEMPLATE_RECIPE_H
#define NODE_TEMPLATE_RECIPE_H

/*
 * template_recipe.h - what a template is to be made of, as a user says it: in a file, on the command line, or both
 *
 * The file is one JSON object (thaw-template(5)). Its fields are the options of `thaw template build` with '_' in place of '-',
 * so both go through one table, and what is set later wins. Everything is checked by one function, whoever said it.
 */

#include <thaw/features.h>

#include "node/record.h"
#include "vmm/driver.h"

#define RECIPE_MEMORY_MIB 256u
#define RECIPE_TIMEOUT_S  120u
#define RECIPE_RECORD_S   5u
#define RECIPE_START_CMD_MAX \
    700u /* a line that is typed at a terminal has an end, and some shells keep no more than 1024 */
#define RECIPE_READY_MAX 256u

/** struct template_recipe - texts are owned, NULL: not given */
struct template_recipe {
    unsigned vmm; /* 0: not given; else enum thaw_vmm + 1 */
    char *kernel;
    char *rootfs;
    bool rootfs_read_only;
    char *initrd;
    unsigned memory_mib;
    unsigned n_vcpus;
    bool huge_pages;
    char *
        ready; /* what the guest writes to its console when it is; NULL: it is when a shell answers there */
    unsigned ready_vsock;         /* a vsock port at which somebody listens when it is; 0: none */
    bool vsock;                   /* it has one, even if nobody is waited for there */
    char *start_cmd;              /* typed at the console then, and waited for */
    bool no_shell;                /* nothing is typed at the console */
    unsigned free_page_reporting; /* enum thaw_choice */
    unsigned free_page_hinting;
    char *firecracker_version; /* what is meant; NULL: what the program says */
    char *machine;
    char *accel;
    char *cpu;
    char *cmdline;
    char *program;
    unsigned timeout_s; /* for each thing that the guest is waited for */
    unsigned record_s;  /* how long the working set is recorded, of a guest without a shell */
};

/** template_recipe_init() - with what is not said. @r: (give) template_recipe_deinit() it */
void template_recipe_init(struct template_recipe *r);

void template_recipe_deinit(struct template_recipe *r);

/**
 * template_recipe_read() - take what a file says; its names of files are relative to its own folder
 * @r: initialized
 *
 * Return: 0 or a negative errno with a text that has the line and column, or the field
 */
int template_recipe_read(struct template_recipe *r, const char *path);

/**
 * template_recipe_set() - take one field
 * @option: its name as an option, without the dashes in front: "free-page-reporting"
 * @text:   its value; of a flag "true" or "false"
 *
 * Return: 0; -ENOENT if there is no such field (no text); -EINVAL with a text
 */
int template_recipe_set(struct template_recipe *r, const char *option, const char *text);

/** template_recipe_check() - can a template be made of this? Looks at no file. Return: 0 or -EINVAL with a text */
int template_recipe_check(const struct template_recipe *r);

/** template_recipe_vmm() - of a recipe that was checked */
enum thaw_vmm template_recipe_vmm(const struct template_recipe *r);

/**
 * template_recipe_features() - what becomes of the choices
 * @version: what the program says; NULL: nobody was asked. The recipe's own counts before it
 *
 * Return: 0; -EOPNOTSUPP if something is wanted that this version does not have; -EINVAL: another version than the one that is
 * meant, or none at all; with a text
 */
int template_recipe_features(const struct template_recipe *r, const char *version,
                             struct thaw_features *out);

DEFINE_CLEANUP(struct template_recipe *, template_recipe_deinit);

#endif
