/* SPDX-License-Identifier: Apache-2.0 */
#include "node/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"

static void json_unref(json_t *j)
{
    json_decref(j);
}

DEFINE_CLEANUP(json_t *, json_unref);

/* struct place - where we are, for messages */
struct place {
    const char *name;   /* of the record */
    const char *prefix; /* of the field, such as "host." */
};

/* ---- words ---------------------------------------------------------------------------------------------------- */

int record_word(const char *const *words, const char *text)
{
    for (int i = 0; words[i]; i++) {
        if (words[i][0] != '\0' && strcmp(words[i], text) == 0)
            return i;
    }
    return -EINVAL;
}

const char *record_words(const char *const *words, char *buf, size_t len)
{
    size_t at = 0;
    unsigned left = 0;

    for (unsigned i = 0; words[i]; i++)
        left += words[i][0] != '\0';
    buf[0] = '\0';
    for (unsigned i = 0; words[i] && at < len; i++) {
        if (words[i][0] == '\0')
            continue;
        left--;
        at += (size_t)snprintf(buf + at, len - at, "%s%s", words[i],
                               left > 1 ? ", " : (left == 1 ? " or " : ""));
    }
    return buf;
}

int record_check_text(const char *where, const char *name, const char *text, uint64_t max)
{
    size_t len = strlen(text);
    json_t *utf8 = json_string(text);

    if (!utf8)
        return err_origin(-EINVAL, "%s: %s is not UTF-8", where, name);
    json_decref(utf8);
    if (len > (max != 0 ? max : RECORD_TEXT_MAX))
        return err_origin(-EINVAL, "%s: %s has %zu bytes, expected %" PRIu64 " at most", where,
                          name, len, max != 0 ? max : RECORD_TEXT_MAX);
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            return err_origin(-EINVAL, "%s: %s has a control character at byte %zu", where, name,
                              i);
    }
    return 0;
}

/* ---- lists of texts --------------------------------------------------------------------------------------------- */

int record_texts_add(struct record_texts *list, const char *text)
{
    char **more = reallocarray((void *)list->texts, list->n + 1, sizeof(*more));

    if (more) {
        list->texts = more;
        more[list->n] = strdup(text);
    }
    if (!more || !more[list->n])
        return err_origin(-ENOMEM, "no memory for a list of texts");
    list->n++;
    return 0;
}

void record_texts_deinit(struct record_texts *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->texts[i]);
    free((void *)list->texts);
    *list = (struct record_texts){0};
}

/* NOLINTBEGIN(misc-no-recursion): as deep as the tables are */

/* ---- reading -------------------------------------------------------------------------------------------------- */

static int read_fields(struct place at, const struct record_field *fields, const json_t *object,
                       void *out);

/* refuse() - a field is not what was expected */
static int refuse(struct place at, const struct record_field *f, const json_t *value,
                  const char *expected)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    int r = err_origin(-EINVAL, "%s: %s%s is %.60s, expected %s", at.name, at.prefix, f->name,
                       text ? text : "something else", expected);

    free(text);
    return r;
}

static int read_text(struct place at, const struct record_field *f, const json_t *value, char **out)
{
    char name[128];
    const char *text = json_string_value(value);
    int r;

    if (!text)
        return refuse(at, f, value, "a string");
    (void)snprintf(name, sizeof(name), "%s%s", at.prefix, f->name);
    r = record_check_text(at.name, name, text, f->max);
    if (r < 0)
        return r;
    free(*out);
    *out = strdup(text);
    return *out ? 0 : err_origin_errno(-ENOMEM, "%s", at.name);
}

static int read_number(struct place at, const struct record_field *f, const json_t *value,
                       uint64_t *out)
{
    json_int_t n = json_integer_value(value);
    char expected[64];

    if (json_is_integer(value) && n >= 0 && (uint64_t)n >= f->min && (uint64_t)n <= f->max) {
        *out = (uint64_t)n;
        return 0;
    }
    (void)snprintf(expected, sizeof(expected), "a number from %" PRIu64 " to %" PRIu64, f->min,
                   f->max);
    return refuse(at, f, value, expected);
}

static int read_word(struct place at, const struct record_field *f, const json_t *value,
                     unsigned *out)
{
    char expected[256];
    int word = json_is_string(value) ? record_word(f->words, json_string_value(value)) : -EINVAL;

    if (word < 0)
        return refuse(at, f, value, record_words(f->words, expected, sizeof(expected)));
    *out = (unsigned)word;
    return 0;
}

static int read_part(struct place at, const struct record_field *f, const json_t *value, void *out)
{
    char prefix[128];

    if (!json_is_object(value))
        return refuse(at, f, value, "an object");
    if (f->optional)
        *(bool *)out = true;
    (void)snprintf(prefix, sizeof(prefix), "%s%s.", at.prefix, f->name);
    return read_fields((struct place){at.name, prefix}, f->fields, value, out);
}

static int read_texts(struct place at, const struct record_field *f, const json_t *value,
                      struct record_texts *out)
{
    char expected[64];
    const json_t *one;
    size_t i;
    int r = 0;

    (void)snprintf(expected, sizeof(expected), "an array of up to %" PRIu64 " strings", f->max);
    if (!json_is_array(value) || json_array_size(value) > f->max)
        return refuse(at, f, value, expected);
    record_texts_deinit(out);
    json_array_foreach (value, i, one) {
        if (!json_is_string(one))
            return refuse(at, f, value, expected);
        r = record_check_text(at.name, f->name, json_string_value(one), 0);
        if (r == 0)
            r = record_texts_add(out, json_string_value(one));
        if (r < 0)
            return r;
    }
    return 0;
}

static int read_field(struct place at, const struct record_field *f, const json_t *value,
                      void *record)
{
    void *out = (char *)record + f->offset;
    uint64_t n = 0;
    int r;

    switch (f->type) {
    case RECORD_TEXT:
        return read_text(at, f, value, out);
    case RECORD_NUMBER:
        assert(f->max <= UINT32_MAX);
        r = read_number(at, f, value, &n);
        if (r == 0)
            *(unsigned *)out = (unsigned)n;
        return r;
    case RECORD_LONG:
        return read_number(at, f, value, out);
    case RECORD_FLAG:
        if (!json_is_boolean(value))
            return refuse(at, f, value, "true or false");
        *(bool *)out = json_is_true(value);
        return 0;
    case RECORD_WORD:
        return read_word(at, f, value, out);
    case RECORD_TEXTS:
        return read_texts(at, f, value, out);
    case RECORD_PART:
    default:
        return read_part(at, f, value, out);
    }
}

/* find_stranger() - a field that the table does not have */
static int find_stranger(struct place at, const struct record_field *fields, const json_t *object)
{
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)object, key, value) {
        const struct record_field *f = fields;

        while (f->name && strcmp(f->name, key) != 0)
            f++;
        if (!f->name)
            return err_origin(-EINVAL, "%s: there is no field %s%.60s", at.name, at.prefix, key);
    }
    return 0;
}

static int read_fields(struct place at, const struct record_field *fields, const json_t *object,
                       void *out)
{
    int r = find_stranger(at, fields, object);

    for (const struct record_field *f = fields; f->name && r == 0; f++) {
        const json_t *value = json_object_get(object, f->name);

        if (value)
            r = read_field(at, f, value, out);
        else if (!f->optional)
            r = err_origin(-EINVAL, "%s: the field %s%s is missing", at.name, at.prefix, f->name);
    }
    return r;
}

/* take_head() - kind and version are right, and are gone from @top */
static int take_head(const struct record_form *form, const char *name, json_t *top)
{
    const char *kind = json_string_value(json_object_get(top, "kind"));
    const json_t *version = json_object_get(top, "version");

    if (!form->kind)
        return 0;
    if (!kind || strcmp(kind, form->kind) != 0)
        return err_origin(-EINVAL, "%s: expected a record with \"kind\": \"%s\"", name, form->kind);
    if (!json_is_integer(version) || json_integer_value(version) != (json_int_t)form->version)
        return err_origin(-EINVAL, "%s: expected a %s of version %u: another thaw has made it",
                          name, form->kind, form->version);
    (void)json_object_del(top, "kind");
    (void)json_object_del(top, "version");
    return 0;
}

int record_parse(const struct record_form *form, const char *name, const char *text, size_t len,
                 void *out)
{
    json_error_t error;
    _cleanup_(json_unrefp) json_t *top = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    int r;

    if (!top)
        return err_origin(-EINVAL, "%s:%d:%d: %s", name, error.line, error.column, error.text);
    if (!json_is_object(top))
        return err_origin(-EINVAL, "%s: expected a JSON object", name);
    r = take_head(form, name, top);
    return r == 0 ? read_fields((struct place){name, ""}, form->fields, top, out) : r;
}

int record_read(const struct record_form *form, const char *path, void *out)
{
    _cleanup_fd_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    ssize_t n;
    char *text;
    int r;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_origin_errno(-errno, "cannot open %s", path);
    if (!S_ISREG(st.st_mode))
        return err_origin(-EINVAL, "%s is not a regular file", path);
    if ((uint64_t)st.st_size > RECORD_BYTES_MAX)
        return err_origin(-EINVAL, "%s has %ju bytes, expected %llu at most", path,
                          (uintmax_t)st.st_size, RECORD_BYTES_MAX);
    text = malloc((size_t)st.st_size + 1);
    if (!text)
        return err_origin_errno(-ENOMEM, "cannot read %s", path);
    n = pread(fd, text, (size_t)st.st_size, 0); /* files are replaced, never written to */
    r = n < 0 ? err_origin_errno(-errno, "cannot read %s", path)
              : record_parse(form, path, text, (size_t)n, out);
    free(text);
    return r;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

static json_t *json_of_fields(const struct record_field *fields, const void *in);

/* json_of_texts() - Return: (give) NULL on an error */
static json_t *json_of_texts(const struct record_texts *list)
{
    _cleanup_(json_unrefp) json_t *array = json_array();

    for (size_t i = 0; array && i < list->n; i++) {
        if (json_array_append_new(array, json_string(list->texts[i])) < 0)
            return NULL;
    }
    return TAKE(array);
}

/* is_left_out() - of an optional field: it has nothing to be written */
static bool is_left_out(const struct record_field *f, const void *value)
{
    switch (f->type) {
    case RECORD_TEXT:
        return !*(char *const *)value;
    case RECORD_TEXTS:
        return ((const struct record_texts *)value)->n == 0;
    case RECORD_PART:
        return !*(const bool *)value;
    default:
        return false;
    }
}

/* json_of() - Return: (give) NULL on an error */
static json_t *json_of(const struct record_field *f, const void *value)
{
    switch (f->type) {
    case RECORD_TEXT:
        return json_string(*(char *const *)value);
    case RECORD_NUMBER:
        return json_integer(*(const unsigned *)value);
    case RECORD_LONG:
        return json_integer((json_int_t) * (const uint64_t *)value);
    case RECORD_FLAG:
        return json_boolean(*(const bool *)value);
    case RECORD_WORD:
        return json_string(f->words[*(const unsigned *)value]);
    case RECORD_TEXTS:
        return json_of_texts(value);
    case RECORD_PART:
    default:
        return json_of_fields(f->fields, value);
    }
}

static int add_fields(json_t *object, const struct record_field *fields, const void *in)
{
    for (const struct record_field *f = fields; f->name; f++) {
        const void *value = (const char *)in + f->offset;

        if (f->optional && is_left_out(f, value))
            continue;
        if (json_object_set_new(object, f->name, json_of(f, value)) < 0)
            return -EINVAL;
    }
    return 0;
}

static json_t *json_of_fields(const struct record_field *fields, const void *in)
{
    _cleanup_(json_unrefp) json_t *object = json_object();

    return object && add_fields(object, fields, in) == 0 ? TAKE(object) : NULL;
}

json_t *record_json(const struct record_form *form, const void *in)
{
    _cleanup_(json_unrefp) json_t *top = json_object();

    if (!top)
        return NULL;
    if (form->kind &&
        (json_object_set_new(top, "kind", json_string(form->kind)) < 0 ||
         json_object_set_new(top, "version", json_integer((json_int_t)form->version)) < 0))
        return NULL;
    return add_fields(top, form->fields, in) == 0 ? TAKE(top) : NULL;
}

int record_write(const struct record_form *form, const char *path, const void *in)
{
    _cleanup_(json_unrefp) json_t *top = record_json(form, in);
    char *text = top ? json_dumps(top, JSON_INDENT(2)) : NULL;
    char *line = NULL;
    int r;

    if (!text || asprintf(&line, "%s\n", text) < 0) {
        free(text);
        return err_origin(-EINVAL, "cannot write %s: a text is not UTF-8, or there is no memory",
                          path);
    }
    r = file_replace_durable(path, line, strlen(line), -1);
    free(line);
    free(text);
    return r;
}

/* ---- forgetting ----------------------------------------------------------------------------------------------- */

static void free_fields(const struct record_field *fields, void *record)
{
    for (const struct record_field *f = fields; f->name; f++) {
        void *value = (char *)record + f->offset;

        if (f->type == RECORD_PART)
            free_fields(f->fields, value);
        if (f->type == RECORD_TEXTS)
            record_texts_deinit(value);
        if (f->type != RECORD_TEXT)
            continue;
        free(*(char **)value);
        *(char **)value = NULL;
    }
}

/* NOLINTEND(misc-no-recursion) */

void record_deinit(const struct record_form *form, void *record)
{
    free_fields(form->fields, record);
}
