/* SPDX-License-Identifier: Apache-2.0 */
#include "fc_samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *sample_text(enum fc_format format)
{
    switch (format) {
    case FC_FORMAT_ID:
        return SAMPLE_ID;
    case FC_FORMAT_MAC:
        return "06:00:c0:a8:00:02";
    case FC_FORMAT_IPV4:
        return "169.254.170.2";
    case FC_FORMAT_NUMBER32:
        return "0x8000001f";
    case FC_FORMAT_NUMBER64:
        return "0x603000000013df1a";
    case FC_FORMAT_BITS32:
    case FC_FORMAT_BITS64:
    case FC_FORMAT_BITS128:
        return "0b1x_00";
    case FC_FORMAT_CAPABILITY:
        return "!121";
    default:
        return "a text";
    }
}

static json_t *sample_json(enum fc_format format)
{
    return format == FC_FORMAT_MAP ? json_pack("{s:s}", "team", "blue")
                                   : json_pack("{s:{s:[i, n]}}", "anything", "at all", 7);
}

json_t *fc_sample_value(const struct fc_field *f)
{
    switch (f->kind) {
    case FC_KIND_BOOL:
        return json_true();
    case FC_KIND_UINT:
        return json_integer((json_int_t)f->min);
    case FC_KIND_STR:
        return json_string(sample_text(f->format));
    case FC_KIND_STRS:
        return json_pack("[s]", sample_text(f->format));
    case FC_KIND_ENUM:
        return json_string(f->choices->values[0].text);
    case FC_KIND_OBJ:
        return fc_sample(f->model, true);
    case FC_KIND_LIST:
        return json_pack("[o]", fc_sample(f->model, true));
    case FC_KIND_JSON:
        return sample_json(f->format);
    }
    abort();
}

/* needs() - is there a rule that leaves a choice, of which this field is the first? */
static bool needs(const struct fc_model *model, const struct fc_field *f)
{
    for (size_t i = 0; i < model->n_rules; i++) {
        if (model->rules[i].kind == FC_RULE_ONE_OF && strcmp(model->rules[i].a, f->name) == 0)
            return true;
    }
    return model->n_rules > 0 && model->rules[0].kind == FC_RULE_NOT_EMPTY && f == model->fields;
}

json_t *fc_sample(const struct fc_model *model, bool full)
{
    json_t *object = json_object();

    for (size_t i = 0; i < model->n_fields; i++) {
        const struct fc_field *f = &model->fields[i];

        if (!full && !f->required && !needs(model, f))
            continue;
        if (f->name[0] == '\0') {
            json_decref(object);
            return fc_sample_value(f);
        }
        (void)json_object_set_new(object, f->name, fc_sample_value(f));
    }
    for (size_t i = 0; i < model->n_rules; i++) {
        if (model->rules[i].kind == FC_RULE_ONE_OF)
            (void)json_object_del(object, model->rules[i].b);
    }
    return object;
}

/* ---- at random ------------------------------------------------------------------------------------------------ */

static json_int_t random_uint(const struct fc_field *f, struct rng *rng)
{
    uint64_t span = f->max - f->min;
    uint64_t n = rng_next(rng);

    if (rng_below(rng, 4) == 0)
        return (json_int_t)(rng_below(rng, 2) ? f->min : f->max);
    return (json_int_t)(f->min + (span == UINT64_MAX ? n : n % (span + 1)));
}

static json_t *random_text(struct rng *rng)
{
    static const char *const pieces[] = {"a", "/", "0", "\"", "\\", "\n", "é", "\xf0\x9f\x92\xa7",
                                         " ", "_"};
    char text[64] = "x";

    for (uint64_t n = rng_below(rng, 12); n > 0; n--)
        strcat(text, pieces[rng_below(rng, ARRAY_LEN(pieces))]);
    return json_string(text);
}

static json_t *random_list(const struct fc_field *f, struct rng *rng)
{
    json_t *list = json_array();

    for (uint64_t n = f->min + rng_below(rng, 4); n > 0; n--) {
        json_t *item = f->kind == FC_KIND_LIST ? fc_sample_random(f->model, rng) : random_text(rng);

        (void)json_array_append_new(list, item);
    }
    return list;
}

static json_t *random_value(const struct fc_field *f, struct rng *rng)
{
    switch (f->kind) {
    case FC_KIND_BOOL:
        return json_boolean(rng_below(rng, 2) != 0);
    case FC_KIND_UINT:
        return json_integer(random_uint(f, rng));
    case FC_KIND_STR:
        return random_text(rng);
    case FC_KIND_ENUM:
        return json_string(f->choices->values[rng_below(rng, f->choices->n_values)].text);
    case FC_KIND_OBJ:
        return fc_sample_random(f->model, rng);
    case FC_KIND_STRS:
    case FC_KIND_LIST:
        return random_list(f, rng);
    case FC_KIND_JSON:
        return sample_json(f->format);
    }
    abort();
}

json_t *fc_sample_random(const struct fc_model *model, struct rng *rng)
{
    json_t *object = json_object();

    for (size_t i = 0; i < model->n_fields; i++) {
        const struct fc_field *f = &model->fields[i];

        if (f->name[0] == '\0') {
            json_decref(object);
            return random_value(f, rng);
        }
        if (f->required || rng_below(rng, 2))
            (void)json_object_set_new(object, f->name, random_value(f, rng));
    }
    return object;
}

struct thaw_version fc_version(const char *text)
{
    char first[32];
    struct thaw_version v;

    (void)snprintf(first, sizeof(first), "%.*s", (int)strcspn(text, " "), text);
    if (thaw_version_parse(&v, first) < 0)
        abort();
    return v;
}
