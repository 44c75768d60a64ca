/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/fc_json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "vmm/fc_path.h"

/*
 * Both ways walk over the model's table. Models contain models, three deep at most and never themselves, so the functions
 * below call each other for as long as the table is deep.
 */

/* Members are read and written as what fc_model.h has declared them to be. */
#define MEMBER(type, s, at)       (*(type *)((char *)(s) + (at)))
#define CONST_MEMBER(type, s, at) (*(type const *)((const char *)(s) + (at)))

/* ---- writing -------------------------------------------------------------------------------------------------- */

bool fc_field_is_there(const struct fc_field *f, const void *s)
{
    if (f->has_at != FC_NOWHERE)
        return CONST_MEMBER(bool, s, f->has_at);
    switch (f->kind) {
    case FC_KIND_STR:
    case FC_KIND_JSON:
        return CONST_MEMBER(void *, s, f->at) != NULL;
    case FC_KIND_STRS:
    case FC_KIND_LIST:
        return f->required || CONST_MEMBER(void *, s, f->at) != NULL;
    default:
        return true;
    }
}

static int encode_strings(const struct fc_field *f, const void *s, json_t **out)
{
    _cleanup_(json_decrefp) json_t *list = json_array();
    const char *const *texts = CONST_MEMBER(const char *const *, s, f->at);
    size_t n = CONST_MEMBER(size_t, s, f->n_at);

    for (size_t i = 0; i < n; i++) {
        if (json_array_append_new(list, json_string(texts[i])) < 0)
            return err_origin(-EINVAL, "%s[%zu]: expected a text in UTF-8", f->name, i);
    }
    *out = TAKE(list);
    return 0;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the table */
static int encode_list(const struct fc_field *f, const void *s, json_t **out)
{
    _cleanup_(json_decrefp) json_t *list = json_array();
    const char *items = CONST_MEMBER(const char *, s, f->at);
    size_t n = CONST_MEMBER(size_t, s, f->n_at);

    for (size_t i = 0; i < n; i++) {
        json_t *item = NULL;
        int r = fc_encode(f->model, items + i * f->model->bytes, &item);

        if (r < 0)
            return r;
        if (json_array_append_new(list, item) < 0)
            return err_origin_errno(-ENOMEM, "%s", f->name);
    }
    *out = TAKE(list);
    return 0;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the table */
static int encode_field(const struct fc_field *f, const void *s, json_t **out)
{
    uint64_t number;
    unsigned choice;

    switch (f->kind) {
    case FC_KIND_BOOL:
        *out = json_boolean(CONST_MEMBER(bool, s, f->at));
        return 0;
    case FC_KIND_UINT:
        number = CONST_MEMBER(uint64_t, s, f->at);
        if (number > FC_UINT_MAX)
            return err_origin(-EINVAL, "%s: expected at most %" PRIu64 ", got %" PRIu64, f->name,
                              f->max, number);
        *out = json_integer((json_int_t)number);
        return 0;
    case FC_KIND_STR:
        *out = json_string(CONST_MEMBER(const char *, s, f->at));
        return *out ? 0 : err_origin(-EINVAL, "%s: expected a text in UTF-8", f->name);
    case FC_KIND_STRS:
        return encode_strings(f, s, out);
    case FC_KIND_ENUM:
        choice = CONST_MEMBER(unsigned, s, f->at);
        if (choice >= f->choices->n_values)
            return err_origin(-EINVAL, "%s: no value has the number %u", f->name, choice);
        *out = json_string(f->choices->values[choice].text);
        return 0;
    case FC_KIND_OBJ:
        return fc_encode(f->model, (const char *)s + f->at, out);
    case FC_KIND_LIST:
        return encode_list(f, s, out);
    case FC_KIND_JSON:
        *out = json_incref(CONST_MEMBER(json_t *, s, f->at));
        return 0;
    }
    assert(false);
    return -EINVAL;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the table */
int fc_encode(const struct fc_model *model, const void *in, json_t **out)
{
    _cleanup_(json_decrefp) json_t *object = json_object();

    for (size_t i = 0; i < model->n_fields; i++) {
        const struct fc_field *f = &model->fields[i];
        json_t *value = NULL;
        int r;

        if (!fc_field_is_there(f, in))
            continue;
        r = encode_field(f, in, &value);
        if (r < 0)
            return r;
        if (f->name[0] == '\0') { /* the model is this value */
            *out = value;
            return 0;
        }
        if (json_object_set_new(object, f->name, value) < 0)
            return err_origin_errno(-ENOMEM, "%s", f->name);
    }
    *out = TAKE(object);
    return *out ? 0 : err_origin_errno(-ENOMEM, "%s", model->name);
}

/* ---- freeing -------------------------------------------------------------------------------------------------- */

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the table */
static void clear_field(const struct fc_field *f, void *s)
{
    size_t n = f->n_at != FC_NOWHERE ? MEMBER(size_t, s, f->n_at) : 0;
    char *items = NULL;

    switch (f->kind) {
    case FC_KIND_STR:
        free(MEMBER(char *, s, f->at));
        break;
    case FC_KIND_STRS:
        for (size_t i = 0; i < n; i++)
            free(MEMBER(char **, s, f->at)[i]);
        free(MEMBER(char **, s, f->at));
        break;
    case FC_KIND_OBJ:
        fc_model_clear(f->model, (char *)s + f->at);
        break;
    case FC_KIND_LIST:
        items = MEMBER(char *, s, f->at);
        for (size_t i = 0; i < n; i++)
            fc_model_clear(f->model, items + i * f->model->bytes);
        free(items);
        break;
    case FC_KIND_JSON:
        json_decref(MEMBER(json_t *, s, f->at));
        break;
    default:
        break;
    }
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the table */
void fc_model_clear(const struct fc_model *model, void *s)
{
    for (size_t i = 0; i < model->n_fields; i++)
        clear_field(&model->fields[i], s);
    memset(s, 0, model->bytes);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

/* struct decode - where in an answer we are */
struct decode {
    const char *what;
    struct fc_path path;
};

static int decode_object(struct decode *d, const struct fc_model *model, json_t *in, void *out);

static int unexpected(const struct decode *d, const char *expected)
{
    return err_origin(-EPROTO, "%s%s%s: expected %s", d->what, d->path.text[0] != '\0' ? ": " : "",
                      d->path.text, expected);
}

static int decode_string(struct decode *d, json_t *in, char **out)
{
    if (!json_is_string(in))
        return unexpected(d, "a text");
    *out = strdup(json_string_value(in));
    return *out ? 0 : err_origin_errno(-ENOMEM, "%s", d->what);
}

static int decode_strings(struct decode *d, const struct fc_field *f, json_t *in, void *s)
{
    size_t n = json_array_size(in);
    char **texts;

    if (!json_is_array(in))
        return unexpected(d, "a list");
    texts = calloc(n + 1, sizeof(*texts));
    if (!texts)
        return err_origin_errno(-ENOMEM, "%s", d->what);
    MEMBER(char **, s, f->at) = texts; /* what is done so far is freed with the struct */
    for (size_t i = 0; i < n; i++) {
        size_t before = fc_path_index(&d->path, i);
        int r = decode_string(d, json_array_get(in, i), &texts[i]);

        if (r < 0)
            return r;
        fc_path_back(&d->path, before);
        MEMBER(size_t, s, f->n_at) = i + 1;
    }
    return 0;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the table */
static int decode_list(struct decode *d, const struct fc_field *f, json_t *in, void *s)
{
    size_t n = json_array_size(in);
    char *items;

    if (!json_is_array(in))
        return unexpected(d, "a list");
    items = calloc(n + 1, f->model->bytes);
    if (!items)
        return err_origin_errno(-ENOMEM, "%s", d->what);
    MEMBER(char *, s, f->at) = items;
    MEMBER(size_t, s, f->n_at) = n; /* zeroed ones are freed as well */
    for (size_t i = 0; i < n; i++) {
        size_t before = fc_path_index(&d->path, i);
        int r = decode_object(d, f->model, json_array_get(in, i), items + i * f->model->bytes);

        if (r < 0)
            return r;
        fc_path_back(&d->path, before);
    }
    return 0;
}

static int decode_enum(struct decode *d, const struct fc_field *f, json_t *in, void *s)
{
    const char *text = json_string_value(in);
    int choice;

    if (!text)
        return unexpected(d, "a text");
    choice = fc_value_find(f->choices, text);
    if (choice < 0 && f->required)
        return unexpected(d, "a value that is known");
    if (choice >= 0)
        MEMBER(unsigned, s, f->at) = (unsigned)choice;
    else
        MEMBER(bool, s, f->has_at) = false;
    return 0;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the table */
static int decode_value(struct decode *d, const struct fc_field *f, json_t *in, void *s)
{
    if (f->has_at != FC_NOWHERE)
        MEMBER(bool, s, f->has_at) = true;
    switch (f->kind) {
    case FC_KIND_BOOL:
        if (!json_is_boolean(in))
            return unexpected(d, "true or false");
        MEMBER(bool, s, f->at) = json_is_true(in);
        return 0;
    case FC_KIND_UINT:
        if (!json_is_integer(in) || json_integer_value(in) < 0)
            return unexpected(d, "a whole number that is not negative");
        MEMBER(uint64_t, s, f->at) = (uint64_t)json_integer_value(in);
        return 0;
    case FC_KIND_STR:
        return decode_string(d, in, &MEMBER(char *, s, f->at));
    case FC_KIND_STRS:
        return decode_strings(d, f, in, s);
    case FC_KIND_ENUM:
        return decode_enum(d, f, in, s);
    case FC_KIND_OBJ:
        return decode_object(d, f->model, in, (char *)s + f->at);
    case FC_KIND_LIST:
        return decode_list(d, f, in, s);
    case FC_KIND_JSON:
        if (f->format != FC_FORMAT_ANY && !json_is_object(in))
            return unexpected(d, "an object");
        MEMBER(json_t *, s, f->at) = json_incref(in);
        return 0;
    }
    assert(false);
    return -EPROTO;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the table */
static int decode_object(struct decode *d, const struct fc_model *model, json_t *in, void *out)
{
    if (!json_is_object(in))
        return unexpected(d, "an object");
    for (size_t i = 0; i < model->n_fields; i++) {
        const struct fc_field *f = &model->fields[i];
        json_t *value = f->name[0] == '\0' ? in : json_object_get(in, f->name);
        size_t before = fc_path_field(&d->path, f->name);
        int r = 0;

        if (value && !json_is_null(value))
            r = decode_value(d, f, value, out);
        else if (f->required)
            r = unexpected(d, "this field");
        if (r < 0)
            return r;
        fc_path_back(&d->path, before);
    }
    return 0;
}

int fc_decode(const struct fc_model *model, json_t *in, const char *what, void *out)
{
    struct decode d = {.what = what};
    int r;

    memset(out, 0, model->bytes);
    r = decode_object(&d, model, in, out);
    if (r < 0)
        fc_model_clear(model, out);
    return r;
}
