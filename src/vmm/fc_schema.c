/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/fc_schema.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"

#define SINCE_MAX 128 /* bytes of a list of versions */

/* ---- the table as data ---------------------------------------------------------------------------------------- */

#define FC_ENUM_BEGIN(name, any_case)                     static const struct fc_value values_##name[] = {
#define FC_VALUE(enumeration, name, text, since, meaning) {text, since, meaning},
#define FC_ENUM_END(name) \
    }                     \
    ;
#include "vmm/fc_schema.def"

#define FC_ENUM_BEGIN(enumeration, in_any_case)        \
    static const struct fc_enum enum_##enumeration = { \
        .name = #enumeration,                          \
        .values = values_##enumeration,                \
        .n_values = ARRAY_LEN(values_##enumeration),   \
        .any_case = (in_any_case),                     \
    };
#include "vmm/fc_schema.def"

/* What the column `type` means, by the kind of the field. */
#define MODEL_OF_BOOL(type)  NULL
#define MODEL_OF_UINT(type)  NULL
#define MODEL_OF_STR(type)   NULL
#define MODEL_OF_STRS(type)  NULL
#define MODEL_OF_ENUM(type)  NULL
#define MODEL_OF_OBJ(type)   &fc_model_##type
#define MODEL_OF_LIST(type)  &fc_model_##type
#define MODEL_OF_JSON(type)  NULL
#define ENUM_OF_BOOL(type)   NULL
#define ENUM_OF_UINT(type)   NULL
#define ENUM_OF_STR(type)    NULL
#define ENUM_OF_STRS(type)   NULL
#define ENUM_OF_ENUM(type)   &enum_##type
#define ENUM_OF_OBJ(type)    NULL
#define ENUM_OF_LIST(type)   NULL
#define ENUM_OF_JSON(type)   NULL
#define FORMAT_OF_BOOL(type) FC_FORMAT_NONE
#define FORMAT_OF_UINT(type) FC_FORMAT_NONE
#define FORMAT_OF_STR(type)  FC_FORMAT_##type
#define FORMAT_OF_STRS(type) FC_FORMAT_##type
#define FORMAT_OF_ENUM(type) FC_FORMAT_NONE
#define FORMAT_OF_OBJ(type)  FC_FORMAT_NONE
#define FORMAT_OF_LIST(type) FC_FORMAT_NONE
#define FORMAT_OF_JSON(type) FC_FORMAT_##type

/* Where has_MEMBER and n_MEMBER are. */
#define HAS_AT_BOOL_REQ(model, member) FC_NOWHERE
#define HAS_AT_UINT_REQ(model, member) FC_NOWHERE
#define HAS_AT_ENUM_REQ(model, member) FC_NOWHERE
#define HAS_AT_OBJ_REQ(model, member)  FC_NOWHERE
#define HAS_AT_BOOL_OPT(model, member) offsetof(struct fc_##model, has_##member)
#define HAS_AT_UINT_OPT(model, member) offsetof(struct fc_##model, has_##member)
#define HAS_AT_ENUM_OPT(model, member) offsetof(struct fc_##model, has_##member)
#define HAS_AT_OBJ_OPT(model, member)  offsetof(struct fc_##model, has_##member)
#define HAS_AT_STR_REQ(model, member)  FC_NOWHERE
#define HAS_AT_STR_OPT(model, member)  FC_NOWHERE
#define HAS_AT_JSON_REQ(model, member) FC_NOWHERE
#define HAS_AT_JSON_OPT(model, member) FC_NOWHERE
#define HAS_AT_STRS_REQ(model, member) FC_NOWHERE
#define HAS_AT_STRS_OPT(model, member) FC_NOWHERE
#define HAS_AT_LIST_REQ(model, member) FC_NOWHERE
#define HAS_AT_LIST_OPT(model, member) FC_NOWHERE
#define N_AT_BOOL(model, member)       FC_NOWHERE
#define N_AT_UINT(model, member)       FC_NOWHERE
#define N_AT_STR(model, member)        FC_NOWHERE
#define N_AT_STRS(model, member)       offsetof(struct fc_##model, n_##member)
#define N_AT_ENUM(model, member)       FC_NOWHERE
#define N_AT_OBJ(model, member)        FC_NOWHERE
#define N_AT_LIST(model, member)       offsetof(struct fc_##model, n_##member)
#define N_AT_JSON(model, member)       FC_NOWHERE
#define IS_REQ                         true
#define IS_OPT                         false

#define FC_MODEL_BEGIN(model, meaning) static const struct fc_field fields_##model[] = {
#define FC_FIELD(mod, member, json, kind_, type, presence, dflt_, min_, max_, since_, meaning_) \
    {                                                                                           \
        .name = (json),                                                                         \
        .kind = FC_KIND_##kind_,                                                                \
        .format = FORMAT_OF_##kind_(type),                                                      \
        .model = MODEL_OF_##kind_(type),                                                        \
        .choices = ENUM_OF_##kind_(type),                                                       \
        .required = IS_##presence,                                                              \
        .at = offsetof(struct fc_##mod, member),                                                \
        .has_at = HAS_AT_##kind_##_##presence(mod, member),                                     \
        .n_at = N_AT_##kind_(mod, member),                                                      \
        .min = (min_),                                                                          \
        .max = (max_),                                                                          \
        .dflt = (dflt_),                                                                        \
        .since = (since_),                                                                      \
        .meaning = (meaning_),                                                                  \
    },
#define FC_MODEL_END(model) \
    }                       \
    ;
#include "vmm/fc_schema.def"

#define FC_MODEL_BEGIN(model, meaning) static const struct fc_rule rules_##model[] = {
#define FC_RULE(model, rule, a, b)     {FC_RULE_##rule, a, b},
#define FC_MODEL_END(model) \
    }                       \
    ;
#include "vmm/fc_schema.def"

#define FC_MODEL_BEGIN(model, text)            \
    const struct fc_model fc_model_##model = { \
        .name = #model,                        \
        .meaning = (text),                     \
        .bytes = sizeof(struct fc_##model),    \
        .fields = fields_##model,              \
        .n_fields = ARRAY_LEN(fields_##model), \
        .rules = rules_##model,                \
        .n_rules = ARRAY_LEN(rules_##model),   \
    };
#include "vmm/fc_schema.def"

const struct fc_endpoint fc_endpoints[FC_N_ENDPOINTS] = {
#define FC_ENDPOINT(name, function, meth, where, when, hot, has_body, asked, answered, from, text) \
    {                                                                                              \
        .id = FC_##name,                                                                           \
        .method = FC_METHOD_##meth,                                                                \
        .path = (where),                                                                           \
        .phase = FC_PHASE_##when,                                                                  \
        .hotplug = (hot),                                                                          \
        .body = FC_BODY_##has_body,                                                                \
        .request = &fc_model_##asked,                                                              \
        .answer = &fc_model_##answered,                                                            \
        .since = (from),                                                                           \
        .meaning = (text),                                                                         \
    },
#include "vmm/fc_schema.def"
};

/* ---- looking things up ---------------------------------------------------------------------------------------- */

const char *fc_method_name(enum fc_method method)
{
    static const char *const names[] = {
        [FC_METHOD_GET] = "GET",
        [FC_METHOD_PUT] = "PUT",
        [FC_METHOD_PATCH] = "PATCH",
        [FC_METHOD_DELETE] = "DELETE",
    };

    assert((size_t)method < ARRAY_LEN(names));
    return names[method];
}

const char *fc_phase_name(enum fc_phase phase)
{
    static const char *const names[] = {
        [FC_PHASE_ANY] = "any",
        [FC_PHASE_PRE] = "before the start",
        [FC_PHASE_POST] = "after the start",
        [FC_PHASE_PAUSED] = "while paused",
    };

    assert((size_t)phase < ARRAY_LEN(names));
    return names[phase];
}

/* path_matches() - does @path belong to @pattern? *id_at: where its name is, 0 if it has none */
static bool path_matches(const char *pattern, const char *path, size_t *id_at)
{
    const char *hole = strchr(pattern, '{');

    *id_at = 0;
    if (!hole)
        return strcmp(pattern, path) == 0;
    *id_at = (size_t)(hole - pattern);
    return strncmp(pattern, path, *id_at) == 0 && !strchr(path + *id_at, '/');
}

/* no_endpoint() - Return: -EINVAL with a text: the methods that this path has, or that there is no such path */
static int no_endpoint(const char *method, const char *path)
{
    char methods[64] = "";
    size_t id_at;

    for (size_t i = 0; i < FC_N_ENDPOINTS; i++) {
        size_t n = strlen(methods);

        if (path_matches(fc_endpoints[i].path, path, &id_at))
            (void)snprintf(methods + n, sizeof(methods) - n, "%s%s", n > 0 ? ", " : "",
                           fc_method_name(fc_endpoints[i].method));
    }
    if (methods[0] == '\0')
        return err_origin(-EINVAL, "%.20s %.120s: Firecracker has no such path", method, path);
    return err_origin(-EINVAL, "%.20s %.120s: expected one of the methods %s", method, path,
                      methods);
}

int fc_endpoint_find(const char *method, const char *path, const struct fc_endpoint **out,
                     char **id)
{
    for (size_t i = 0; i < FC_N_ENDPOINTS; i++) {
        const struct fc_endpoint *e = &fc_endpoints[i];
        char *name = NULL;
        size_t id_at;

        if (strcmp(fc_method_name(e->method), method) != 0 || !path_matches(e->path, path, &id_at))
            continue;
        if (id_at > 0 && !fc_is_id(path + id_at))
            return err_origin(-EINVAL,
                              "%s %.120s: the name at its end: expected letters, digits and _",
                              method, path);
        if (id_at > 0) {
            name = strdup(path + id_at);
            if (!name)
                return err_origin_errno(-ENOMEM, "%s %.120s", method, path);
        }
        *out = e;
        *id = name;
        return 0;
    }
    return no_endpoint(method, path);
}

const struct fc_field *fc_field_find(const struct fc_model *model, const char *name)
{
    for (size_t i = 0; i < model->n_fields; i++) {
        if (strcmp(model->fields[i].name, name) == 0)
            return &model->fields[i];
    }
    return NULL;
}

const struct fc_field *fc_id_field(const struct fc_model *model)
{
    for (size_t i = 0; i < model->n_fields; i++) {
        if (model->fields[i].format == FC_FORMAT_ID)
            return &model->fields[i];
    }
    return NULL;
}

int fc_value_find(const struct fc_enum *choices, const char *text)
{
    for (size_t i = 0; i < choices->n_values; i++) {
        const char *value = choices->values[i].text;

        if (choices->any_case ? strcasecmp(value, text) == 0 : strcmp(value, text) == 0)
            return (int)i;
    }
    return -1;
}

bool fc_is_id(const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && *c != '_')
            return false;
    }
    return text[0] != '\0';
}

/* ---- versions ------------------------------------------------------------------------------------------------- */

bool fc_since_has(const char *since, const struct thaw_version *version)
{
    char list[SINCE_MAX];
    char *rest = NULL;
    bool has = false;

    (void)snprintf(list, sizeof(list), "%s", since);
    for (char *one = strtok_r(list, " ", &rest); one; one = strtok_r(NULL, " ", &rest)) {
        struct thaw_version v = {0};
        int r = thaw_version_parse(&v, one);

        assert(r == 0);
        (void)r;
        has = thaw_version_compare(version, &v) >= 0;
        if (version->major == v.major && version->minor == v.minor)
            return has; /* its own branch decides */
    }
    return has;
}

const char *fc_since_text(const char *since, char *buf, size_t len)
{
    const char *last = strrchr(since, ' ');
    size_t n = 0;

    assert(len > 0);
    buf[0] = '\0';
    for (const char *c = since; *c != '\0' && n + 1 < len; c++) {
        int w = c == last   ? snprintf(buf + n, len - n, " or ")
                : *c == ' ' ? snprintf(buf + n, len - n, ", ")
                            : snprintf(buf + n, len - n, "%c", *c);

        n = w < 0 ? len : n + (size_t)w;
    }
    return buf;
}
