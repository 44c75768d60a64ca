/* SPDX-License-Identifier: Apache-2.0 */

/* test_fc_model.c - Firecracker's interface: the table, its structs as JSON and back, and the names in it */

#include "testing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "fc_samples.h"
#include "vmm/fc_json.h"

#define ROUNDS 200

static const struct fc_model *const models[] = {
#define FC_MODEL_BEGIN(model, meaning) &fc_model_##model,
#include "vmm/fc_schema.def"
};

/* ---- there and back ------------------------------------------------------------------------------------------- */

static void goes_through(const struct fc_model *model, json_t *in)
{
    void *s = calloc(1, model->bytes + 1);
    json_t *out = NULL;

    assert_non_null(s);
    if (fc_decode(model, in, model->name, s) < 0)
        fail_msg("%s: %s", model->name, err_text());
    if (fc_encode(model, s, &out) < 0)
        fail_msg("%s: %s", model->name, err_text());
    if (!json_equal(in, out))
        fail_msg("%s: %s became %s", model->name, json_dumps(in, JSON_COMPACT),
                 json_dumps(out, JSON_COMPACT));
    json_decref(out);
    fc_model_clear(model, s);
    for (size_t i = 0; i < model->bytes; i++)
        assert_int_equal(((const char *)s)[i], 0);
    free(s);
}

static void every_model_goes_through_its_struct_and_back(void **state)
{
    struct rng rng = rng_init("models there and back");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        json_t *full = fc_sample(models[i], true);
        json_t *little = fc_sample(models[i], false);

        goes_through(models[i], full);
        goes_through(models[i], little);
        json_decref(full);
        json_decref(little);
        for (int n = 0; n < ROUNDS; n++) {
            json_t *in = fc_sample_random(models[i], &rng);

            goes_through(models[i], in);
            json_decref(in);
        }
    }
}

static void what_is_not_set_is_not_sent(void **state)
{
    struct fc_balloon balloon = {
        .amount_mib = 64,
        .deflate_on_oom = true,
        .has_free_page_reporting = true,
        .free_page_reporting = true,
    };
    json_t *json = NULL;
    char *text;

    (void)state;
    assert_int_equal(fc_encode(&fc_model_balloon, &balloon, &json), 0);
    text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(text,
                        "{\"amount_mib\":64,\"deflate_on_oom\":true,\"free_page_reporting\":true}");
    free(text);
    json_decref(json);
}

static void structs_in_structs_are_sent(void **state)
{
    const struct fc_network_override overrides[] = {
        {.iface_id = "eth0", .host_dev_name = "tap7"},
        {.iface_id = "eth1", .host_dev_name = "tap8"},
    };
    struct fc_snapshot_load load = {
        .snapshot_path = "vmstate",
        .has_mem_backend = true,
        .mem_backend = {.backend_type = FC_BACKEND_TYPE_UFFD, .backend_path = "uffd.sock"},
        .has_resume_vm = true,
        .resume_vm = false,
        .network_overrides = overrides,
        .n_network_overrides = 2,
    };
    json_t *json = NULL;
    char *text;

    (void)state;
    assert_int_equal(fc_encode(&fc_model_snapshot_load, &load, &json), 0);
    text = json_dumps(json, JSON_COMPACT);
    assert_string_equal(text,
                        "{\"snapshot_path\":\"vmstate\",\"mem_backend\":{\"backend_type\":\"Uffd\","
                        "\"backend_path\":\"uffd.sock\"},\"resume_vm\":false,"
                        "\"network_overrides\":[{\"iface_id\":\"eth0\",\"host_dev_name\":\"tap7\"},"
                        "{\"iface_id\":\"eth1\",\"host_dev_name\":\"tap8\"}]}");
    free(text);
    json_decref(json);
}

static void a_struct_with_a_number_or_text_that_json_has_not_is_refused(void **state)
{
    struct fc_machine_config config = {.vcpu_count = 1, .mem_size_mib = UINT64_MAX};
    struct fc_boot_source boot = {.kernel_image_path = "\xff"};
    struct fc_vm vm = {.state = (enum fc_vm_state)99};
    json_t *json = NULL;

    (void)state;
    assert_int_equal(fc_encode(&fc_model_machine_config, &config, &json), -EINVAL);
    assert_non_null(strstr(err_text(), "mem_size_mib"));
    assert_int_equal(fc_encode(&fc_model_boot_source, &boot, &json), -EINVAL);
    assert_non_null(strstr(err_text(), "kernel_image_path"));
    assert_int_equal(fc_encode(&fc_model_vm, &vm, &json), -EINVAL);
    assert_non_null(strstr(err_text(), "state"));
    assert_null(json);
}

/* ---- reading answers ------------------------------------------------------------------------------------------ */

static int read_text(const struct fc_model *model, const char *text, void *out)
{
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
    int r;

    assert_non_null(json);
    r = fc_decode(model, json, "the answer", out);
    json_decref(json);
    return r;
}

static void an_answer_may_say_more_or_null(void **state)
{
    struct fc_hinting_status status;
    struct fc_machine_config config;

    (void)state;
    assert_int_equal(read_text(&fc_model_hinting_status,
                               "{\"host_cmd\": 2, \"guest_cmd\": null, \"news\": [1]}", &status),
                     0);
    assert_int_equal(status.host_cmd, 2);
    assert_false(status.has_guest_cmd);
    assert_int_equal(read_text(&fc_model_machine_config,
                               "{\"vcpu_count\": 2, \"mem_size_mib\": 128, \"huge_pages\": \"1G\"}",
                               &config),
                     0);
    assert_false(config.has_huge_pages);
}

static void an_answer_of_the_wrong_shape_is_refused_in_one_line(void **state)
{
    static const struct {
        const struct fc_model *model;
        const char *text;
        const char *expected;
    } cases[] = {
        {&fc_model_balloon, "[]", "the answer: expected an object"},
        {&fc_model_balloon, "{\"deflate_on_oom\": true}",
         "the answer: amount_mib: expected this field"},
        {&fc_model_balloon, "{\"amount_mib\": -1, \"deflate_on_oom\": true}",
         "the answer: amount_mib: expected a whole number that is not negative"},
        {&fc_model_balloon, "{\"amount_mib\": 1, \"deflate_on_oom\": 1}",
         "the answer: deflate_on_oom: expected true or false"},
        {&fc_model_instance,
         "{\"app_name\": \"F\", \"id\": \"i\", \"state\": \"Asleep\", \"vmm_version\": \"1\"}",
         "the answer: state: expected a value that is known"},
        {&fc_model_vm_config, "{\"drives\": [{\"drive_id\": \"a\", \"is_root_device\": 1}]}",
         "the answer: drives[0].is_root_device: expected true or false"},
        {&fc_model_vm_config, "{\"mmds-config\": {\"network_interfaces\": [\"a\", 1]}}",
         "the answer: mmds-config.network_interfaces[1]: expected a text"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char room[1024];

        assert_true(cases[i].model->bytes <= sizeof(room));
        assert_int_equal(read_text(cases[i].model, cases[i].text, room), -EPROTO);
        assert_string_equal(err_text(), cases[i].expected);
    }
}

/* ---- the table ------------------------------------------------------------------------------------------------ */

static void an_endpoint_is_found_by_method_and_path(void **state)
{
    const struct fc_endpoint *e;
    char *id = NULL;

    (void)state;
    assert_int_equal(fc_endpoint_find("PUT", "/drives/rootfs", &e, &id), 0);
    assert_int_equal(e->id, FC_PUT_DRIVE);
    assert_string_equal(id, "rootfs");
    free(id);
    assert_int_equal(fc_endpoint_find("GET", "/", &e, &id), 0);
    assert_int_equal(e->id, FC_GET_INSTANCE);
    assert_null(id);
    assert_int_equal(fc_endpoint_find("PATCH", "/balloon/hinting/start", &e, &id), 0);
    assert_int_equal(e->id, FC_START_HINTING);
    for (size_t i = 0; i < FC_N_ENDPOINTS; i++)
        assert_int_equal(fc_endpoints[i].id, i);
}

static void a_path_that_is_not_there_is_refused_in_one_line(void **state)
{
    static const char *const cases[][3] = {
        {"GET", "/balloons", "GET /balloons: Firecracker has no such path"},
        {"get", "/balloon", "get /balloon: expected one of the methods GET, PUT, PATCH"},
        {"POST", "/balloon/hinting/start",
         "POST /balloon/hinting/start: expected one of the methods PATCH"},
        {"GET", "/drives/rootfs",
         "GET /drives/rootfs: expected one of the methods PUT, PATCH, DELETE"},
        {"PUT", "/drives/", "PUT /drives/: the name at its end: expected letters, digits and _"},
        {"PUT", "/drives/root-fs",
         "PUT /drives/root-fs: the name at its end: expected letters, digits and _"},
        {"PUT", "/drives/a/b", "PUT /drives/a/b: Firecracker has no such path"},
        {"PUT", "", "PUT : Firecracker has no such path"},
    };
    const struct fc_endpoint *e;
    char *id = NULL;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(fc_endpoint_find(cases[i][0], cases[i][1], &e, &id), -EINVAL);
        assert_string_equal(err_text(), cases[i][2]);
    }
}

static void the_table_agrees_with_itself(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        for (size_t k = 0; k < models[i]->n_fields; k++) {
            const struct fc_field *f = &models[i]->fields[k];

            assert_ptr_equal(fc_field_find(models[i], f->name), f);
            assert_true(f->min <= f->max || f->kind == FC_KIND_STRS || f->kind == FC_KIND_LIST);
            assert_true(f->meaning[0] != '\0');
            (void)fc_version(f->since);
            if (f->kind == FC_KIND_ENUM && f->dflt[0] != '\0')
                assert_true(fc_value_find(f->choices, f->dflt) >= 0);
            if (f->kind == FC_KIND_BOOL && f->dflt[0] != '\0')
                assert_true(strcmp(f->dflt, "true") == 0 || strcmp(f->dflt, "false") == 0);
        }
        for (size_t k = 0; k < models[i]->n_rules; k++) {
            const struct fc_rule *rule = &models[i]->rules[k];

            assert_true(rule->a[0] == '\0' || fc_field_find(models[i], rule->a));
            assert_true(rule->b[0] == '\0' || fc_field_find(models[i], rule->b));
        }
    }
    for (size_t i = 0; i < FC_N_ENDPOINTS; i++) {
        const struct fc_endpoint *e = &fc_endpoints[i];

        assert_true((e->body == FC_BODY_NO) == (e->request == &fc_model_none));
        assert_true(e->body == FC_BODY_NO || e->method == FC_METHOD_PUT ||
                    e->method == FC_METHOD_PATCH);
        assert_true((e->method == FC_METHOD_GET) == (e->answer != &fc_model_none));
    }
}

static void a_version_has_what_it_or_its_branch_brought(void **state)
{
    static const struct {
        const char *since;
        const char *version;
        bool has;
    } cases[] = {
        {"1.14.0", "1.13.9", false},
        {"1.14.0", "1.14.0", true},
        {"1.14.0", "v1.14-0.2.0", true},
        {"1.14.0", "1.14.1", true},
        {"1.14.0", "1.20.0", true},
        {"1.14.0", "2.0.0", true},
        {"1.17.0", "1.16.1", false},
        {"1.17.0", "1.17.0-dev", true},
        {"1.14.4 1.15.1 1.16.0", "1.14.3", false},
        {"1.14.4 1.15.1 1.16.0", "1.14.4", true},
        {"1.14.4 1.15.1 1.16.0", "1.14.9", true},
        {"1.14.4 1.15.1 1.16.0", "1.15.0", false},
        {"1.14.4 1.15.1 1.16.0", "1.15.1", true},
        {"1.14.4 1.15.1 1.16.0", "1.16.0", true},
        {"1.14.4 1.15.1 1.16.0", "1.13.9", false},
        {"1.14.4 1.15.1 1.16.0", "3.0.0", true},
    };
    char text[64];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct thaw_version v = fc_version(cases[i].version);

        if (fc_since_has(cases[i].since, &v) != cases[i].has)
            fail_msg("%s in %s", cases[i].since, cases[i].version);
    }
    assert_string_equal(fc_since_text("1.14.0", text, sizeof(text)), "1.14.0");
    assert_string_equal(fc_since_text("1.14.4 1.15.1 1.16.0", text, sizeof(text)),
                        "1.14.4, 1.15.1 or 1.16.0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_model_goes_through_its_struct_and_back),
        cmocka_unit_test(what_is_not_set_is_not_sent),
        cmocka_unit_test(structs_in_structs_are_sent),
        cmocka_unit_test(a_struct_with_a_number_or_text_that_json_has_not_is_refused),
        cmocka_unit_test(an_answer_may_say_more_or_null),
        cmocka_unit_test(an_answer_of_the_wrong_shape_is_refused_in_one_line),
        cmocka_unit_test(an_endpoint_is_found_by_method_and_path),
        cmocka_unit_test(a_path_that_is_not_there_is_refused_in_one_line),
        cmocka_unit_test(the_table_agrees_with_itself),
        cmocka_unit_test(a_version_has_what_it_or_its_branch_brought),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
