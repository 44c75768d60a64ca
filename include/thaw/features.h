/* SPDX-License-Identifier: Apache-2.0 */
#ifndef THAW_FEATURES_H
#define THAW_FEATURES_H

#include <thaw/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * What a version of a VMM can do, and what becomes of a wish.
 *
 * Free page reporting and hinting are how a guest tells the host which of its pages it does not use. Whether they can be
 * had depends on the VMM's version; whether they are wanted is a choice of three. One function brings both together, for the
 * command line, for template.json and for programs.
 */

/** The version of Firecracker that is meant where none is named */
#define THAW_FIRECRACKER_VERSION "1.14.1"

/** enum thaw_vmm - which VMM a version is of */
enum thaw_vmm {
    THAW_VMM_FIRECRACKER,
    THAW_VMM_QEMU,
};

/** enum thaw_choice - what is asked for. A zeroed one asks for nothing in particular */
enum thaw_choice {
    THAW_CHOICE_AUTO, /* on where the version has it, and it is sound to have it without being asked */
    THAW_CHOICE_OFF,
    THAW_CHOICE_ON, /* refused where the version does not have it */
};

/** struct thaw_version - three numbers; what follows them in a version's text is not kept */
struct thaw_version {
    unsigned major;
    unsigned minor;
    unsigned patch;
};

/**
 * thaw_version_parse() - "1.14.1", "v1.14.1", "v1.14.1_abcdef1", "1.17.0-dev", "v1.14-0.2.0", "7.2.22"
 *
 * Two numbers at least, of up to 6 digits. What follows them begins with '_' or '-', and has letters, digits, '.', '_', '-'.
 * "v1.14-0.2.0" is a 1.14.0.
 *
 * Return: 0, or -EINVAL with a text.
 */
int thaw_version_parse(struct thaw_version *out, const char *text);

/** thaw_version_compare() - Return: < 0, 0 or > 0, as @a is older than @b, the same or newer */
int thaw_version_compare(const struct thaw_version *a, const struct thaw_version *b);

/** struct thaw_features_wanted - the choices. A zeroed struct leaves all to the version */
struct thaw_features_wanted {
    enum thaw_choice free_page_reporting;
    enum thaw_choice free_page_hinting;
};

/**
 * struct thaw_features - what a VM will have
 * @version:             as it was understood
 * @free_page_reporting: the guest tells by itself, some seconds after it has freed memory
 * @free_page_hinting:   the guest is asked once to tell all of it
 */
struct thaw_features {
    struct thaw_version version;
    int free_page_reporting;
    int free_page_hinting;
};

/**
 * thaw_features_of_version() - what becomes of the choices with this version of this VMM
 * @version: NULL: THAW_FIRECRACKER_VERSION. With QEMU it must be given
 * @wanted:  (borrow) NULL: no choice was made
 * @out:     set on success
 *
 * Reporting: Firecracker from 1.14.0 on, QEMU from 5.1 on; without a choice it is on where it can be had. Hinting: Firecracker
 * from 1.14.0 on, where it is a developer preview, and a guest may lose a page that it takes back while it is hinted: so without
 * a choice it is off. QEMU uses hinting for migrations only, which is not what is meant here: it does not have it.
 *
 * Return: 0; -EINVAL if @version is none; -EOPNOTSUPP if something is asked for that this version does not have: the text
 * names the version and the first one that has it.
 */
int thaw_features_of_version(struct thaw_features *out, enum thaw_vmm vmm, const char *version,
                             const struct thaw_features_wanted *wanted);

#ifdef __cplusplus
}
#endif
#endif
