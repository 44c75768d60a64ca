/* SPDX-License-Identifier: Apache-2.0 */
/*
 * features.c - what a version of a VMM can do, and what becomes of a wish; see thaw/features.h
 *
 * The table below is the only place that says since when a VMM has what. A rule for three choices is applied to each row:
 * off is off; on needs a version that has it; no choice is on where the version has it, if the row says that nobody need be
 * asked.
 *
 * A version's text comes from a person, from a program's output or from a file name of a build ("v1.14.1_abcdef1"), so it is
 * taken apart strictly: what cannot be a version is refused here, not compared with something by accident.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <thaw/features.h>

#include "base/base.h"
#include "base/err.h"

#define NUMBER_DIGITS_MAX 6u
#define NEVER             ((struct thaw_version){UINT32_MAX, 0, 0})

static const char *const vmm_names[] = {
    [THAW_VMM_FIRECRACKER] = "Firecracker",
    [THAW_VMM_QEMU] = "QEMU",
};

/* struct feature - a row: since when each VMM has it */
struct feature {
    const char *name;
    size_t wanted_at; /* of the choice in struct thaw_features_wanted */
    size_t out_at;    /* of the outcome in struct thaw_features */
    bool unasked;     /* on without a choice, where it can be had */
    struct thaw_version since[ARRAY_LEN(vmm_names)];
};

static const struct feature features[] = {
    {
        .name = "free page reporting",
        .wanted_at = offsetof(struct thaw_features_wanted, free_page_reporting),
        .out_at = offsetof(struct thaw_features, free_page_reporting),
        .unasked = true,
        .since = {[THAW_VMM_FIRECRACKER] = {1, 14, 0}, [THAW_VMM_QEMU] = {5, 1, 0}},
    },
    {
        .name = "free page hinting",
        .wanted_at = offsetof(struct thaw_features_wanted, free_page_hinting),
        .out_at = offsetof(struct thaw_features, free_page_hinting),
        .unasked = false,
        .since = {[THAW_VMM_FIRECRACKER] = {1, 14, 0}, [THAW_VMM_QEMU] = NEVER},
    },
};

/* take_number() - decimal digits at *text, which moves on behind them */
static bool take_number(const char **text, unsigned *out)
{
    size_t n_digits = strspn(*text, "0123456789");
    unsigned value = 0;

    if (n_digits == 0 || n_digits > NUMBER_DIGITS_MAX)
        return false;
    for (size_t i = 0; i < n_digits; i++)
        value = value * 10 + (unsigned)((*text)[i] - '0');
    *text += n_digits;
    *out = value;
    return true;
}

/* is_suffix() - what may follow the numbers: nothing, or '_' or '-' and a word */
static bool is_suffix(const char *text)
{
    static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

    if (*text == '\0')
        return true;
    return (*text == '_' || *text == '-') && text[1] != '\0' &&
           text[1 + strspn(text + 1, word)] == '\0';
}

THAW_EXPORT int thaw_version_parse(struct thaw_version *out, const char *text)
{
    struct thaw_version v = {0};
    const char *at = text;

    if (*at == 'v')
        at++;
    if (!take_number(&at, &v.major) || *at++ != '.' || !take_number(&at, &v.minor))
        goto bad;
    if (*at == '.') {
        at++;
        if (!take_number(&at, &v.patch))
            goto bad;
    }
    if (!is_suffix(at))
        goto bad;
    *out = v;
    return 0;
bad:
    return err_origin(
        -EINVAL, "'%.64s' is no version: expected one such as 1.14.1 or v1.14.1_abcdef1", text);
}

THAW_EXPORT int thaw_version_compare(const struct thaw_version *a, const struct thaw_version *b)
{
    if (a->major != b->major)
        return a->major < b->major ? -1 : 1;
    if (a->minor != b->minor)
        return a->minor < b->minor ? -1 : 1;
    return (a->patch > b->patch) - (a->patch < b->patch);
}

/* choose() - the rule, for one row */
static int choose(const struct feature *f, enum thaw_vmm vmm, const struct thaw_version *version,
                  enum thaw_choice choice, int *out)
{
    const struct thaw_version *since = &f->since[vmm];
    bool has = thaw_version_compare(version, since) >= 0;

    if (choice == THAW_CHOICE_OFF || (choice == THAW_CHOICE_AUTO && !f->unasked)) {
        *out = 0;
        return 0;
    }
    if (choice == THAW_CHOICE_ON && !has && since->major == UINT32_MAX)
        return err_origin(-EOPNOTSUPP, "%s %u.%u.%u has no %s, and no other version of it has",
                          vmm_names[vmm], version->major, version->minor, version->patch, f->name);
    if (choice == THAW_CHOICE_ON && !has)
        return err_origin(-EOPNOTSUPP, "%s %u.%u.%u has no %s: expected %u.%u.%u or newer",
                          vmm_names[vmm], version->major, version->minor, version->patch, f->name,
                          since->major, since->minor, since->patch);
    *out = has;
    return 0;
}

THAW_EXPORT int thaw_features_of_version(struct thaw_features *out, enum thaw_vmm vmm,
                                         const char *version,
                                         const struct thaw_features_wanted *wanted)
{
    static const struct thaw_features_wanted nothing;
    struct thaw_features found = {0};
    int r;

    if ((unsigned)vmm >= ARRAY_LEN(vmm_names))
        return err_origin(-EINVAL, "VMM %u: expected one of enum thaw_vmm", (unsigned)vmm);
    if (!version && vmm != THAW_VMM_FIRECRACKER)
        return err_origin(-EINVAL, "the version of %s is missing", vmm_names[vmm]);
    r = thaw_version_parse(&found.version, version ? version : THAW_FIRECRACKER_VERSION);
    if (r < 0)
        return r;
    if (!wanted)
        wanted = &nothing;
    for (size_t i = 0; i < ARRAY_LEN(features); i++) {
        const struct feature *f = &features[i];
        enum thaw_choice choice = *(const enum thaw_choice *)((const char *)wanted + f->wanted_at);

        if ((unsigned)choice > THAW_CHOICE_ON)
            return err_origin(-EINVAL, "%s: choice %u: expected one of enum thaw_choice", f->name,
                              (unsigned)choice);
        r = choose(f, vmm, &found.version, choice, (int *)((char *)&found + f->out_at));
        if (r < 0)
            return r;
    }
    *out = found;
    return 0;
}
