/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/regions_json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/err.h"

static void json_unref(json_t *j)
{
    json_decref(j);
}

DEFINE_CLEANUP(json_t *, json_unref);

/* get_u64() - a whole number >= 0; 1 if the field is not there */
static int get_u64(const json_t *object, unsigned region, const char *field, uint64_t *value)
{
    const json_t *v = json_object_get(object, field);

    if (!v)
        return 1;
    if (!json_is_integer(v))
        return err_origin(-EINVAL, "handshake: region %u: %s is no whole number", region, field);
    if (json_integer_value(v) < 0)
        return err_origin(
            -EINVAL, "handshake: region %u: %s is %" JSON_INTEGER_FORMAT ", expected 0 or more",
            region, field, json_integer_value(v));
    *value = (uint64_t)json_integer_value(v);
    return 0;
}

static int need_u64(const json_t *object, unsigned region, const char *field, uint64_t *value)
{
    int r = get_u64(object, region, field, value);

    if (r > 0)
        return err_origin(-EINVAL, "handshake: region %u: %s is missing", region, field);
    return r;
}

static int check_page_bytes(unsigned region, const char *field, uint64_t bytes)
{
    if (bytes != 4 * KIB && bytes != 2 * MIB)
        return err_origin(-EINVAL,
                          "handshake: region %u: %s is %" PRIu64 ", expected 4096 or 2097152",
                          region, field, bytes);
    return 0;
}

/* parse_page_bytes() - the region's page size; *said is whether it has a field for it */
static int parse_page_bytes(const json_t *object, unsigned region, uint64_t *bytes, bool *said)
{
    uint64_t kib_field = 0;
    int has_new = get_u64(object, region, "page_size", bytes);
    int has_old = get_u64(object, region, "page_size_kib", &kib_field);
    int r = 0;

    if (has_new < 0 || has_old < 0)
        return -EINVAL;
    if (kib_field == 4 || kib_field == 2048)
        kib_field *= KIB; /* somebody took the name at its word */
    if (has_new == 0)
        r = check_page_bytes(region, "page_size", *bytes);
    if (r == 0 && has_old == 0)
        r = check_page_bytes(region, "page_size_kib", kib_field);
    if (r < 0)
        return r;
    if (has_new == 0 && has_old == 0 && *bytes != kib_field)
        return err_origin(-EINVAL,
                          "handshake: region %u: page_size is %" PRIu64
                          " but page_size_kib is %" PRIu64 " (both are in bytes)",
                          region, *bytes, kib_field);
    if (has_new != 0)
        *bytes = has_old == 0 ? kib_field : 4 * KIB;
    *said = has_new == 0 || has_old == 0;
    return 0;
}

static int parse_region(struct regions *out, const json_t *object, unsigned i)
{
    struct geom_region *g = &out->list[i];
    uint64_t page_bytes = 0;
    bool said = false;
    int r;

    if (!json_is_object(object))
        return err_origin(-EINVAL, "handshake: region %u is no JSON object", i);
    r = need_u64(object, i, "base_host_virt_addr", &g->hva);
    if (r == 0)
        r = need_u64(object, i, "size", &g->len_bytes);
    if (r == 0)
        r = need_u64(object, i, "offset", &g->imgoff);
    if (r == 0)
        r = parse_page_bytes(object, i, &page_bytes, &said);
    if (r < 0)
        return r;
    if (i > 0 && page_bytes != out->page_bytes)
        return err_origin(-EINVAL,
                          "handshake: region %u has pages of %" PRIu64
                          " bytes, region 0 of %" PRIu64 "; expected one page size for all regions",
                          i, page_bytes, out->page_bytes);
    out->page_bytes = page_bytes;
    out->page_bytes_said = said || out->page_bytes_said;
    return 0;
}

static int parse_list(struct regions *out, const json_t *array)
{
    size_t n = json_array_size(array);

    if (!json_is_array(array))
        return err_origin(-EINVAL, "handshake: the message is no JSON array");
    if (n == 0)
        return err_origin(-EINVAL, "handshake: the array is empty, expected at least one region");
    if (n > GEOM_MAX_REGIONS)
        return err_origin(-EINVAL, "handshake: %zu regions, expected at most %u", n,
                          GEOM_MAX_REGIONS);
    out->list = calloc(n, sizeof(*out->list));
    if (!out->list)
        return err_origin_errno(-ENOMEM, "handshake: cannot keep %zu regions", n);
    out->n = (unsigned)n;
    for (unsigned i = 0; i < out->n; i++) {
        int r = parse_region(out, json_array_get(array, i), i);

        if (r < 0)
            return r;
    }
    return 0;
}

int regions_parse(struct regions *out, const char *text, size_t len)
{
    _cleanup_(json_unrefp) json_t *root = NULL;
    json_error_t error;
    int r;

    *out = (struct regions){0};
    root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return err_origin(-EINVAL, "handshake: not valid JSON at byte %d: %s", error.position,
                          error.text);
    r = parse_list(out, root);
    if (r < 0)
        regions_deinit(out);
    return r;
}

void regions_deinit(struct regions *r)
{
    free(r->list);
    *r = (struct regions){0};
}

static bool is_json_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void span_step(struct json_span *s, char c)
{
    if (s->in_string) {
        if (s->escaped)
            s->escaped = false;
        else if (c == '\\')
            s->escaped = true;
        else if (c == '"')
            s->in_string = false;
        return;
    }
    if (c == '"')
        s->in_string = true;
    else if (c == '[' || c == '{')
        s->depth++;
    else if (c == ']' || c == '}')
        s->done = --s->depth == 0;
}

int json_span_feed(struct json_span *s, const char *bytes, size_t len, size_t *used)
{
    size_t i;

    for (i = 0; i < len && !s->done; i++) {
        if (s->depth == 0) {
            if (is_json_space(bytes[i]))
                continue;
            if (bytes[i] != '[')
                return JSON_SPAN_E_NOT_ARRAY;
        }
        span_step(s, bytes[i]);
    }
    *used = i;
    return 0;
}
