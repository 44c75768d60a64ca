/* SPDX-License-Identifier: Apache-2.0 */
#include "node/sandbox_record.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/procfs.h"
#include "image/store.h"
#include "node/tree.h"

#define BOOT_ID       "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_BYTES 64

/* ---- states --------------------------------------------------------------------------------------------------- */

static const char *const state_names[] = {
#define SANDBOX_STATE(state, name, meaning) [SANDBOX_##state] = (name),
#include "node/sandbox_states.def"
    NULL,
};

static const struct edge {
    enum sandbox_state from;
    enum sandbox_state to;
} edges[] = {
#define SANDBOX_EDGE(from, to, when) {SANDBOX_##from, SANDBOX_##to},
#include "node/sandbox_states.def"
};

const char *sandbox_state_name(enum sandbox_state state)
{
    assert(state < N_SANDBOX_STATES);
    return state_names[state];
}

bool sandbox_state_is_busy(enum sandbox_state state)
{
    return state == SANDBOX_STARTING || state == SANDBOX_PAUSING || state == SANDBOX_RESUMING;
}

bool sandbox_record_may_step(enum sandbox_state from, enum sandbox_state to)
{
    for (size_t i = 0; i < ARRAY_LEN(edges); i++) {
        if (edges[i].from == from && edges[i].to == to)
            return true;
    }
    return false;
}

void sandbox_record_step(struct sandbox_record *record, enum sandbox_state to)
{
    assert(sandbox_record_may_step(record->state, to));
    record->state = to;
    record->changed_ms = clock_wall_ns() / NS_PER_MS;
    if (to != SANDBOX_DEAD) {
        free(record->end);
        record->end = NULL;
    }
}

/* ---- the file ------------------------------------------------------------------------------------------------- */

#define FIELD(member) .name = #member, .offset = offsetof(struct sandbox_record, member)

static const struct record_field fields[] = {
    {FIELD(name), .type = RECORD_TEXT, .max = SANDBOX_NAME_MAX},
    {.name = "template",
     .offset = offsetof(struct sandbox_record, template_name),
     .type = RECORD_TEXT,
     .max = STORE_NAME_MAX},
    {FIELD(forked_from), .type = RECORD_TEXT, .max = SANDBOX_NAME_MAX, .optional = true},
    {FIELD(state), .type = RECORD_WORD, .words = state_names},
    {FIELD(generation), .type = RECORD_NUMBER, .max = UINT32_MAX},
    {FIELD(image), .type = RECORD_TEXT, .max = IMAGE_ID_TEXT - 1},
    {FIELD(base), .type = RECORD_TEXT, .max = IMAGE_ID_TEXT - 1},
    {FIELD(created_ms), .type = RECORD_LONG, .max = INT64_MAX},
    {FIELD(changed_ms), .type = RECORD_LONG, .max = INT64_MAX},
    {FIELD(boot_id), .type = RECORD_TEXT, .max = BOOT_ID_BYTES},
    {FIELD(state_dir), .type = RECORD_TEXT, .max = PATH_MAX, .optional = true},
    {FIELD(jail), .type = RECORD_PART, .fields = sandbox_jail_fields, .optional = true},
    {FIELD(end), .type = RECORD_TEXT, .optional = true},
    {.name = NULL},
};

static const struct record_form form = {.kind = "sandbox", .version = 1, .fields = fields};

int sandbox_name_check(const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");

    if (len == 0 || len > SANDBOX_NAME_MAX || name[len] != '\0' || !isalnum((unsigned char)name[0]))
        return err_origin(-EINVAL,
                          "%.80s cannot be the name of a sandbox: expected 1 to %u letters, "
                          "digits, '-', '_', beginning with a letter or digit",
                          name, SANDBOX_NAME_MAX);
    return 0;
}

/* check() - what the table cannot say */
static int check(const struct sandbox_record *r, const char *path, const char *name)
{
    if (strcmp(r->name, name) != 0)
        return err_origin(-EINVAL, "%s: name is %s, expected %s, as its folder", path, r->name,
                          name);
    if (!image_id_is_text(r->image) || !image_id_is_text(r->base))
        return err_origin(-EINVAL, "%s: %s is %s, expected the id of an image", path,
                          image_id_is_text(r->image) ? "base" : "image",
                          image_id_is_text(r->image) ? r->base : r->image);
    if (r->state_dir && r->state_dir[0] != '/')
        return err_origin(-EINVAL, "%s: state_dir is %s, expected an absolute path", path,
                          r->state_dir);
    return 0;
}

int sandbox_record_read(struct sandbox_record *out, const char *folder, const char *name)
{
    char path[PATH_MAX];
    int r = tree_path(path, sizeof(path), folder, SANDBOX_RECORD);

    *out = (struct sandbox_record){0};
    if (r == 0)
        r = record_read(&form, path, out);
    if (r == 0)
        r = check(out, path, name);
    if (r < 0)
        sandbox_record_deinit(out);
    return r;
}

static int read_boot_id(char buf[BOOT_ID_BYTES])
{
    int r = procfs_read(BOOT_ID, buf, BOOT_ID_BYTES);

    return r < 0 ? err_origin_errno(r, "cannot read %s", BOOT_ID) : 0;
}

int sandbox_record_write(struct sandbox_record *record, const char *folder)
{
    char boot_id[BOOT_ID_BYTES];
    char path[PATH_MAX];
    int r = read_boot_id(boot_id);

    if (r == 0)
        r = sandbox_record_set_text(&record->boot_id, boot_id);
    if (r == 0)
        r = tree_path(path, sizeof(path), folder, SANDBOX_RECORD);
    return r == 0 ? record_write(&form, path, record) : r;
}

int sandbox_record_set_text(char **member, const char *text)
{
    char *copy = strdup(text);

    if (!copy)
        return err_origin(-ENOMEM, "no memory for the record of a sandbox");
    free(*member);
    *member = copy;
    return 0;
}

int sandbox_record_is_of_this_boot(const struct sandbox_record *record, bool *out)
{
    char boot_id[BOOT_ID_BYTES];
    int r = read_boot_id(boot_id);

    if (r == 0)
        *out = strcmp(boot_id, record->boot_id) == 0;
    return r;
}

json_t *sandbox_record_json(const struct sandbox_record *record)
{
    return record_json(&form, record);
}

void sandbox_record_deinit(struct sandbox_record *record)
{
    record_deinit(&form, record);
}
