/* SPDX-License-Identifier: Apache-2.0 */
/* test_fc_socket.c - which file is taken for Firecracker's socket (vmm/fc_socket.c) */
#include "testing.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/err.h"
#include "fc_player.h"
#include "vmm/fc_client.h"

#define CALL_MS    5000u
#define NO_CONTENT "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: close\r\n\r\n"

/* ask() - with a client of its own. Return: as that has it */
static int ask(const char *path, bool no_links)
{
    static const struct fc_balloon_patch size = {.amount_mib = 7};
    static const struct thaw_version version = {1, 14, 1};
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;

    if (fc_client_new(&c, path, CALL_MS) < 0)
        fail_msg("%s", err_text());
    fc_client_assume(c, &version);
    if (no_links)
        fc_client_no_links(c);
    return fc_patch_balloon(c, NULL, &size, NULL, 0);
}

static void in_folder(bool deep)
{
    static const struct scene scenes[] = {
        {NO_CONTENT, PLAY_CLOSE}, {NO_CONTENT, PLAY_CLOSE}, {NO_CONTENT, PLAY_CLOSE}};
    struct player player;
    char link[sizeof(player.path) + 8];

    player_init(&player, deep);
    player_start(&player, scenes, ARRAY_LEN(scenes));
    (void)snprintf(link, sizeof(link), "%s.link", player.path);
    assert_int_equal(symlink(player.path, link), 0);
    assert_int_equal(ask(player.path, false), 0);
    assert_int_equal(ask(player.path, true), 0);
    if (!deep)
        assert_int_equal(ask(link, false), 0);
    assert_int_equal(ask(link, true), -ECONNREFUSED);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(ask(link, true), -ENOENT);
    player_stop(&player);
    assert_int_equal(player.n_requests, deep ? 2 : 3);
    player_deinit(&player);
}

static void a_link_in_the_socket_s_place_is_followed_unless_it_may_not_be(void **state)
{
    (void)state;
    in_folder(false);
}

static void the_same_where_the_folder_is_deeper_than_an_address_is_long(void **state)
{
    (void)state;
    in_folder(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_link_in_the_socket_s_place_is_followed_unless_it_may_not_be),
        cmocka_unit_test(the_same_where_the_folder_is_deeper_than_an_address_is_long),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("fc_socket", tests, NULL, NULL);
}
