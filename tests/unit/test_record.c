/* SPDX-License-Identifier: Apache-2.0 */
/* test_record.c - structs as JSON: what is written is read again, and nothing else is */
#include "testing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "node/record.h"

struct part {
    char *text;
};

struct extra {
    bool given;
    struct record_texts words;
};

struct thing {
    char *name;
    char *note;
    unsigned count;
    uint64_t bytes;
    bool on;
    unsigned colour;
    struct part part;
    struct extra extra;
};

static const char *const colours[] = {"red", "", "green", "blue", NULL};

static const struct record_field part_fields[] = {
    {.name = "text", .type = RECORD_TEXT, .offset = offsetof(struct part, text)},
    {.name = NULL},
};

static const struct record_field extra_fields[] = {
    {.name = "words",
     .type = RECORD_TEXTS,
     .offset = offsetof(struct extra, words),
     .max = 2,
     .optional = true},
    {.name = NULL},
};

#define AT(field) .offset = offsetof(struct thing, field)

static const struct record_field fields[] = {
    {.name = "name", .type = RECORD_TEXT, AT(name), .max = 8},
    {.name = "note", .type = RECORD_TEXT, AT(note), .optional = true},
    {.name = "count", .type = RECORD_NUMBER, AT(count), .min = 1, .max = 10},
    {.name = "bytes", .type = RECORD_LONG, AT(bytes), .max = INT64_MAX},
    {.name = "on", .type = RECORD_FLAG, AT(on)},
    {.name = "colour", .type = RECORD_WORD, AT(colour), .words = colours},
    {.name = "part", .type = RECORD_PART, AT(part), .fields = part_fields},
    {.name = "extra", .type = RECORD_PART, AT(extra), .fields = extra_fields, .optional = true},
    {.name = NULL},
};

static const struct record_form form = {.kind = "thing", .version = 3, .fields = fields};

#define HEAD "{\"kind\":\"thing\",\"version\":3,"
#define REST "\"bytes\":5,\"on\":true,\"colour\":\"blue\",\"part\":{\"text\":\"t\"}}"

/* parse() - Return: what record_parse() returns */
static int parse(const char *text)
{
    struct thing t = {0};
    int r = record_parse(&form, "it", text, strlen(text), &t);

    record_deinit(&form, &t);
    return r;
}

/* refused() - it is, and the text has @why */
static void refused(const char *text, const char *why)
{
    assert_int_equal(parse(text), -EINVAL);
    if (!strstr(err_text(), why))
        fail_msg("'%s' does not say '%s'", err_text(), why);
}

static void what_is_written_is_read_again(void **state)
{
    char path[] = "/tmp/thaw-test-record.XXXXXX";
    int fd = mkstemp(path);
    struct thing t = {.name = strdup("n\xc3\xa4me"),
                      .count = 7,
                      .bytes = 1ull << 40,
                      .on = true,
                      .colour = 2,
                      .part = {strdup("with \"quotes\"")}};
    struct thing back = {0};

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(record_write(&form, path, &t), 0);
    assert_int_equal(record_read(&form, path, &back), 0);
    assert_string_equal(back.name, t.name);
    assert_null(back.note);
    assert_int_equal(back.count, 7);
    assert_true(back.bytes == t.bytes);
    assert_true(back.on);
    assert_int_equal(back.colour, 2);
    assert_string_equal(back.part.text, t.part.text);
    record_deinit(&form, &t);
    record_deinit(&form, &back);
    assert_null(back.name);
    (void)close(fd);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(record_read(&form, path, &back), -ENOENT);
}

static void every_field_is_checked_and_the_error_names_it(void **state)
{
    (void)state;
    assert_int_equal(parse(HEAD "\"name\":\"n\",\"count\":1," REST), 0);
    refused(HEAD "\"count\":1," REST, "it: the field name is missing");
    refused(HEAD "\"name\":\"n\",\"count\":1,\"size\":1," REST, "it: there is no field size");
    refused(HEAD "\"name\":5,\"count\":1," REST, "name is 5, expected a string");
    refused(HEAD "\"name\":\"123456789\",\"count\":1," REST,
            "name has 9 bytes, expected 8 at most");
    refused(HEAD "\"name\":\"a\\nb\",\"count\":1," REST, "control character at byte 1");
    refused(HEAD "\"name\":\"n\",\"count\":11," REST,
            "count is 11, expected a number from 1 to 10");
    refused(HEAD "\"name\":\"n\",\"count\":0," REST, "count is 0, expected a number from 1 to 10");
    refused(HEAD "\"name\":\"n\",\"count\":-1," REST, "count is -1");
    refused(HEAD "\"name\":\"n\",\"count\":1.0," REST, "count is 1.0");
    refused(HEAD "\"name\":\"n\",\"count\":null," REST, "count is null");
    refused(HEAD "\"name\":\"n\",\"name\":\"n\",\"count\":1," REST, "duplicate");
    refused(HEAD "\"name\":\"n\",\"count\":1,\"bytes\":1,\"on\":1,\"colour\":\"red\","
                 "\"part\":{\"text\":\"t\"}}",
            "on is 1, expected true or false");
    refused(HEAD "\"name\":\"n\",\"count\":1,\"bytes\":1,\"on\":true,\"colour\":\"\","
                 "\"part\":{\"text\":\"t\"}}",
            "expected red, green or blue");
    refused(HEAD "\"name\":\"n\",\"count\":1,\"bytes\":1,\"on\":true,\"colour\":\"red\","
                 "\"part\":{\"text\":\"t\",\"more\":1}}",
            "there is no field part.more");
    refused(HEAD
            "\"name\":\"n\",\"count\":1,\"bytes\":1,\"on\":true,\"colour\":\"red\",\"part\":{}}",
            "the field part.text is missing");
    refused(HEAD
            "\"name\":\"n\",\"count\":1,\"bytes\":1,\"on\":true,\"colour\":\"red\",\"part\":[]}",
            "part is [], expected an object");
}

#define GOOD     HEAD "\"name\":\"n\",\"count\":1,"
#define GOOD_END "\"bytes\":5,\"on\":true,\"colour\":\"blue\",\"part\":{\"text\":\"t\"}"

static void a_part_and_a_list_may_be_there_or_not(void **state)
{
    static const char *const texts[] = {
        GOOD GOOD_END "}",
        GOOD GOOD_END ",\"extra\":{}}",
        GOOD GOOD_END ",\"extra\":{\"words\":[\"a b\",\"\"]}}",
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
        struct thing t = {0};
        char *text;
        json_t *json;

        assert_int_equal(record_parse(&form, "it", texts[i], strlen(texts[i]), &t), 0);
        assert_int_equal(t.extra.given, i > 0);
        assert_int_equal(t.extra.words.n, i == 2 ? 2 : 0);
        json = record_json(&form, &t);
        text = json_dumps(json, JSON_COMPACT);
        assert_string_equal(text, texts[i]);
        free(text);
        json_decref(json);
        record_deinit(&form, &t);
    }
    refused(GOOD GOOD_END ",\"extra\":{\"words\":[\"a\",\"b\",\"c\"]}}",
            "extra.words is [\"a\",\"b\",\"c\"], expected an array of up to 2 strings");
    refused(GOOD GOOD_END ",\"extra\":{\"words\":[1]}}", "expected an array of up to 2 strings");
    refused(GOOD GOOD_END ",\"extra\":{\"words\":[\"\\n\"]}}", "control character");
    refused(GOOD GOOD_END ",\"extra\":{\"more\":1}}", "there is no field extra.more");
    refused(GOOD GOOD_END ",\"extra\":null}", "expected an object");
}

static void what_is_no_record_of_this_kind_and_version_is_refused(void **state)
{
    (void)state;
    refused("{\"kind\":\"other\",\"version\":3}", "expected a record with \"kind\": \"thing\"");
    refused("{\"version\":3}", "expected a record with");
    refused("{\"kind\":\"thing\",\"version\":4}", "expected a thing of version 3");
    refused("{\"kind\":\"thing\"}", "expected a thing of version 3");
    refused("[]", "expected a JSON object");
    refused("", "it:1:0:");
    refused("{\n\"kind\": nothing}", "it:2:");
}

static void a_file_that_cannot_be_a_record_is_not_read(void **state)
{
    struct thing t = {0};

    (void)state;
    assert_int_equal(record_read(&form, "/dev/zero", &t), -EINVAL);
    assert_non_null(strstr(err_text(), "is not a regular file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(every_field_is_checked_and_the_error_names_it),
        cmocka_unit_test(a_part_and_a_list_may_be_there_or_not),
        cmocka_unit_test(what_is_no_record_of_this_kind_and_version_is_refused),
        cmocka_unit_test(a_file_that_cannot_be_a_record_is_not_read),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
