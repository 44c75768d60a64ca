/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/err.h"
#include "pager/wakeup.h"

#define HANDSHAKE_TIMEOUT_MS 30000

int options_check(const struct thaw_pager_options *o)
{
    if (!o->socket_path == !o->adopt)
        return err_origin(-EINVAL, "expected a socket path or a VMM to take over, one of them");
    if ((o->memory_path != NULL) + (o->source != NULL) + (o->image != NULL) > 1)
        return err_origin(-EINVAL,
                          "expected a memory file, an image or a page source, one of them");
    if (!o->memory_path && !o->source && !o->image && !o->adopt)
        return err_origin(-EINVAL, "expected a memory file, an image or a page source");
    if (o->image && !o->store)
        return err_origin(-EINVAL, "expected the store of image %s", o->image);
    if (o->page_bytes != 0 && o->page_bytes != 4 * KIB && o->page_bytes != 2 * MIB)
        return err_origin(-EINVAL, "page size %ju, expected 4096 or 2097152",
                          (uintmax_t)o->page_bytes);
    if (o->fault_around_bytes != 0 &&
        (!is_power_of_two(o->fault_around_bytes) || o->fault_around_bytes < 4 * KIB ||
         o->fault_around_bytes > 2 * MIB))
        return err_origin(
            -EINVAL, "fault-around of %ju bytes, expected 0 or a power of two from 4096 to 2097152",
            (uintmax_t)o->fault_around_bytes);
    if (o->track != THAW_TRACK_NONE && o->track != THAW_TRACK_WP)
        return err_origin(-EINVAL, "no such way of write tracking: %d", (int)o->track);
    if (o->confine != THAW_CONFINE_OFF && o->confine != THAW_CONFINE_ON)
        return err_origin(-EINVAL, "no such way of confinement: %d", (int)o->confine);
    if (o->leave_when_full && o->track != THAW_TRACK_NONE)
        return err_origin(-EINVAL, "a pager that tracks writes cannot leave when all is installed");
    if (o->before_resume_bytes != 0 && !o->prefetch_path && !o->image)
        return err_origin(-EINVAL, "expected a working set to install before the VM goes on");
    if (o->record_ms != 0 && !o->record_path)
        return err_origin(-EINVAL, "expected a file to record the working set in");
    if (o->record_missed && !o->record_path)
        return err_origin(-EINVAL, "expected a file to record in what was missed");
    return wakeup_check(o);
}

/* all strings of the options */
static const size_t strings[] = {
    offsetof(struct thaw_pager_options, socket_path),
    offsetof(struct thaw_pager_options, adopt),
    offsetof(struct thaw_pager_options, memory_path),
    offsetof(struct thaw_pager_options, image),
    offsetof(struct thaw_pager_options, store),
    offsetof(struct thaw_pager_options, image_filler),
    offsetof(struct thaw_pager_options, state_dir),
    offsetof(struct thaw_pager_options, write_dir),
    offsetof(struct thaw_pager_options, prefetch_path),
    offsetof(struct thaw_pager_options, record_path),
    offsetof(struct thaw_pager_options, cpus),
};
#define N_STRINGS ARRAY_LEN(strings)

static const char **string_at(struct thaw_pager_options *o, size_t i)
{
    return (const char **)(void *)((char *)o + strings[i]);
}

/* copy_string() - *string becomes a copy that we own, or NULL. Return: false if there was no memory */
static bool copy_string(const char **string)
{
    bool wanted = *string != NULL;

    if (wanted)
        *string = strdup(*string);
    return !wanted || *string;
}

static bool copy_uids(struct thaw_pager_options *o)
{
    size_t bytes = o->n_allow_uids * sizeof(*o->allow_uids);
    uid_t *uids = bytes > 0 ? malloc(bytes) : NULL;

    if (uids)
        memcpy(uids, o->allow_uids, bytes);
    o->allow_uids = uids;
    return uids || bytes == 0;
}

int options_copy(struct thaw_pager_options *out, const struct thaw_pager_options *o)
{
    bool copied = true;

    *out = *o;
    if (out->handshake_timeout_ms == 0)
        out->handshake_timeout_ms = HANDSHAKE_TIMEOUT_MS;
    /* All of them in any case: what is not a copy must not be freed later. */
    for (size_t i = 0; i < N_STRINGS; i++)
        copied &= copy_string(string_at(out, i));
    copied &= copy_uids(out);
    return copied ? 0 : err_origin_errno(-ENOMEM, "cannot set up a pager");
}

void options_deinit(struct thaw_pager_options *o)
{
    for (size_t i = 0; i < N_STRINGS; i++)
        free((void *)*string_at(o, i));
    free((void *)o->allow_uids);
}
