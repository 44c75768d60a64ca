/* SPDX-License-Identifier: Apache-2.0 */

/* test_fc_client.c - what goes over the wire to Firecracker, and what is made of everything that may come back */

#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/err.h"
#include "base/fd.h"
#include "fc_player.h"
#include "vmm/fc_client.h"
#include "vmm/fc_json.h"

#define CALL_MS  5000u /* for what takes a moment */
#define SHORT_MS 150u  /* for what never comes */

/* As Firecracker's server writes: no reason phrase, but the space before it. */
#define HEAD(status)   "HTTP/1.1 " status " \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
#define NO_CONTENT     HEAD("204") "\r\n"
#define LENGTH(n)      "Content-Type: application/json\r\nContent-Length: " n "\r\n\r\n"
#define VERSION_ANSWER HEAD("200") LENGTH("*") "{\"firecracker_version\":\"1.14.1\"}"

static struct player player;

static int set_up(void **state)
{
    (void)state;
    player_init(&player, false);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    player_deinit(&player);
    return 0;
}

static struct fc_client *client_at(const char *path, const char *version)
{
    struct fc_client *c = NULL;
    struct thaw_version v;

    if (fc_client_new(&c, path, CALL_MS) < 0)
        fail_msg("%s", err_text());
    if (version) {
        assert_int_equal(thaw_version_parse(&v, version), 0);
        fc_client_assume(c, &v);
    }
    return c;
}

#define START(...)                                         \
    static const struct scene scenes[] = {__VA_ARGS__};    \
    _cleanup_(fc_client_freep) struct fc_client *c = NULL; \
    (void)state;                                           \
    player_start(&player, scenes, ARRAY_LEN(scenes));      \
    c = client_at(player.path, "1.14.1")

#define ALL_WELL(call)                  \
    do {                                \
        if ((call) != 0)                \
            fail_msg("%s", err_text()); \
    } while (0)

static const struct fc_balloon_patch size = {.amount_mib = 7};

/* ---- what is sent --------------------------------------------------------------------------------------------- */

static void a_request_has_its_length_and_type_and_asks_for_no_continue(void **state)
{
    START({NO_CONTENT, PLAY_KEEP});
    ALL_WELL(fc_patch_balloon(c, NULL, &size, NULL, 0));
    player_stop(&player);
    assert_string_equal(player.requests[0], "PATCH /balloon HTTP/1.1\r\n"
                                            "Host: localhost\r\n"
                                            "Accept: application/json\r\n"
                                            "Content-Type: application/json\r\n"
                                            "Content-Length: 16\r\n"
                                            "\r\n"
                                            "{\"amount_mib\":7}");
}

static void a_large_body_is_sent_without_asking_first(void **state)
{
    json_t *text = NULL;
    struct fc_mmds mmds = {.object = json_object()};
    char large[40001];

    START({NO_CONTENT, PLAY_KEEP});
    memset(large, 'x', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    text = json_string(large);
    (void)json_object_set_new(mmds.object, "large", text);
    ALL_WELL(fc_put_mmds(c, NULL, &mmds, NULL, 0));
    player_stop(&player);
    assert_null(strcasestr(player.requests[0], "expect"));
    assert_non_null(strstr(player.requests[0], "Content-Length: 40012\r\n"));
    json_decref(mmds.object);
}

static void a_patch_without_a_body_has_length_0_and_no_type(void **state)
{
    START({NO_CONTENT, PLAY_KEEP});
    ALL_WELL(fc_stop_hinting(c, NULL, NULL, NULL, 0));
    player_stop(&player);
    assert_string_equal(player.requests[0], "PATCH /balloon/hinting/stop HTTP/1.1\r\n"
                                            "Host: localhost\r\n"
                                            "Accept: application/json\r\n"
                                            "Content-Length: 0\r\n"
                                            "\r\n");
}

static void the_name_in_a_path_is_that_of_the_request(void **state)
{
    struct thaw_version v = {1, 16, 0};
    struct fc_drive_patch drive = {.drive_id = "data", .path_on_host = "disk"};

    START({NO_CONTENT, PLAY_KEEP}, {NO_CONTENT, PLAY_KEEP});
    fc_client_assume(c, &v);
    ALL_WELL(fc_patch_drive(c, NULL, &drive, NULL, 0));
    ALL_WELL(fc_delete_drive(c, "data", NULL, NULL, 0));
    player_stop(&player);
    assert_memory_equal(player.requests[0], "PATCH /drives/data HTTP/1.1\r\n", 29);
    assert_string_equal(player.requests[1], "DELETE /drives/data HTTP/1.1\r\n"
                                            "Host: localhost\r\n"
                                            "Accept: application/json\r\n"
                                            "\r\n");
}

static void the_environments_proxy_is_not_asked(void **state)
{
    START({NO_CONTENT, PLAY_KEEP});
    (void)setenv("http_proxy", "http://127.0.0.1:9", 1);
    (void)setenv("ALL_PROXY", "http://127.0.0.1:9", 1);
    ALL_WELL(fc_patch_balloon(c, NULL, &size, NULL, 0));
    (void)unsetenv("http_proxy");
    (void)unsetenv("ALL_PROXY");
}

static void what_is_refused_is_not_sent(void **state)
{
    struct fc_balloon_patch large = {.amount_mib = UINT64_C(1) << 32};
    struct fc_mmds mmds = {.object = json_pack("{s:s}", "text", "not so long")};
    struct thaw_version v = {1, 13, 0};

    START({NO_CONTENT, PLAY_KEEP});
    assert_int_equal(fc_patch_balloon(c, NULL, &large, NULL, 0), -EINVAL);
    assert_int_equal(fc_delete_drive(c, "data", NULL, NULL, 0), -EOPNOTSUPP);
    fc_client_assume(c, &v);
    assert_int_equal(fc_start_hinting(c, NULL, NULL, NULL, 0), -EOPNOTSUPP);
    fc_client_set_body_max(c, 10);
    assert_int_equal(fc_put_mmds(c, NULL, &mmds, NULL, 0), -EMSGSIZE);
    assert_string_equal(err_text(), "PUT /mmds: the body has 22 bytes, expected at most 10");
    json_decref(mmds.object);
    player_stop(&player);
    assert_int_equal(player.n_requests, 0);
}

/* ---- what comes back ------------------------------------------------------------------------------------------ */

static void one_connection_serves_one_call_after_the_other(void **state)
{
    struct fc_hinting_status status;

    START({NO_CONTENT, PLAY_KEEP},
          {HEAD("200") LENGTH("*") "{\"host_cmd\":2,\"guest_cmd\":null}", PLAY_KEEP},
          {NO_CONTENT, PLAY_BYTES},
          {HEAD("200") LENGTH("*") "{\"host_cmd\":1,\"guest_cmd\":0}", PLAY_BYTES});
    ALL_WELL(fc_start_hinting(c, NULL, NULL, NULL, 0));
    ALL_WELL(fc_get_hinting(c, NULL, NULL, &status, 0));
    assert_false(status.has_guest_cmd);
    ALL_WELL(fc_stop_hinting(c, NULL, NULL, NULL, 0));
    ALL_WELL(fc_get_hinting(c, NULL, NULL, &status, 0));
    assert_int_equal(status.host_cmd, 1);
    assert_true(status.has_guest_cmd);
}

static void a_204_without_a_length_keeps_the_connection(void **state)
{
    START({NO_CONTENT, PLAY_KEEP}, {NO_CONTENT, PLAY_KEEP}, {NO_CONTENT, PLAY_KEEP});
    for (int i = 0; i < 3; i++)
        ALL_WELL(fc_patch_balloon(c, NULL, &size, NULL, 0));
    player_stop(&player);
    assert_int_equal(player.n_requests, 3);
    assert_int_equal(player.n_connections, 1);
}

static void a_connection_that_was_closed_meanwhile_is_made_again(void **state)
{
    uint64_t deadline_ns = clock_now_ns() + CALL_MS * NS_PER_MS;

    START({NO_CONTENT, PLAY_CLOSE}, {NO_CONTENT, PLAY_KEEP});
    ALL_WELL(fc_patch_balloon(c, NULL, &size, NULL, 0));
    while (player.n_closed == 0 && clock_now_ns() < deadline_ns)
        (void)usleep(1000);
    ALL_WELL(fc_patch_balloon(c, NULL, &size, NULL, 0));
    player_stop(&player);
    assert_int_equal(player.n_connections, 2);
}

static void a_request_is_never_sent_twice(void **state)
{
    START({NO_CONTENT, PLAY_KEEP}, {NULL, PLAY_CLOSE}, {NO_CONTENT, PLAY_KEEP});
    ALL_WELL(fc_patch_balloon(c, NULL, &size, NULL, 0));
    assert_int_equal(fc_patch_balloon(c, NULL, &size, NULL, 0), -ECONNRESET);
    ALL_WELL(fc_patch_balloon(c, NULL, &size, NULL, 0));
    player_stop(&player);
    assert_int_equal(player.n_requests, 3);
}

static void refused_as(struct fc_client *c, int error, const char *text)
{
    assert_int_equal(fc_patch_balloon(c, NULL, &size, NULL, SHORT_MS), error);
    assert_string_equal(err_text(), text);
}

static void a_refusal_has_firecrackers_own_words(void **state)
{
    START({HEAD("400") LENGTH("*") "{\"fault_message\":\"The requested operation is not supported "
                                   "before starting the microVM.\"}",
           PLAY_KEEP},
          {HEAD("400") LENGTH("*") "{ \"error\": \"Invalid HTTP Method.\nAll previous unanswered "
                                   "requests will be dropped.\" }",
           PLAY_KEEP},
          {HEAD("400") LENGTH("*") "plain words", PLAY_KEEP}, {HEAD("413") LENGTH("0"), PLAY_KEEP},
          {HEAD("302") LENGTH("0"), PLAY_KEEP});
    refused_as(c, -EREMOTEIO,
               "Firecracker refused PATCH /balloon (400): The requested operation is not supported "
               "before starting the microVM.");
    refused_as(c, -EREMOTEIO,
               "Firecracker refused PATCH /balloon (400): Invalid HTTP Method. All previous "
               "unanswered requests will be dropped.");
    refused_as(c, -EREMOTEIO, "Firecracker refused PATCH /balloon (400): plain words");
    refused_as(c, -EREMOTEIO, "Firecracker refused PATCH /balloon (413): it does not say why");
    refused_as(c, -EPROTO,
               "Firecracker answered PATCH /balloon with status 302, expected 200 or 204: it does "
               "not say why");
}

#define TOO_MANY HEAD("503") LENGTH("*") "{ \"error\": \"Too many open connections\" }"

static void who_finds_all_connections_taken_comes_again(void **state)
{
    START({TOO_MANY, PLAY_CLOSE}, {TOO_MANY, PLAY_CLOSE}, {NO_CONTENT, PLAY_KEEP});
    ALL_WELL(fc_patch_balloon(c, NULL, &size, NULL, 0));
    player_stop(&player);
    assert_int_equal(player.n_requests, 3);
}

/* Whether the request is sent before the connection is closed is for the scheduler to say: several times. */
static void who_is_sent_away_before_he_has_asked_comes_again(void **state)
{
#define FULL_4 \
    {TOO_MANY, PLAY_FULL}, {TOO_MANY, PLAY_FULL}, {TOO_MANY, PLAY_FULL}, {TOO_MANY, PLAY_FULL}
    START(FULL_4, FULL_4, FULL_4, FULL_4, FULL_4, FULL_4, FULL_4, {NO_CONTENT, PLAY_KEEP});
    ALL_WELL(fc_patch_balloon(c, NULL, &size, NULL, 0));
    player_stop(&player);
    assert_int_equal(player.n_requests, 1);
}

static void who_finds_all_connections_taken_to_the_end_says_so(void **state)
{
    static struct scene many[100];
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        many[i] = (struct scene){TOO_MANY, PLAY_CLOSE};
    player_start(&player, many, ARRAY_LEN(many));
    c = client_at(player.path, "1.14.1");
    refused_as(c, -EBUSY,
               "Firecracker has too many connections for PATCH /balloon: Too many open "
               "connections");
}

static void an_answer_that_does_not_come_is_given_up(void **state)
{
    uint64_t before_ns = clock_now_ns();
    char text[600];

    START({NULL, PLAY_HANG}, {NO_CONTENT, PLAY_KEEP});
    (void)snprintf(text, sizeof(text), "Firecracker at %s has not answered PATCH /balloon in time",
                   player.path);
    refused_as(c, -ETIMEDOUT, text);
    assert_true(clock_now_ns() - before_ns < 2 * NS_PER_S);
    ALL_WELL(fc_patch_balloon(c, NULL, &size, NULL, 0));
    player_stop(&player);
    assert_int_equal(player.n_connections, 2);
}

static void half_an_answer_is_none(void **state)
{
    static const char *const halves[] = {"HTTP/1.1 200 ", HEAD("200"),
                                         HEAD("200") LENGTH("40") "{\"host_cmd\""};
    static struct scene scenes[ARRAY_LEN(halves)];
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;
    struct fc_hinting_status status;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(halves); i++)
        scenes[i] = (struct scene){halves[i], PLAY_CLOSE};
    player_start(&player, scenes, ARRAY_LEN(scenes));
    c = client_at(player.path, "1.14.1");
    for (size_t i = 0; i < ARRAY_LEN(halves); i++) {
        int r = fc_get_hinting(c, NULL, NULL, &status, 0);

        if (r != -ECONNRESET && r != -EPROTO)
            fail_msg("%d %s", r, err_text());
    }
}

static void a_connection_that_ends_without_an_answer_is_told(void **state)
{
    char text[600];

    START({NULL, PLAY_CLOSE});
    (void)snprintf(text, sizeof(text),
                   "Firecracker at %s ended the connection before it had answered PATCH /balloon",
                   player.path);
    refused_as(c, -ECONNRESET, text);
}

static void what_is_no_http_is_refused(void **state)
{
    START({"SSH-2.0-OpenSSH_9.2\r\n", PLAY_CLOSE});
    assert_int_equal(fc_patch_balloon(c, NULL, &size, NULL, 0), -EPROTO);
    assert_non_null(strstr(err_text(), "what is no HTTP"));
}

static void an_answer_without_the_json_that_is_needed_is_refused(void **state)
{
    struct fc_hinting_status status;

    START({NO_CONTENT, PLAY_KEEP}, {HEAD("200") LENGTH("4") "{\"a\"", PLAY_KEEP},
          {HEAD("200") LENGTH("*") "{}", PLAY_KEEP},
          {HEAD("200") LENGTH("*") "{\"host_cmd\":18446744073709551616}", PLAY_KEEP});
    assert_int_equal(fc_get_hinting(c, NULL, NULL, &status, 0), -EPROTO);
    assert_string_equal(err_text(),
                        "Firecracker answered GET /balloon/hinting/status with nothing, "
                        "expected how far hinting has come");
    assert_int_equal(fc_get_hinting(c, NULL, NULL, &status, 0), -EPROTO);
    assert_non_null(strstr(err_text(), "what is no JSON"));
    assert_int_equal(fc_get_hinting(c, NULL, NULL, &status, 0), -EPROTO);
    assert_string_equal(err_text(), "GET /balloon/hinting/status: host_cmd: expected this field");
    assert_int_equal(fc_get_hinting(c, NULL, NULL, &status, 0), -EPROTO);
}

/* endless() - an answer's head or body that goes on and on; (give) */
static char *endless(const char *start, const char *piece, size_t bytes)
{
    size_t n = strlen(piece);
    char *text = malloc(strlen(start) + bytes + n + 1);

    assert_non_null(text);
    strcpy(text, start);
    for (size_t at = strlen(start); at < strlen(start) + bytes; at += n)
        strcpy(text + at, piece);
    return text;
}

static void an_answer_of_any_length_is_not_taken(void **state)
{
    char *body = endless(HEAD("200") LENGTH("99999999"), "xxxxxxxxxxxxxxx ", 5 * MIB);
    char *head = endless(HEAD("204"), "X-Padding: padding padding padding\r\n", 40 * KIB);
    const struct scene scenes[] = {{body, PLAY_CLOSE}, {head, PLAY_CLOSE}};
    struct fc_client *c = NULL;
    struct fc_hinting_status status;

    (void)state;
    player_start(&player, scenes, 2);
    c = client_at(player.path, "1.14.1");
    assert_int_equal(fc_get_hinting(c, NULL, NULL, &status, 0), -EMSGSIZE);
    assert_non_null(strstr(err_text(), "with more than 4194304 bytes"));
    assert_int_equal(fc_get_hinting(c, NULL, NULL, &status, 0), -EMSGSIZE);
    assert_non_null(strstr(err_text(), "with more than 16384 bytes"));
    (void)fc_client_free(c);
    player_stop(&player);
    free(body);
    free(head);
}

static void a_deprecated_field_is_noticed(void **state)
{
    struct fc_vsock vsock = {.guest_cid = 3, .uds_path = "v", .vsock_id = "v"};

    START({HEAD("204") "Deprecation: true\r\n\r\n", PLAY_KEEP}, {NO_CONTENT, PLAY_KEEP});
    ALL_WELL(fc_put_vsock(c, NULL, &vsock, NULL, 0));
    assert_true(fc_client_deprecated(c));
    ALL_WELL(fc_put_vsock(c, NULL, &vsock, NULL, 0));
    assert_false(fc_client_deprecated(c));
}

/* ---- the version, and the end --------------------------------------------------------------------------------- */

static void the_version_is_asked_for_once(void **state)
{
    static const struct scene scenes[] = {
        {VERSION_ANSWER, PLAY_KEEP}, {NO_CONTENT, PLAY_KEEP}, {NO_CONTENT, PLAY_KEEP}};
    _cleanup_(fc_client_freep) struct fc_client *c = client_at(player.path, NULL);
    struct thaw_version v;

    (void)state;
    player_start(&player, scenes, ARRAY_LEN(scenes));
    ALL_WELL(fc_patch_balloon(c, NULL, &size, NULL, 0));
    ALL_WELL(fc_client_version(c, &v, 0));
    assert_int_equal(v.minor, 14);
    ALL_WELL(fc_patch_balloon(c, NULL, &size, NULL, 0));
    player_stop(&player);
    assert_int_equal(player.n_requests, 3);
    assert_memory_equal(player.requests[0], "GET /version HTTP/1.1\r\n", 23);
}

static void a_version_that_is_none_is_refused(void **state)
{
    static const struct scene scenes[] = {
        {HEAD("200") LENGTH("*") "{\"firecracker_version\":\"unknown\"}", PLAY_KEEP}};
    _cleanup_(fc_client_freep) struct fc_client *c = client_at(player.path, NULL);

    (void)state;
    player_start(&player, scenes, ARRAY_LEN(scenes));
    assert_int_equal(fc_patch_balloon(c, NULL, &size, NULL, 0), -EPROTO);
    assert_non_null(strstr(err_text(), "says that its version is unknown, expected one such as"));
}

static const struct fc_snapshot_load load = {
    .snapshot_path = "vmstate",
    .has_mem_backend = true,
    .mem_backend = {.backend_type = FC_BACKEND_TYPE_UFFD, .backend_path = "uffd.sock"},
};

static void after_a_failed_load_nothing_more_is_asked(void **state)
{
    START({HEAD("400") LENGTH("*") "{\"fault_message\":\"Load snapshot error: no\"}", PLAY_CLOSE});
    assert_int_equal(fc_load_snapshot(c, NULL, &(struct fc_snapshot_load){0}, NULL, 0), -EINVAL);
    assert_int_equal(fc_load_snapshot(c, NULL, &load, NULL, 0), -EREMOTEIO);
    assert_int_equal(fc_patch_balloon(c, NULL, &size, NULL, 0), -ESHUTDOWN);
    assert_non_null(strstr(err_text(), "could not load a snapshot"));
    player_stop(&player);
    assert_int_equal(player.n_requests, 1);
}

static void a_load_that_never_reached_firecracker_can_be_asked_for_again(void **state)
{
    _cleanup_(fc_client_freep) struct fc_client *c = client_at(player.path, "1.14.1");
    static const struct scene scenes[] = {{NO_CONTENT, PLAY_KEEP}};

    (void)state;
    assert_int_equal(fc_load_snapshot(c, NULL, &load, NULL, 0), -ENOENT);
    player_start(&player, scenes, ARRAY_LEN(scenes));
    ALL_WELL(fc_load_snapshot(c, NULL, &load, NULL, 0));
}

/* ---- the socket ----------------------------------------------------------------------------------------------- */

static void a_socket_that_is_not_there_is_told_from_a_stale_one(void **state)
{
    _cleanup_(fc_client_freep) struct fc_client *c = client_at(player.path, "1.14.1");

    (void)state;
    assert_int_equal(fc_patch_balloon(c, NULL, &size, NULL, 0), -ENOENT);
    assert_non_null(strstr(err_text(), "there is no socket "));
    player_start(&player, NULL, 0);
    player_stop(&player);
    assert_int_equal(fc_patch_balloon(c, NULL, &size, NULL, 0), -ECONNREFUSED);
    assert_non_null(strstr(err_text(), "nobody listens on socket "));
}

static void a_socket_that_never_comes_is_waited_for_until_the_deadline(void **state)
{
    _cleanup_(fc_client_freep) struct fc_client *c = client_at(player.path, NULL);
    uint64_t before_ns = clock_now_ns();

    (void)state;
    assert_int_equal(fc_client_wait(c, SHORT_MS), -ENOENT);
    assert_true(clock_now_ns() - before_ns >= SHORT_MS * NS_PER_MS);
    assert_true(clock_now_ns() - before_ns < 2 * NS_PER_S);
}

static void *start_later(void *scenes)
{
    (void)usleep(30000); /* whoever is first, the outcome is the same */
    player_start(&player, scenes, 1);
    return NULL;
}

static void a_socket_that_is_on_its_way_is_waited_for(void **state)
{
    static struct scene scenes[] = {{VERSION_ANSWER, PLAY_KEEP}};
    _cleanup_(fc_client_freep) struct fc_client *c = client_at(player.path, NULL);
    pthread_t thread;
    int r;

    (void)state;
    player_start(&player, NULL, 0);
    player_stop(&player); /* an old one is in its place */
    assert_int_equal(pthread_create(&thread, NULL, start_later, scenes), 0);
    r = fc_client_wait(c, CALL_MS);
    (void)pthread_join(thread, NULL);
    ALL_WELL(r);
}

static void a_path_that_no_address_has_room_for_works(void **state)
{
    static const struct scene scenes[] = {{NO_CONTENT, PLAY_KEEP}};
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;

    (void)state;
    player_deinit(&player);
    player_init(&player, true);
    assert_true(strlen(player.path) > sizeof(((struct sockaddr_un *)0)->sun_path));
    player_start(&player, scenes, 1);
    c = client_at(player.path, "1.14.1");
    ALL_WELL(fc_patch_balloon(c, NULL, &size, NULL, 0));
}

static void a_name_that_is_too_long_is_refused(void **state)
{
    _cleanup_(fc_client_freep) struct fc_client *c = NULL;
    char path[300];

    (void)state;
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    c = client_at(path, "1.14.1");
    assert_int_equal(fc_patch_balloon(c, NULL, &size, NULL, 0), -ENAMETOOLONG);
    path[0] = '/';
    path[4] = '/';
    (void)fc_client_free(TAKE(c));
    c = client_at(path, "1.14.1");
    assert_int_equal(fc_patch_balloon(c, NULL, &size, NULL, 0), -ENOENT);
}

static void a_listener_that_accepts_nobody_is_given_up(void **state)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    _cleanup_(fc_client_freep) struct fc_client *c = client_at(player.path, "1.14.1");
    _cleanup_fd_ int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    _cleanup_fd_ int other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    strcpy(addr.sun_path, player.path);
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(connect(other, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(fc_patch_balloon(c, NULL, &size, NULL, SHORT_MS), -ETIMEDOUT);
    assert_non_null(strstr(err_text(), "does not accept connections"));
}

#define PLAYED(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLAYED(a_request_has_its_length_and_type_and_asks_for_no_continue),
        PLAYED(a_large_body_is_sent_without_asking_first),
        PLAYED(a_patch_without_a_body_has_length_0_and_no_type),
        PLAYED(the_name_in_a_path_is_that_of_the_request),
        PLAYED(the_environments_proxy_is_not_asked),
        PLAYED(what_is_refused_is_not_sent),
        PLAYED(one_connection_serves_one_call_after_the_other),
        PLAYED(a_204_without_a_length_keeps_the_connection),
        PLAYED(a_connection_that_was_closed_meanwhile_is_made_again),
        PLAYED(a_request_is_never_sent_twice),
        PLAYED(a_refusal_has_firecrackers_own_words),
        PLAYED(who_finds_all_connections_taken_comes_again),
        PLAYED(who_is_sent_away_before_he_has_asked_comes_again),
        PLAYED(who_finds_all_connections_taken_to_the_end_says_so),
        PLAYED(an_answer_that_does_not_come_is_given_up),
        PLAYED(half_an_answer_is_none),
        PLAYED(a_connection_that_ends_without_an_answer_is_told),
        PLAYED(what_is_no_http_is_refused),
        PLAYED(an_answer_without_the_json_that_is_needed_is_refused),
        PLAYED(an_answer_of_any_length_is_not_taken),
        PLAYED(a_deprecated_field_is_noticed),
        PLAYED(the_version_is_asked_for_once),
        PLAYED(a_version_that_is_none_is_refused),
        PLAYED(after_a_failed_load_nothing_more_is_asked),
        PLAYED(a_load_that_never_reached_firecracker_can_be_asked_for_again),
        PLAYED(a_socket_that_is_not_there_is_told_from_a_stale_one),
        PLAYED(a_socket_that_never_comes_is_waited_for_until_the_deadline),
        PLAYED(a_socket_that_is_on_its_way_is_waited_for),
        PLAYED(a_path_that_no_address_has_room_for_works),
        PLAYED(a_name_that_is_too_long_is_refused),
        PLAYED(a_listener_that_accepts_nobody_is_given_up),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
