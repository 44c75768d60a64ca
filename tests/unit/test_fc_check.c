/* SPDX-License-Identifier: Apache-2.0 */

/*
 * test_fc_check.c - what is refused before it is sent to Firecracker
 *
 * Two kinds of tests: some walk over the whole table and change a sample that is right in one place at a time; others are
 * written by hand, from what is known of Firecracker and not from the table.
 */

#include "testing.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "fc_samples.h"
#include "vmm/fc_check.h"

#define NEWEST "1.17.0"

/* struct walk - a request that is right, and what is done to each of its fields */
struct walk {
    const struct fc_endpoint *e;
    struct thaw_version version;
    json_t *root;
    void (*visit)(struct walk *w, const struct fc_model *model, const struct fc_field *f,
                  json_t *object);
    unsigned n_visits;
};

static int check_walk(const struct walk *w)
{
    return fc_check(w->e, &w->version, strchr(w->e->path, '{') ? SAMPLE_ID : NULL, w->root);
}

/* refused_with() - the field has another value for a moment, and that is refused in a text that names it */
static void refused_with(struct walk *w, const struct fc_field *f, json_t *object, json_t *value)
{
    json_t *before = json_incref(json_object_get(object, f->name));
    int r;

    (void)json_object_set_new(object, f->name, value);
    r = check_walk(w);
    if (r != -EINVAL || !strstr(err_text(), f->name) || !strstr(err_text(), "expected"))
        fail_msg("%s %s: %d %s", w->e->path, f->name, r, err_text());
    (void)json_object_set_new(object, f->name, before);
}

static void walk_object(struct walk *w, const struct fc_model *model, json_t *object)
{
    for (size_t i = 0; i < model->n_fields; i++) {
        const struct fc_field *f = &model->fields[i];
        json_t *value = json_object_get(object, f->name);

        if (!value)
            continue;
        w->n_visits++;
        w->visit(w, model, f, object);
        value = json_object_get(object, f->name);
        if (f->kind == FC_KIND_OBJ)
            walk_object(w, f->model, value);
        if (f->kind == FC_KIND_LIST)
            walk_object(w, f->model, json_array_get(value, 0));
    }
}

static unsigned walk_all(void (*visit)(struct walk *, const struct fc_model *,
                                       const struct fc_field *, json_t *))
{
    unsigned n = 0;

    for (size_t i = 0; i < FC_N_ENDPOINTS; i++) {
        struct walk w = {
            .e = &fc_endpoints[i],
            .version = fc_version(NEWEST),
            .root = fc_sample(fc_endpoints[i].request, true),
            .visit = visit,
        };

        if (w.e->body != FC_BODY_NO && w.e->request != &fc_model_mmds)
            walk_object(&w, w.e->request, w.root);
        n += w.n_visits;
        json_decref(w.root);
    }
    return n;
}

/* ---- over the whole table ------------------------------------------------------------------------------------- */

static void samples_of_every_endpoint_are_let_through(void **state)
{
    (void)state;
    for (size_t i = 0; i < FC_N_ENDPOINTS; i++) {
        for (int full = 0; full < 2; full++) {
            struct walk w = {.e = &fc_endpoints[i], .version = fc_version(NEWEST)};

            w.root = w.e->body == FC_BODY_NO ? NULL : fc_sample(w.e->request, full != 0);
            if (check_walk(&w) != 0)
                fail_msg("%s", err_text());
            json_decref(w.root);
        }
    }
}

static void visit_types(struct walk *w, const struct fc_model *model, const struct fc_field *f,
                        json_t *object)
{
    (void)model;
    refused_with(w, f, object, json_null());
    refused_with(w, f, object, json_real(1.5));
    refused_with(w, f, object, json_integer(-1));
    if (f->kind != FC_KIND_BOOL)
        refused_with(w, f, object, json_true());
    if (f->kind != FC_KIND_STR)
        refused_with(w, f, object, json_string("1"));
    if (f->kind != FC_KIND_STRS && f->kind != FC_KIND_LIST)
        refused_with(w, f, object, json_pack("[{}]"));
    else
        refused_with(w, f, object, json_pack("[i]", 1));
    if (f->kind != FC_KIND_OBJ && f->kind != FC_KIND_JSON)
        refused_with(w, f, object, json_object());
}

static void a_value_of_the_wrong_type_is_refused(void **state)
{
    (void)state;
    assert_true(walk_all(visit_types) > 150);
}

static void visit_limits(struct walk *w, const struct fc_model *model, const struct fc_field *f,
                         json_t *object)
{
    (void)model;
    if (f->kind == FC_KIND_UINT) {
        refused_with(w, f, object, json_integer((json_int_t)f->min - 1));
        if (f->max < FC_UINT_MAX)
            refused_with(w, f, object, json_integer((json_int_t)f->max + 1));
    }
    if (f->kind == FC_KIND_ENUM)
        refused_with(w, f, object, json_string("Neither"));
    if (f->kind == FC_KIND_STR && f->format != FC_FORMAT_TEXT)
        refused_with(w, f, object, json_string(""));
    if (f->min > 0 && f->kind == FC_KIND_STRS)
        refused_with(w, f, object, json_array());
}

static void a_value_outside_of_its_limits_is_refused(void **state)
{
    (void)state;
    assert_true(walk_all(visit_limits) > 150);
}

static void visit_missing(struct walk *w, const struct fc_model *model, const struct fc_field *f,
                          json_t *object)
{
    json_t *before = json_incref(json_object_get(object, f->name));
    bool choice = model->n_rules > 0 && model->rules[0].kind == FC_RULE_ONE_OF &&
                  strcmp(model->rules[0].a, f->name) == 0;
    int r;

    (void)json_object_del(object, f->name);
    r = check_walk(w);
    if (f->required || choice) {
        assert_int_equal(r, -EINVAL);
        assert_non_null(strstr(err_text(), f->name));
    } else if (model->n_fields > 1 && r != 0) {
        fail_msg("%s without %s: %s", w->e->path, f->name, err_text());
    }
    (void)json_object_set_new(object, f->name, before);
}

static void what_is_required_must_be_there_and_nothing_else(void **state)
{
    (void)state;
    assert_true(walk_all(visit_missing) > 150);
}

static void visit_strangers(struct walk *w, const struct fc_model *model, const struct fc_field *f,
                            json_t *object)
{
    (void)model;
    (void)f;
    (void)json_object_set_new(object, "stranger", json_true());
    assert_int_equal(check_walk(w), -EINVAL);
    assert_non_null(strstr(err_text(), "unknown field stranger, expected "));
    (void)json_object_del(object, "stranger");
}

static void an_unknown_field_is_refused_wherever_it_is(void **state)
{
    (void)state;
    assert_true(walk_all(visit_strangers) > 150);
}

/* version_before() - the last one without what @since brought to its oldest branch */
static struct thaw_version version_before(const char *since)
{
    struct thaw_version v = fc_version(since);

    if (v.patch > 0)
        v.patch--;
    else
        v = (struct thaw_version){v.major, v.minor - 1, 99};
    return v;
}

static void visit_versions(struct walk *w, const struct fc_model *model, const struct fc_field *f,
                           json_t *object)
{
    struct walk at = *w;
    char brought[64];

    (void)model;
    if (strcmp(f->since, "1.0.0") == 0)
        return;
    at.root = fc_sample(w->e->request, false);
    at.version = version_before(f->since);
    /* Only where all around it is older: top fields. Nested ones came with what they are in, or are tested by hand. */
    if (object == w->root && !json_object_get(at.root, f->name) && check_walk(&at) == 0) {
        (void)json_object_set(at.root, f->name, json_object_get(object, f->name));
        assert_int_equal(check_walk(&at), -EOPNOTSUPP);
        assert_non_null(strstr(err_text(), f->name));
        assert_non_null(strstr(err_text(), fc_since_text(f->since, brought, sizeof(brought))));
        at.version = fc_version(f->since);
        if (f->kind != FC_KIND_OBJ)
            assert_true(check_walk(&at) == 0 || !strstr(err_text(), "does not know it"));
    }
    json_decref(at.root);
}

static void a_field_that_the_version_does_not_know_is_refused(void **state)
{
    (void)state;
    assert_true(walk_all(visit_versions) > 150);
}

static void an_endpoint_that_the_version_does_not_know_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < FC_N_ENDPOINTS; i++) {
        struct walk w = {.e = &fc_endpoints[i]};

        if (strcmp(w.e->since, "1.0.0") == 0)
            continue;
        w.root = w.e->body == FC_BODY_NO ? NULL : fc_sample(w.e->request, false);
        w.version = version_before(w.e->since);
        assert_int_equal(check_walk(&w), -EOPNOTSUPP);
        assert_non_null(strstr(err_text(), "does not know this"));
        assert_non_null(strstr(err_text(), w.e->since));
        w.version = fc_version(w.e->since);
        if (check_walk(&w) != 0)
            fail_msg("%s", err_text());
        json_decref(w.root);
    }
}

/* ---- by hand -------------------------------------------------------------------------------------------------- */

static int check_text(const char *version, const char *method, const char *path, const char *body)
{
    struct thaw_version v = fc_version(version);
    const struct fc_endpoint *e;
    json_t *json = NULL;
    char *id = NULL;
    int r;

    r = fc_endpoint_find(method, path, &e, &id);
    assert_int_equal(r, 0);
    if (body) {
        json = json_loads(body, JSON_DECODE_ANY, NULL);
        assert_non_null(json);
    }
    r = fc_check(e, &v, id, json);
    json_decref(json);
    free(id);
    return r;
}

struct hand {
    const char *version;
    const char *method;
    const char *path;
    const char *body;
    const char *error; /* NULL: it is let through */
};

static void check_hands(const struct hand *hands, size_t n, int error)
{
    for (size_t i = 0; i < n; i++) {
        const struct hand *h = &hands[i];
        int r = check_text(h->version, h->method, h->path, h->body);

        if (!h->error && r != 0)
            fail_msg("%s", err_text());
        if (h->error) {
            assert_int_equal(r, error);
            assert_string_equal(err_text(), h->error);
        }
    }
}

static void newer_fields_are_refused_with_the_version_that_brought_them(void **state)
{
    static const struct hand hands[] = {
        {"1.13.1", "PUT", "/balloon",
         "{\"amount_mib\":1,\"deflate_on_oom\":true,\"free_page_reporting\":true}",
         "PUT /balloon: free_page_reporting: Firecracker 1.13.1 does not know it; 1.14.0 brought "
         "it"},
        {"1.14.0", "PUT", "/balloon",
         "{\"amount_mib\":1,\"deflate_on_oom\":true,\"free_page_reporting\":true}", NULL},
        {"1.13.1", "PATCH", "/balloon/hinting/start", NULL,
         "PATCH /balloon/hinting/start: Firecracker 1.13.1 does not know this; 1.14.0 brought it"},
        {"1.15.0", "PUT", "/snapshot/load",
         "{\"snapshot_path\":\"s\",\"mem_file_path\":\"m\",\"clock_realtime\":true}",
         "PUT /snapshot/load: clock_realtime: Firecracker 1.15.0 does not know it; 1.14.4, 1.15.1 "
         "or "
         "1.16.0 brought it"},
        {"1.14.4", "PUT", "/snapshot/load",
         "{\"snapshot_path\":\"s\",\"mem_file_path\":\"m\",\"clock_realtime\":true}", NULL},
        {"1.16.1", "PUT", "/machine-config",
         "{\"vcpu_count\":1,\"mem_size_mib\":2,\"huge_pages\":\"Transparent\"}",
         "PUT /machine-config: huge_pages: Firecracker 1.16.1 does not know \"Transparent\"; "
         "1.17.0 "
         "brought it"},
        {"1.17.0-dev", "PUT", "/machine-config",
         "{\"vcpu_count\":1,\"mem_size_mib\":2,\"huge_pages\":\"Transparent\"}", NULL},
        {"1.15.1", "PUT", "/pmem/a", "{\"id\":\"a\",\"path_on_host\":\"p\",\"rate_limiter\":{}}",
         "PUT /pmem/a: rate_limiter: Firecracker 1.15.1 does not know it; 1.16.0 brought it"},
        {"1.15.1", "DELETE", "/drives/a", NULL,
         "DELETE /drives/a: Firecracker 1.15.1 does not know this; 1.16.0 brought it"},
        {"1.15.1", "PUT", "/network-interfaces/e",
         "{\"iface_id\":\"e\",\"host_dev_name\":\"t\",\"mtu\":1500}",
         "PUT /network-interfaces/e: mtu: Firecracker 1.15.1 does not know it; 1.16.0 brought it"},
        {"1.1.0", "PUT", "/machine-config",
         "{\"vcpu_count\":1,\"mem_size_mib\":2,\"cpu_template\":\"T2S\"}",
         "PUT /machine-config: cpu_template: Firecracker 1.1.0 does not know \"T2S\"; 1.1.1 "
         "brought "
         "it"},
        {"1.5.1", "PUT", "/logger", "{\"module\":\"m\"}",
         "PUT /logger: module: Firecracker 1.5.1 does not know it; 1.6.0 brought it"},
        {"1.4.1", "PUT", "/logger", "{\"level\":\"warn\"}",
         "PUT /logger: level: Firecracker 1.4.1 does not know \"Warn\"; 1.5.0 brought it"},
        {"1.4.1", "PUT", "/logger", "{\"level\":\"off\"}",
         "PUT /logger: level: Firecracker 1.4.1 does not know \"Off\"; 1.5.0 brought it"},
        {"1.4.1", "PUT", "/logger", "{\"level\":\"warning\"}", NULL},
        {"1.16.0", "PUT", "/metrics", "{\"metrics_path\":\"m\",\"properties\":{}}",
         "PUT /metrics: properties: Firecracker 1.16.0 does not know it; 1.17.0 brought it"},
        {"1.16.0", "PUT", "/snapshot/load",
         "{\"snapshot_path\":\"s\",\"mem_file_path\":\"m\",\"huge_pages\":\"2M\"}",
         "PUT /snapshot/load: huge_pages: Firecracker 1.16.0 does not know it; 1.17.0 brought it"},
    };

    (void)state;
    check_hands(hands, ARRAY_LEN(hands), -EOPNOTSUPP);
}

static void limits_are_those_of_firecracker(void **state)
{
    static const struct hand hands[] = {
        {NEWEST, "PUT", "/machine-config", "{\"vcpu_count\":33,\"mem_size_mib\":128}",
         "PUT /machine-config: vcpu_count: expected a whole number from 1 to 32, got 33"},
        {NEWEST, "PUT", "/machine-config", "{\"vcpu_count\":0,\"mem_size_mib\":128}",
         "PUT /machine-config: vcpu_count: expected a whole number from 1 to 32, got 0"},
        {NEWEST, "PUT", "/machine-config", "{\"vcpu_count\":32,\"mem_size_mib\":1}", NULL},
        {NEWEST, "PUT", "/network-interfaces/e",
         "{\"iface_id\":\"e\",\"host_dev_name\":\"t\",\"mtu\":67}",
         "PUT /network-interfaces/e: mtu: expected a whole number from 68 to 65535, got 67"},
        {NEWEST, "PUT", "/vsock", "{\"guest_cid\":2,\"uds_path\":\"u\"}",
         "PUT /vsock: guest_cid: expected a whole number from 3 to 4294967295, got 2"},
        {NEWEST, "PATCH", "/balloon", "{\"amount_mib\":4294967296}",
         "PATCH /balloon: amount_mib: expected a whole number from 0 to 4294967295, got "
         "4294967296"},
        {NEWEST, "PATCH", "/balloon/statistics", "{\"stats_polling_interval_s\":65536}",
         "PATCH /balloon/statistics: stats_polling_interval_s: expected a whole number from 0 to "
         "65535, got 65536"},
        {NEWEST, "PATCH", "/balloon", "{\"amount_mib\":\"1\"}",
         "PATCH /balloon: amount_mib: expected a whole number from 0 to 4294967295, got \"1\""},
        {NEWEST, "PATCH", "/balloon", "{\"amount_mib\":1,\"deflate_on_oom\":true}",
         "PATCH /balloon: unknown field deflate_on_oom, expected amount_mib"},
        {NEWEST, "PATCH", "/vm", "{\"state\":\"Running\"}",
         "PATCH /vm: state: expected one of \"Paused\" \"Resumed\", got \"Running\""},
        {"1.16.0", "PUT", "/machine-config",
         "{\"vcpu_count\":1,\"mem_size_mib\":2,\"huge_pages\":\"1G\"}",
         "PUT /machine-config: huge_pages: expected one of \"None\" \"2M\", got \"1G\""},
        {NEWEST, "PUT", "/logger", "{\"level\":\"WARNING\"}", NULL},
        {NEWEST, "PUT", "/mmds/config", "{\"network_interfaces\":[]}",
         "PUT /mmds/config: network_interfaces: expected a list that is not empty"},
        {NEWEST, "PUT", "/mmds", "[]", "PUT /mmds: expected an object, got []"},
        {NEWEST, "PUT", "/mmds", "{\"a\":{\"b\":[null]}}", NULL},
        {NEWEST, "PUT", "/metrics", "{\"metrics_path\":\"m\",\"properties\":{\"a\":1}}",
         "PUT /metrics: properties: expected an object of texts, got {\"a\":1}"},
        {NEWEST, "PUT", "/drives/a",
         "{\"drive_id\":\"a\",\"is_root_device\":true,\"path_on_host\":\"p\",\"rate_limiter\":"
         "{\"ops\":{\"size\":-1,\"refill_time\":1}}}",
         "PUT /drives/a: rate_limiter.ops.size: expected a whole number from 0 to "
         "9223372036854775807, got -1"},
        {NEWEST, "GET", "/balloon", "{}", "GET /balloon: expected no body"},
        {NEWEST, "PUT", "/balloon", NULL, "PUT /balloon: expected a body: the balloon"},
        {NEWEST, "PATCH", "/balloon/hinting/start", NULL, NULL},
        {NEWEST, "PATCH", "/balloon/hinting/stop", "{}",
         "PATCH /balloon/hinting/stop: expected no body"},
    };

    (void)state;
    check_hands(hands, ARRAY_LEN(hands), -EINVAL);
}

static void what_must_hold_between_fields_is_looked_at(void **state)
{
    static const struct hand hands[] = {
        {NEWEST, "PUT", "/drives/a",
         "{\"drive_id\":\"b\",\"is_root_device\":true,\"path_on_host\":\"p\"}",
         "PUT /drives/a: drive_id: expected \"a\" as in the path, got \"b\""},
        {NEWEST, "PUT", "/drives/a", "{\"drive_id\":\"a\",\"is_root_device\":true}",
         "PUT /drives/a: expected path_on_host or socket, got neither"},
        {NEWEST, "PUT", "/drives/a",
         "{\"drive_id\":\"a\",\"is_root_device\":true,\"path_on_host\":\"p\",\"socket\":\"s\"}",
         "PUT /drives/a: expected path_on_host or socket, got both"},
        {NEWEST, "PUT", "/drives/a",
         "{\"drive_id\":\"a\",\"is_root_device\":true,\"socket\":\"s\",\"io_engine\":\"Sync\"}",
         "PUT /drives/a: io_engine: not expected together with socket"},
        {NEWEST, "PUT", "/drives/a",
         "{\"drive_id\":\"a\",\"is_root_device\":true,\"socket\":\"s\",\"rate_limiter\":{}}",
         "PUT /drives/a: rate_limiter: not expected together with socket"},
        {NEWEST, "PUT", "/drives/a",
         "{\"drive_id\":\"a\",\"is_root_device\":true,\"socket\":\"s\",\"cache_type\":\"Unsafe\"}",
         NULL},
        {NEWEST, "PUT", "/snapshot/load", "{\"snapshot_path\":\"s\"}",
         "PUT /snapshot/load: expected mem_backend or mem_file_path, got neither"},
        {NEWEST, "PUT", "/snapshot/load",
         "{\"snapshot_path\":\"s\",\"mem_file_path\":\"m\",\"mem_backend\":{\"backend_type\":"
         "\"File\",\"backend_path\":\"m\"}}",
         "PUT /snapshot/load: expected mem_backend or mem_file_path, got both"},
        {NEWEST, "PUT", "/machine-config",
         "{\"vcpu_count\":1,\"mem_size_mib\":129,\"huge_pages\":\"2M\"}",
         "PUT /machine-config: mem_size_mib: expected an even number with huge_pages \"2M\", got "
         "129"},
        {NEWEST, "PUT", "/machine-config",
         "{\"vcpu_count\":1,\"mem_size_mib\":129,\"huge_pages\":\"None\"}", NULL},
        {NEWEST, "PUT", "/machine-config", "{\"vcpu_count\":3,\"mem_size_mib\":128,\"smt\":true}",
         "PUT /machine-config: vcpu_count: expected 1 or an even number with smt, got 3"},
        {NEWEST, "PUT", "/machine-config", "{\"vcpu_count\":3,\"mem_size_mib\":128,\"smt\":false}",
         NULL},
        {NEWEST, "PATCH", "/machine-config", "{}",
         "PATCH /machine-config: expected one field at least"},
        {NEWEST, "PUT", "/hotplug/memory", "{\"total_size_mib\":192}",
         "PUT /hotplug/memory: total_size_mib: expected a multiple of slot_size_mib (128), got "
         "192"},
        {NEWEST, "PUT", "/hotplug/memory",
         "{\"total_size_mib\":512,\"slot_size_mib\":130,\"block_size_mib\":4}",
         "PUT /hotplug/memory: slot_size_mib: expected a multiple of block_size_mib (4), got 130"},
        {NEWEST, "PUT", "/hotplug/memory", "{\"total_size_mib\":384,\"block_size_mib\":6}",
         "PUT /hotplug/memory: block_size_mib: expected a power of two, got 6"},
        {NEWEST, "PUT", "/hotplug/memory", "{\"total_size_mib\":1024,\"block_size_mib\":256}",
         "PUT /hotplug/memory: slot_size_mib: expected a multiple of block_size_mib (256), got "
         "128"},
        {NEWEST, "PUT", "/hotplug/memory", "{\"total_size_mib\":1024}", NULL},
    };

    (void)state;
    check_hands(hands, ARRAY_LEN(hands), -EINVAL);
}

static void texts_with_a_form_have_it(void **state)
{
    static const struct {
        enum fc_format format;
        const char *text;
        bool good;
    } cases[] = {
        {FC_FORMAT_MAC, "06:00:AC:10:00:02", true},
        {FC_FORMAT_MAC, "06:00:ac:10:00", false},
        {FC_FORMAT_MAC, "06:00:ac:10:00:021", false},
        {FC_FORMAT_MAC, "06-00-ac-10-00-02", false},
        {FC_FORMAT_IPV4, "169.254.0.1", true},
        {FC_FORMAT_IPV4, "10.0.0.1", false},
        {FC_FORMAT_IPV4, "169.254.1", false},
        {FC_FORMAT_NUMBER32, "0x0", true},
        {FC_FORMAT_NUMBER32, "0xFFFFffff", true},
        {FC_FORMAT_NUMBER32, "0x00ffffffff", true},
        {FC_FORMAT_NUMBER32, "0x1ffffffff", false},
        {FC_FORMAT_NUMBER32, "0b101", true},
        {FC_FORMAT_NUMBER32, "0b102", false},
        {FC_FORMAT_NUMBER32, "0x", false},
        {FC_FORMAT_NUMBER32, "12", false},
        {FC_FORMAT_NUMBER64, "0xffffffffffffffff", true},
        {FC_FORMAT_NUMBER64, "0x1ffffffffffffffff", false},
        {FC_FORMAT_BITS32, "0b11xx0011xx0011xx0011xx0011xx0011", true},
        {FC_FORMAT_BITS32, "0b11xx0011xx0011xx0011xx0011xx00110", false},
        {FC_FORMAT_BITS32, "1_x", true},
        {FC_FORMAT_BITS32, "0b12", false},
        {FC_FORMAT_BITS32, "0b", false},
        {FC_FORMAT_CAPABILITY, "121", true},
        {FC_FORMAT_CAPABILITY, "!4294967295", true},
        {FC_FORMAT_CAPABILITY, "4294967296", false},
        {FC_FORMAT_CAPABILITY, "!!1", false},
        {FC_FORMAT_CAPABILITY, "!", false},
        {FC_FORMAT_ID, "a_1", true},
        {FC_FORMAT_ID, "a-1", false},
        {FC_FORMAT_ID, "\xc3\xa9", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        if ((fc_format_check(cases[i].format, cases[i].text) == NULL) != cases[i].good)
            fail_msg("%s", cases[i].text);
    }
}

static void a_long_wrong_value_is_cut_short_in_the_error(void **state)
{
    (void)state;
    assert_int_equal(check_text(NEWEST, "PATCH", "/balloon",
                                "{\"amount_mib\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}"),
                     -EINVAL);
    assert_true(strlen(err_text()) < 150);
    assert_non_null(strstr(err_text(), "aaa..."));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_of_every_endpoint_are_let_through),
        cmocka_unit_test(a_value_of_the_wrong_type_is_refused),
        cmocka_unit_test(a_value_outside_of_its_limits_is_refused),
        cmocka_unit_test(what_is_required_must_be_there_and_nothing_else),
        cmocka_unit_test(an_unknown_field_is_refused_wherever_it_is),
        cmocka_unit_test(a_field_that_the_version_does_not_know_is_refused),
        cmocka_unit_test(an_endpoint_that_the_version_does_not_know_is_refused),
        cmocka_unit_test(newer_fields_are_refused_with_the_version_that_brought_them),
        cmocka_unit_test(limits_are_those_of_firecracker),
        cmocka_unit_test(what_must_hold_between_fields_is_looked_at),
        cmocka_unit_test(texts_with_a_form_have_it),
        cmocka_unit_test(a_long_wrong_value_is_cut_short_in_the_error),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
