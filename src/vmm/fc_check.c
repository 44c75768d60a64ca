/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/fc_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "vmm/fc_path.h"

#define SNIPPET_BYTES 48 /* of a wrong value, in an error */

/* struct check - one request, and where in it we are */
struct check {
    const struct fc_endpoint *e;
    const struct thaw_version *version;
    const char *id;
    struct fc_path path;
};

static int check_object(struct check *c, const struct fc_model *model, json_t *in);

/* ---- how a request is refused --------------------------------------------------------------------------------- */

PRINTF_LIKE(3, 4)
static int refuse(const struct check *c, int neg_errno, const char *fmt, ...)
{
    int head = (int)strcspn(c->e->path, "{");
    char why[400];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(why, sizeof(why), fmt, args);
    va_end(args);
    return err_origin(neg_errno, "%s %.*s%.40s: %s%s%s", fc_method_name(c->e->method), head,
                      c->e->path, c->e->path[head] != '\0' && c->id ? c->id : "", c->path.text,
                      c->path.text[0] != '\0' ? ": " : "", why);
}

/* unexpected() - a value of the wrong kind, or outside of its limits */
static int unexpected(const struct check *c, json_t *in, const char *expected)
{
    char *text = json_dumps(in, JSON_ENCODE_ANY | JSON_COMPACT);
    int r = refuse(c, -EINVAL, "expected %s, got %.*s%s", expected, SNIPPET_BYTES,
                   text ? text : "?", text && strlen(text) > SNIPPET_BYTES ? "..." : "");

    free(text);
    return r;
}

/* check_since() - @thing: "it", or the value that is meant */
static int check_since(const struct check *c, const char *since, const char *thing)
{
    const struct thaw_version *v = c->version;
    char versions[64];

    if (fc_since_has(since, v))
        return 0;
    return refuse(c, -EOPNOTSUPP, "Firecracker %u.%u.%u does not know %s; %s brought it", v->major,
                  v->minor, v->patch, thing, fc_since_text(since, versions, sizeof(versions)));
}

/* ---- values --------------------------------------------------------------------------------------------------- */

static int check_uint(const struct check *c, const struct fc_field *f, json_t *in)
{
    char expected[96];
    json_int_t n = json_integer_value(in);

    if (json_is_integer(in) && n >= 0 && (uint64_t)n >= f->min && (uint64_t)n <= f->max)
        return 0;
    (void)snprintf(expected, sizeof(expected), "a whole number from %" PRIu64 " to %" PRIu64,
                   f->min, f->max);
    return unexpected(c, in, expected);
}

static int check_string(const struct check *c, const struct fc_field *f, json_t *in)
{
    const char *expected = NULL;

    if (!json_is_string(in))
        return unexpected(c, in, "a text");
    expected = fc_format_check(f->format, json_string_value(in));
    if (expected)
        return unexpected(c, in, expected);
    if (f->format == FC_FORMAT_ID && c->id && strcmp(c->id, json_string_value(in)) != 0)
        return refuse(c, -EINVAL, "expected \"%.40s\" as in the path, got \"%.40s\"", c->id,
                      json_string_value(in));
    return 0;
}

static int check_enum(const struct check *c, const struct fc_field *f, json_t *in)
{
    const char *text = json_string_value(in);
    int choice = text ? fc_value_find(f->choices, text) : -1;
    char expected[256] = "one of";

    if (choice >= 0) {
        char thing[64];

        (void)snprintf(thing, sizeof(thing), "\"%s\"", f->choices->values[choice].text);
        return check_since(c, f->choices->values[choice].since, thing);
    }
    for (size_t i = 0; i < f->choices->n_values; i++) {
        size_t n = strlen(expected);

        if (fc_since_has(f->choices->values[i].since, c->version))
            (void)snprintf(expected + n, sizeof(expected) - n, " \"%s\"",
                           f->choices->values[i].text);
    }
    return unexpected(c, in, expected);
}

/* check_json() - an object of the user's own: only its outside is looked at */
static int check_json(const struct check *c, const struct fc_field *f, json_t *in)
{
    const char *key;
    json_t *value;

    if (f->format == FC_FORMAT_ANY)
        return 0;
    if (!json_is_object(in))
        return unexpected(c, in, "an object");
    if (f->format != FC_FORMAT_MAP)
        return 0;
    json_object_foreach (in, key, value) {
        if (!json_is_string(value))
            return unexpected(c, in, "an object of texts");
    }
    return 0;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the table */
static int check_items(struct check *c, const struct fc_field *f, json_t *in)
{
    json_t *item;
    size_t i;

    if (!json_is_array(in))
        return unexpected(c, in, "a list");
    if (json_array_size(in) < f->min)
        return refuse(c, -EINVAL, "expected a list that is not empty");
    json_array_foreach (in, i, item) {
        size_t before = fc_path_index(&c->path, i);
        int r =
            f->kind == FC_KIND_LIST ? check_object(c, f->model, item) : check_string(c, f, item);

        if (r < 0)
            return r;
        fc_path_back(&c->path, before);
    }
    return 0;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the table */
static int check_value(struct check *c, const struct fc_field *f, json_t *in)
{
    switch (f->kind) {
    case FC_KIND_BOOL:
        return json_is_boolean(in) ? 0 : unexpected(c, in, "true or false");
    case FC_KIND_UINT:
        return check_uint(c, f, in);
    case FC_KIND_STR:
        return check_string(c, f, in);
    case FC_KIND_STRS:
    case FC_KIND_LIST:
        return check_items(c, f, in);
    case FC_KIND_ENUM:
        return check_enum(c, f, in);
    case FC_KIND_OBJ:
        return check_object(c, f->model, in);
    case FC_KIND_JSON:
        return check_json(c, f, in);
    }
    assert(false);
    return -EINVAL;
}

/* ---- what must hold between fields ---------------------------------------------------------------------------- */

/* number_of() - of a field, its default if it is not there. Return: false if there is neither */
static bool number_of(const struct fc_model *model, json_t *in, const char *name, uint64_t *out)
{
    json_t *value = json_object_get(in, name);
    const struct fc_field *f = fc_field_find(model, name);

    assert(f && f->kind == FC_KIND_UINT);
    if (!value && f->dflt[0] == '\0')
        return false;
    *out = value ? (uint64_t)json_integer_value(value) : strtoull(f->dflt, NULL, 10);
    return true;
}

/* broken_rule() - of numbers. Return: whether it is broken; @why says what was expected */
static bool broken_rule(const struct fc_model *model, const struct fc_rule *rule, json_t *in,
                        char *why, size_t len)
{
    const char *with = json_string_value(json_object_get(in, rule->b));
    uint64_t a = 0;
    uint64_t b = 0;

    if (!number_of(model, in, rule->a, &a))
        return false;
    switch (rule->kind) {
    case FC_RULE_MULTIPLE:
        (void)number_of(model, in, rule->b, &b);
        (void)snprintf(why, len, "expected a multiple of %s (%" PRIu64 "), got %" PRIu64, rule->b,
                       b, a);
        return b == 0 || a % b != 0;
    case FC_RULE_POWER_OF_TWO:
        (void)snprintf(why, len, "expected a power of two, got %" PRIu64, a);
        return !is_power_of_two(a);
    case FC_RULE_EVEN_WITH:
        (void)snprintf(why, len, "expected an even number with %s \"%s\", got %" PRIu64, rule->b,
                       with ? with : "", a);
        return with && strcmp(with, "None") != 0 && a % 2 != 0;
    case FC_RULE_EVEN_OR_ONE:
        (void)snprintf(why, len, "expected 1 or an even number with %s, got %" PRIu64, rule->b, a);
        return json_is_true(json_object_get(in, rule->b)) && a != 1 && a % 2 != 0;
    default:
        return false;
    }
}

static int check_rule(struct check *c, const struct fc_model *model, const struct fc_rule *rule,
                      json_t *in)
{
    bool has_a = json_object_get(in, rule->a) != NULL;
    bool has_b = json_object_get(in, rule->b) != NULL;
    char why[160];

    switch (rule->kind) {
    case FC_RULE_ONE_OF:
        if (has_a != has_b)
            return 0;
        return refuse(c, -EINVAL, "expected %s or %s, got %s", rule->a, rule->b,
                      has_a ? "both" : "neither");
    case FC_RULE_EXCLUDES:
        return has_a && has_b
                   ? refuse(c, -EINVAL, "%s: not expected together with %s", rule->b, rule->a)
                   : 0;
    case FC_RULE_NOT_EMPTY:
        return json_object_size(in) > 0 ? 0 : refuse(c, -EINVAL, "expected one field at least");
    default:
        if (!broken_rule(model, rule, in, why, sizeof(why)))
            return 0;
        return refuse(c, -EINVAL, "%s: %s", rule->a, why);
    }
}

/* ---- objects -------------------------------------------------------------------------------------------------- */

static int check_names(struct check *c, const struct fc_model *model, json_t *in)
{
    char known[256] = "";
    const char *key;
    json_t *value;

    json_object_foreach (in, key, value) {
        if (fc_field_find(model, key))
            continue;
        for (size_t i = 0; i < model->n_fields; i++) {
            size_t n = strlen(known);

            if (fc_since_has(model->fields[i].since, c->version))
                (void)snprintf(known + n, sizeof(known) - n, "%s%s", n > 0 ? ", " : "",
                               model->fields[i].name);
        }
        return refuse(c, -EINVAL, "unknown field %.40s, expected %s", key, known);
    }
    return 0;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the table */
static int check_field(struct check *c, const struct fc_field *f, json_t *value)
{
    size_t before = fc_path_field(&c->path, f->name);
    int r = 0;

    if (value) {
        r = check_since(c, f->since, "it");
        if (r == 0)
            r = check_value(c, f, value);
    } else if (f->required) {
        r = refuse(c, -EINVAL, "is required: expected %s", f->meaning);
    }
    if (r == 0)
        fc_path_back(&c->path, before);
    return r;
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as the table */
static int check_object(struct check *c, const struct fc_model *model, json_t *in)
{
    int r = 0;

    if (!json_is_object(in))
        return unexpected(c, in, "an object");
    if (model->n_fields == 1 && model->fields[0].name[0] == '\0')
        return check_value(c, &model->fields[0], in);
    r = check_names(c, model, in);
    for (size_t i = 0; r == 0 && i < model->n_fields; i++)
        r = check_field(c, &model->fields[i], json_object_get(in, model->fields[i].name));
    for (size_t i = 0; r == 0 && i < model->n_rules; i++)
        r = check_rule(c, model, &model->rules[i], in);
    return r;
}

int fc_check(const struct fc_endpoint *e, const struct thaw_version *version, const char *id,
             json_t *body)
{
    struct check c = {.e = e, .version = version, .id = id};
    int r;

    if (strchr(e->path, '{') && (!id || !fc_is_id(id)))
        return refuse(&c, -EINVAL, "the name in the path: expected letters, digits and _");
    r = check_since(&c, e->since, "this");
    if (r < 0)
        return r;
    if (!body)
        return e->body == FC_BODY_MUST
                   ? refuse(&c, -EINVAL, "expected a body: %s", e->request->meaning)
                   : 0;
    if (e->body == FC_BODY_NO)
        return refuse(&c, -EINVAL, "expected no body");
    return check_object(&c, e->request, body);
}
