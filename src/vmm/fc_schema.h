/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_FC_SCHEMA_H
#define VMM_FC_SCHEMA_H

/*
 * fc_schema.h - the table of fc_schema.def as constant data, which what reads, writes and checks JSON walks over
 */

#include <thaw/features.h>

#include "base/base.h"
#include "vmm/fc_model.h"

#define FC_UINT_MAX ((uint64_t)INT64_MAX) /* JSON's integers are signed here */

enum fc_kind {
    FC_KIND_BOOL,
    FC_KIND_UINT,
    FC_KIND_STR,
    FC_KIND_STRS,
    FC_KIND_ENUM,
    FC_KIND_OBJ,
    FC_KIND_LIST,
    FC_KIND_JSON,
};

/** enum fc_format - which texts, and which JSON values, a field takes */
enum fc_format {
    FC_FORMAT_NONE,
    FC_FORMAT_TEXT, /* any */
    FC_FORMAT_NAME, /* not empty */
    FC_FORMAT_PATH, /* not empty */
    FC_FORMAT_ID,   /* letters, digits, '_'; the same as in the endpoint's path */
    FC_FORMAT_MAC,
    FC_FORMAT_IPV4,
    FC_FORMAT_NUMBER32, /* "0x..." or "0b..." */
    FC_FORMAT_NUMBER64,
    FC_FORMAT_BITS32, /* '0', '1', 'x' for each bit, with "0b" before them or not */
    FC_FORMAT_BITS64,
    FC_FORMAT_BITS128,
    FC_FORMAT_CAPABILITY, /* "121", "!121" */
    FC_FORMAT_OBJECT,     /* any JSON object */
    FC_FORMAT_MAP,        /* a JSON object of texts */
    FC_FORMAT_ANY,        /* any JSON value */
};

enum fc_rule_kind {
    FC_RULE_ONE_OF,
    FC_RULE_EXCLUDES,
    FC_RULE_MULTIPLE,
    FC_RULE_POWER_OF_TWO,
    FC_RULE_EVEN_WITH,
    FC_RULE_EVEN_OR_ONE,
    FC_RULE_NOT_EMPTY,
};

enum fc_method {
    FC_METHOD_GET,
    FC_METHOD_PUT,
    FC_METHOD_PATCH,
    FC_METHOD_DELETE,
};

enum fc_phase {
    FC_PHASE_ANY,
    FC_PHASE_PRE,
    FC_PHASE_POST,
    FC_PHASE_PAUSED,
};

enum fc_body {
    FC_BODY_NO,
    FC_BODY_MAY,
    FC_BODY_MUST,
};

#define FC_NOWHERE SIZE_MAX /* of a member that a field does not have */

/** struct fc_value - one value of an enumeration; its number is its place */
struct fc_value {
    const char *text;
    const char *since;
    const char *meaning;
};

/** struct fc_enum - an enumeration */
struct fc_enum {
    const char *name;
    const struct fc_value *values;
    size_t n_values;
    bool any_case; /* "info" is "Info" */
};

/** struct fc_field - one field of a model */
struct fc_field {
    const char *name; /* in JSON; "": the model is this field */
    enum fc_kind kind;
    enum fc_format format;         /* STR, STRS, JSON */
    const struct fc_model *model;  /* OBJ, LIST */
    const struct fc_enum *choices; /* ENUM */
    bool required;
    size_t at;     /* of the member in its struct */
    size_t has_at; /* of has_MEMBER */
    size_t n_at;   /* of n_MEMBER */
    uint64_t min;
    uint64_t max;
    const char *dflt; /* what Firecracker takes when it is not there; "": nothing in particular */
    const char *since;
    const char *meaning;
};

/** struct fc_rule - what must hold between the fields @a and @b */
struct fc_rule {
    enum fc_rule_kind kind;
    const char *a;
    const char *b;
};

/** struct fc_model - one struct */
struct fc_model {
    const char *name;
    const char *meaning;
    size_t bytes; /* of the struct */
    const struct fc_field *fields;
    size_t n_fields;
    const struct fc_rule *rules;
    size_t n_rules;
};

/** struct fc_endpoint - one method on one path */
struct fc_endpoint {
    enum fc_endpoint_id id;
    enum fc_method method;
    const char *path; /* with "{id}" where a name goes */
    enum fc_phase phase;
    const char *hotplug; /* since when it can be asked for after the start, too; "": it cannot */
    enum fc_body body;
    const struct fc_model *request; /* without fields: none */
    const struct fc_model *answer;
    const char *since;
    const char *meaning;
};

#define FC_MODEL_BEGIN(model, meaning) extern const struct fc_model fc_model_##model;
#include "vmm/fc_schema.def"

extern const struct fc_endpoint fc_endpoints[FC_N_ENDPOINTS];

/** fc_method_name() - "GET" */
const char *fc_method_name(enum fc_method method);

/** fc_phase_name() - "before the start" */
const char *fc_phase_name(enum fc_phase phase);

/**
 * fc_endpoint_find() - which endpoint is meant
 * @id: (give) the name in the path, free() it; NULL where the endpoint has none
 *
 * Return: 0, or -EINVAL with a text that says what was expected.
 */
int fc_endpoint_find(const char *method, const char *path, const struct fc_endpoint **out,
                     char **id);

/** fc_field_find() - by its name in JSON. Return: NULL if the model has none */
const struct fc_field *fc_field_find(const struct fc_model *model, const char *name);

/** fc_id_field() - the field that repeats the name in the endpoint's path. Return: NULL if the model has none */
const struct fc_field *fc_id_field(const struct fc_model *model);

/** fc_value_find() - Return: its number, or -1 */
int fc_value_find(const struct fc_enum *choices, const char *text);

/** fc_is_id() - may this be a name in a path: letters, digits, '_', not empty? */
bool fc_is_id(const char *text);

/** fc_since_has() - does @version have what @since (fc_schema.def) brought? */
bool fc_since_has(const char *since, const struct thaw_version *version);

/** fc_since_text() - @since for people: "1.14.4, 1.15.1 or 1.16.0". Return: @buf */
const char *fc_since_text(const char *since, char *buf, size_t len);

#endif
