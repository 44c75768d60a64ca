/* SPDX-License-Identifier: Apache-2.0 */
/* test_store.c - names, ids, and files that get their places in a store */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/err.h"
#include "base/fd.h"
#include "image/store_private.h"

static char folder[64];
static char path[128];
static struct store *store;
static int fsync_errno; /* what fsync() fails with, through the linker's --wrap; 0: it works */

int __real_fsync(int fd); /* NOLINT: the linker's names */
int __wrap_fsync(int fd); /* NOLINT */

int __wrap_fsync(int fd) /* NOLINT */
{
    if (fsync_errno == 0)
        return __real_fsync(fd);
    errno = fsync_errno;
    return -1;
}

static int make_store(void **state)
{
    (void)state;
    fsync_errno = 0;
    (void)snprintf(folder, sizeof(folder), "%s", "/tmp/thaw-test-store.XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    (void)snprintf(path, sizeof(path), "%s/store", folder);
    return store_open(&store, path, true);
}

static int drop_entry(void *ctx, const char *entry)
{
    return unlinkat(store->folders[*(const enum store_folder *)ctx], entry, 0);
}

static int remove_store(void **state)
{
    (void)state;
    fsync_errno = 0;
    for (enum store_folder f = STORE_NAMES; f < N_STORE_FOLDERS; f++) {
        char part[192];

        (void)store_each(store, f, drop_entry, &f);
        (void)snprintf(part, sizeof(part), "%s/%s", path, store_folder_name(f));
        (void)rmdir(part);
    }
    store = store_close(store);
    (void)strcat(path, "/lock");
    (void)unlink(path);
    path[strlen(path) - strlen("/lock")] = '\0';
    (void)rmdir(path);
    return rmdir(folder); /* fails the test when something was left behind */
}

static int count_entry(void *ctx, const char *entry)
{
    (void)entry;
    ++*(unsigned *)ctx;
    return 0;
}

static unsigned count(enum store_folder f)
{
    unsigned n = 0;

    assert_int_equal(store_each(store, f, count_entry, &n), 0);
    return n;
}

/* put_empty() - the manifest of an image of @pages zero pages. Return: the fd that holds its lock */
static int put_empty(uint64_t pages, uint8_t id[IMAGE_ID_BYTES])
{
    struct manifest *m = NULL;
    int fd = -1;

    assert_int_equal(manifest_new(&m, pages * IMAGE_PAGE), 0);
    assert_int_equal(store_put_manifest(store, m, &fd), 0);
    memcpy(id, m->id, IMAGE_ID_BYTES);
    (void)manifest_free(m);
    return fd;
}

static void a_name_is_what_cannot_lead_out_of_the_store(void **state)
{
    static const char *const good[] = {"a", "A.b_c-d9", "0", "a..", "_"};
    static const char *const bad[] = {"", ".", "..", ".a", "-a", "a/b", "a b", "a\n", "\xc3\xa9"};
    char longest[STORE_NAME_MAX + 2];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_int_equal(store_check_name(good[i]), 0);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(store_check_name(bad[i]), -EINVAL);
    memset(longest, 'x', sizeof(longest));
    longest[STORE_NAME_MAX + 1] = '\0';
    assert_int_equal(store_check_name(longest), -EINVAL);
    longest[STORE_NAME_MAX] = '\0';
    assert_int_equal(store_check_name(longest), 0);
}

static void an_id_is_64_digits_in_lower_case(void **state)
{
    uint8_t id[IMAGE_ID_BYTES];
    uint8_t read[IMAGE_ID_BYTES];
    char text[IMAGE_ID_TEXT];

    (void)state;
    for (unsigned i = 0; i < IMAGE_ID_BYTES; i++)
        id[i] = (uint8_t)(i * 37);
    assert_true(store_id_parse(image_id_text(id, text), read));
    assert_memory_equal(id, read, sizeof(id));
    text[63] = 'G';
    assert_false(store_id_parse(text, read));
    text[63] = 'A';
    assert_false(store_id_parse(text, read));
    text[63] = '\0';
    assert_false(store_id_parse(text, read));
}

static void a_file_that_is_not_put_anywhere_goes_away(void **state)
{
    struct store_file f;

    (void)state;
    assert_int_equal(store_file_init(&f, store), 0);
    assert_int_equal(count(STORE_TMP), 1);
    store_file_deinit(&f);
    store_file_deinit(&f);
    assert_int_equal(count(STORE_TMP), 0);
}

static void a_pack_that_is_there_is_kept(void **state)
{
    static const uint8_t id[IMAGE_ID_BYTES] = {1};
    struct store_file f;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(store_file_init(&f, store), 0);
        assert_int_equal(fd_write_all(f.fd, "bytes", 5), 0);
        assert_int_equal(store_put_pack(&f, id, 5), 0);
        store_file_deinit(&f);
        assert_int_equal(count(STORE_PACKS), 1);
        assert_int_equal(count(STORE_TMP), 0);
    }
    assert_int_equal(store_file_init(&f, store), 0);
    assert_int_equal(store_put_pack(&f, id, 4), -EIO);
    assert_non_null(strstr(err_text(), "is damaged: it has 5 bytes, expected 4"));
    store_file_deinit(&f);
}

static void what_cannot_be_synced_gets_no_place(void **state)
{
    static const uint8_t id[IMAGE_ID_BYTES] = {1};
    struct manifest *m = NULL;
    struct store_file f;
    int fd = -1;

    (void)state;
    assert_int_equal(manifest_new(&m, IMAGE_PAGE), 0);
    assert_int_equal(store_file_init(&f, store), 0);
    fsync_errno = EIO;
    assert_int_equal(store_put_pack(&f, id, 0), -EIO);
    assert_int_equal(store_put_manifest(store, m, &fd), -EIO);
    assert_int_equal(store_put_name(store, "one", id, true), -EIO);
    assert_int_equal(fd, -1);
    store_file_deinit(&f);
    (void)manifest_free(m);
    assert_int_equal(count(STORE_NAMES) + count(STORE_MANIFESTS) + count(STORE_PACKS), 0);
    assert_int_equal(count(STORE_TMP), 0);
}

static void a_new_manifest_is_locked_until_its_maker_lets_go(void **state)
{
    uint8_t id[IMAGE_ID_BYTES];
    char text[IMAGE_ID_TEXT];
    int held = put_empty(3, id);
    int other;

    (void)state;
    other = openat(store->folders[STORE_MANIFESTS], image_id_text(id, text), O_RDONLY | O_CLOEXEC);
    assert_true(other >= 0);
    assert_int_equal(store_flock(other, LOCK_EX | LOCK_NB), -EWOULDBLOCK);
    held = fd_close(held);
    assert_int_equal(store_flock(other, LOCK_EX | LOCK_NB), 0);
    (void)fd_close(other);
}

static void a_manifest_that_is_there_is_locked_and_kept(void **state)
{
    uint8_t first[IMAGE_ID_BYTES];
    uint8_t second[IMAGE_ID_BYTES];
    int one = put_empty(3, first);
    int two = put_empty(3, second);
    struct stat st_one;
    struct stat st_two;

    (void)state;
    assert_memory_equal(first, second, sizeof(first));
    assert_int_equal(fstat(one, &st_one), 0);
    assert_int_equal(fstat(two, &st_two), 0);
    assert_int_equal(st_one.st_ino, st_two.st_ino);
    assert_int_equal(count(STORE_MANIFESTS), 1);
    assert_int_equal(count(STORE_TMP), 0);
    (void)fd_close(one);
    (void)fd_close(two);
}

static void a_name_that_is_there_is_replaced_only_when_that_is_wanted(void **state)
{
    uint8_t first[IMAGE_ID_BYTES];
    uint8_t second[IMAGE_ID_BYTES];
    uint8_t found[IMAGE_ID_BYTES];
    int one = put_empty(3, first);
    int two = put_empty(4, second);

    (void)state;
    assert_int_equal(store_put_name(store, "one", first, false), 0);
    assert_int_equal(store_put_name(store, "one", second, false), -EEXIST);
    assert_int_equal(store_find_name(store, "one", found), 0);
    assert_memory_equal(found, first, sizeof(found));
    assert_int_equal(store_put_name(store, "one", second, true), 0);
    assert_int_equal(store_find_name(store, "one", found), 0);
    assert_memory_equal(found, second, sizeof(found));
    assert_int_equal(count(STORE_TMP), 0);
    (void)fd_close(one);
    (void)fd_close(two);
}

static void a_pack_that_is_made_keeps_gc_away_and_the_other_way_round(void **state)
{
    struct store_freed freed;
    struct store *other = NULL;

    (void)state;
    assert_int_equal(store_open(&other, path, false), 0);
    assert_int_equal(store_hold(other), 0);
    assert_int_equal(store_gc(store, false, &freed), -EBUSY);
    other = store_close(other);
    assert_int_equal(store_gc(store, false, &freed), 0);
    assert_int_equal(store_hold(store), 0);
}

static void a_name_can_go_before_its_image_which_stays_as_long_as_it_is_in_use(void **state)
{
    struct store_freed freed;
    uint8_t id[IMAGE_ID_BYTES];
    int held = put_empty(3, id);

    (void)state;
    assert_int_equal(store_put_name(store, "one", id, false), 0);
    assert_int_equal(store_forget_name(store, "one"), 0);
    assert_int_equal(count(STORE_NAMES), 0);
    assert_int_equal(store_gc(store, false, &freed), 0);
    assert_int_equal(count(STORE_MANIFESTS), 1);
    held = fd_close(held);
    assert_int_equal(store_gc(store, false, &freed), 0);
    assert_int_equal(count(STORE_MANIFESTS), 0);
    assert_int_equal(store_forget_name(store, "one"), 0);
    assert_int_equal(store_forget_name(store, "../one"), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_is_what_cannot_lead_out_of_the_store),
        cmocka_unit_test(an_id_is_64_digits_in_lower_case),
        cmocka_unit_test_setup_teardown(a_file_that_is_not_put_anywhere_goes_away, make_store,
                                        remove_store),
        cmocka_unit_test_setup_teardown(a_pack_that_is_there_is_kept, make_store, remove_store),
        cmocka_unit_test_setup_teardown(what_cannot_be_synced_gets_no_place, make_store,
                                        remove_store),
        cmocka_unit_test_setup_teardown(a_new_manifest_is_locked_until_its_maker_lets_go,
                                        make_store, remove_store),
        cmocka_unit_test_setup_teardown(a_manifest_that_is_there_is_locked_and_kept, make_store,
                                        remove_store),
        cmocka_unit_test_setup_teardown(a_name_that_is_there_is_replaced_only_when_that_is_wanted,
                                        make_store, remove_store),
        cmocka_unit_test_setup_teardown(a_pack_that_is_made_keeps_gc_away_and_the_other_way_round,
                                        make_store, remove_store),
        cmocka_unit_test_setup_teardown(
            a_name_can_go_before_its_image_which_stays_as_long_as_it_is_in_use, make_store,
            remove_store),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
