/* SPDX-License-Identifier: Apache-2.0 */
/* What sandbox.json says, and what it may not say. */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/fd.h"
#include "node/sandbox_record.h"
#include "node/tree.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static char folder[64];

static int make(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/thaw-sandbox-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int unmake(void **state)
{
    (void)state;
    return tree_remove(folder);
}

static struct sandbox_record a_record(void)
{
    return (struct sandbox_record){
        .name = strdup("web-1"),
        .template_name = strdup("web"),
        .state = SANDBOX_STARTING,
        .generation = 7,
        .image = strdup(ID),
        .base = strdup(ID),
        .created_ms = 1700000000000,
        .changed_ms = 1700000000001,
    };
}

static void write_text(const char *text)
{
    char path[PATH_MAX];

    assert_int_equal(tree_path(path, sizeof(path), folder, SANDBOX_RECORD), 0);
    assert_int_equal(file_replace(path, text, strlen(text)), 0);
}

/* what_is_wrong() - with a record of this text, whose members are in place of ... */
static const char *what_is_wrong(const char *members)
{
    struct sandbox_record r;
    char text[2048];

    (void)snprintf(text, sizeof(text), "{\"kind\": \"sandbox\", \"version\": 1, %s}", members);
    write_text(text);
    assert_int_equal(sandbox_record_read(&r, folder, "web-1"), -EINVAL);
    return err_text();
}

#define REST                                                           \
    "\"template\": \"web\", \"generation\": 0, \"base\": \"" ID "\", " \
    "\"created_ms\": 1, \"changed_ms\": 1, \"boot_id\": \"x\""
#define GOOD "\"name\": \"web-1\", \"state\": \"paused\", \"image\": \"" ID "\", " REST

static void what_is_written_is_read(void **state)
{
    struct sandbox_record in = a_record();
    struct sandbox_record out;
    bool of_this_boot = false;

    (void)state;
    assert_int_equal(sandbox_record_write(&in, folder), 0);
    assert_int_equal(sandbox_record_read(&out, folder, "web-1"), 0);
    assert_string_equal(out.name, in.name);
    assert_string_equal(out.template_name, "web");
    assert_null(out.forked_from);
    assert_int_equal(out.state, SANDBOX_STARTING);
    assert_int_equal(out.generation, 7);
    assert_string_equal(out.image, ID);
    assert_int_equal(out.created_ms, 1700000000000);
    assert_null(out.end);
    assert_int_equal(sandbox_record_is_of_this_boot(&out, &of_this_boot), 0);
    assert_true(of_this_boot);
    sandbox_record_deinit(&in);
    sandbox_record_deinit(&out);
}

static void a_record_of_another_boot_knows_no_process(void **state)
{
    struct sandbox_record r;
    bool of_this_boot = true;

    (void)state;
    write_text("{\"kind\": \"sandbox\", \"version\": 1, " GOOD "}");
    assert_int_equal(sandbox_record_read(&r, folder, "web-1"), 0);
    assert_int_equal(sandbox_record_is_of_this_boot(&r, &of_this_boot), 0);
    assert_false(of_this_boot);
    sandbox_record_deinit(&r);
}

static void a_record_that_is_not_there_is_no_broken_one(void **state)
{
    struct sandbox_record r;

    (void)state;
    assert_int_equal(sandbox_record_read(&r, folder, "web-1"), -ENOENT);
}

static void a_broken_record_is_refused_in_one_line_that_names_the_member(void **state)
{
    (void)state;
    assert_non_null(strstr(
        what_is_wrong("\"name\": \"web-1\", \"state\": \"frozen\", \"image\": \"" ID "\", " REST),
        "frozen"));
    assert_non_null(strstr(
        what_is_wrong("\"name\": \"web-2\", \"state\": \"paused\", \"image\": \"" ID "\", " REST),
        "name is web-2, expected web-1"));
    assert_non_null(strstr(
        what_is_wrong("\"name\": \"web-1\", \"state\": \"paused\", \"image\": \"../x\", " REST),
        "image is ../x"));
    assert_non_null(strstr(what_is_wrong(GOOD ", \"state_dir\": \"tmp\""), "state_dir"));
    assert_non_null(strstr(what_is_wrong(GOOD ", \"pid\": 1"), "pid"));
    assert_non_null(strstr(what_is_wrong("\"name\": \"web-1\", " REST), "state"));
    write_text("{");
    assert_int_equal(sandbox_record_read(&(struct sandbox_record){0}, folder, "web-1"), -EINVAL);
}

static void a_jail_is_kept(void **state)
{
    struct sandbox_record in = a_record();
    struct sandbox_record out;
    char netns[64];

    (void)state;
    assert_int_equal(sandbox_jail_set_user(&in.jail, "70000:8"), 0);
    assert_int_equal(sandbox_jail_set_netns(&in.jail, "/net/{name}/{name}"), 0);
    assert_int_equal(sandbox_jail_add_cgroup(&in.jail, "memory.max=1000"), 0);
    assert_int_equal(sandbox_jail_add_cgroup(&in.jail, "cpu.max=50000 100000"), 0);
    assert_int_equal(sandbox_jail_set_jailer(&in.jail, "bin/jailer"), 0);
    assert_int_equal(sandbox_jail_set_id(&in.jail, "web_1"), 0);
    assert_int_equal(sandbox_record_write(&in, folder), 0);
    assert_int_equal(sandbox_record_read(&out, folder, "web-1"), 0);
    assert_true(out.jail.given);
    assert_int_equal(out.jail.uid, 70000);
    assert_int_equal(out.jail.gid, 8);
    assert_int_equal(out.jail.cgroups.n, 2);
    assert_string_equal(out.jail.cgroups.texts[1], "cpu.max=50000 100000");
    assert_int_equal(out.jail.jailer[0], '/');
    assert_string_equal(out.jail.id, in.jail.id);
    assert_int_equal(strncmp(out.jail.id, "web-1-", 6), 0);
    assert_int_equal(sandbox_jail_netns(&out.jail, "web-1", netns, sizeof(netns)), 0);
    assert_string_equal(netns, "/net/web-1/web-1");
    assert_int_equal(sandbox_jail_netns(&out.jail, "web-1", netns, 16), -ENAMETOOLONG);
    assert_int_equal(sandbox_jail_netns(&out.jail, "web-1", netns, 17), 0);
    sandbox_record_deinit(&in);
    sandbox_record_deinit(&out);
    assert_non_null(strstr(what_is_wrong(GOOD ", \"jail\": {\"id\": \"x\", \"uid\": 0, \"gid\": 1, "
                                              "\"cgroup_version\": 0}"),
                           "jail.uid is 0"));
}

static void a_jail_has_an_id_that_the_jailer_takes(void **state)
{
    struct sandbox_jail jail = {0};
    char name[SANDBOX_NAME_MAX + 1];
    char *before;

    (void)state;
    memset(name, '_', SANDBOX_NAME_MAX);
    name[SANDBOX_NAME_MAX] = '\0';
    assert_int_equal(sandbox_jail_set_id(&jail, name), 0);
    assert_int_equal(strlen(jail.id), SANDBOX_JAIL_ID_MAX);
    assert_int_equal(strspn(jail.id, "-0123456789abcdef"), SANDBOX_JAIL_ID_MAX);
    before = strdup(jail.id);
    assert_int_equal(sandbox_jail_set_id(&jail, name), 0);
    assert_string_not_equal(jail.id, before); /* another store may have a sandbox of that name */
    free(before);
    sandbox_jail_deinit(&jail);
}

static void a_jail_is_not_roots_and_its_cgroups_are_settings(void **state)
{
    static const char *const users[] = {"",   "0",  "1:0",   "-1", "4294967295",          "x",
                                        "1:", ":1", "1:2:3", "1 ", "99999999999999999999"};
    static const char *const settings[] = {
        "",       "memory.max",     "=1",      "memory.max=", "a/b.c=1", "..=1",
        "x..y=1", "memory.max=1=2", "memory=1"};
    struct sandbox_jail jail = {0};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(users); i++)
        assert_int_equal(sandbox_jail_set_user(&jail, users[i]), -EINVAL);
    for (unsigned i = 0; i < ARRAY_LEN(settings); i++)
        assert_int_equal(sandbox_jail_add_cgroup(&jail, settings[i]), -EINVAL);
    assert_int_equal(sandbox_jail_set_netns(&jail, "net"), -EINVAL);
    assert_false(jail.given);
    for (unsigned i = 0; i < SANDBOX_JAIL_CGROUPS_MAX; i++)
        assert_int_equal(sandbox_jail_add_cgroup(&jail, "pids.max=1"), 0);
    assert_int_equal(sandbox_jail_add_cgroup(&jail, "pids.max=1"), -EINVAL);
    sandbox_jail_deinit(&jail);
}

static void only_some_steps_lead_from_one_state_to_another(void **state)
{
    struct sandbox_record r = a_record();

    (void)state;
    assert_false(sandbox_record_may_step(SANDBOX_PAUSED, SANDBOX_RUNNING));
    assert_false(sandbox_record_may_step(SANDBOX_DEAD, SANDBOX_RUNNING));
    assert_false(sandbox_record_may_step(SANDBOX_RESUMING, SANDBOX_PAUSING));
    assert_false(sandbox_record_may_step(SANDBOX_RUNNING, SANDBOX_PAUSED));
    sandbox_record_step(&r, SANDBOX_RUNNING);
    sandbox_record_step(&r, SANDBOX_DEAD);
    assert_int_equal(sandbox_record_set_text(&r.end, "killed"), 0);
    sandbox_record_step(&r, SANDBOX_RESUMING);
    assert_null(r.end);
    assert_true(r.changed_ms > 1700000000001);
    sandbox_record_deinit(&r);
}

static void what_somebody_is_at_can_be_told_from_what_is_done(void **state)
{
    (void)state;
    for (unsigned s = 0; s < N_SANDBOX_STATES; s++) {
        const char *name = sandbox_state_name(s);
        size_t len = strlen(name);
        bool busy = strcmp(name + len - 3, "ing") == 0 && s != SANDBOX_RUNNING;

        assert_int_equal(sandbox_state_is_busy(s), busy);
    }
}

static void names_are_such_that_they_are_good_for_folders_and_images(void **state)
{
    static const char *const good[] = {"a", "web-1", "A_b", "0"};
    static const char *const bad[] = {"", "-a", "a.b", "a/b", "..", "a b", "\xc3\xa4", "_a"};
    char name[SANDBOX_NAME_MAX + 2];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_int_equal(sandbox_name_check(good[i]), 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(sandbox_name_check(bad[i]), -EINVAL);
    memset(name, 'x', sizeof(name));
    name[SANDBOX_NAME_MAX + 1] = '\0';
    assert_int_equal(sandbox_name_check(name), -EINVAL);
    name[SANDBOX_NAME_MAX] = '\0';
    assert_int_equal(sandbox_name_check(name), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_written_is_read, make, unmake),
        cmocka_unit_test_setup_teardown(a_record_of_another_boot_knows_no_process, make, unmake),
        cmocka_unit_test_setup_teardown(a_record_that_is_not_there_is_no_broken_one, make, unmake),
        cmocka_unit_test_setup_teardown(
            a_broken_record_is_refused_in_one_line_that_names_the_member, make, unmake),
        cmocka_unit_test_setup_teardown(a_jail_is_kept, make, unmake),
        cmocka_unit_test(a_jail_has_an_id_that_the_jailer_takes),
        cmocka_unit_test(a_jail_is_not_roots_and_its_cgroups_are_settings),
        cmocka_unit_test(only_some_steps_lead_from_one_state_to_another),
        cmocka_unit_test(what_somebody_is_at_can_be_told_from_what_is_done),
        cmocka_unit_test(names_are_such_that_they_are_good_for_folders_and_images),
    };

    return cmocka_run_group_tests_name("sandbox_record", tests, NULL, NULL);
}
