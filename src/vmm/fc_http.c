/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/fc_http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "vmm/curl_load.h"
#include "vmm/fc_socket.h"

/*
 * libcurl speaks HTTP, connects and keeps the connection. What it does not tell is a listener whose queue is full from one who
 * closes at once: the kernel says "later" (EAGAIN) to a connect(), which libcurl takes for "soon". So we look at a socket
 * before libcurl closes it: one that never had another end was not connected.
 *
 * When a kept connection ends without an answer, libcurl sends the request again over another one. Firecracker closes none by
 * itself: the process has ended, in the middle of what was asked, and another one may listen there by now. So what was sent
 * is not sent again: on_open() gives no second socket.
 *
 * A Firecracker that has too many connections answers a new one and closes it without a look at it, maybe before the request is
 * sent. Then libcurl does not read that answer, and we say the same as the answer does.
 */

#define LOOK_AGAIN_FIRST_NS NS_PER_MS
#define LOOK_AGAIN_MAX_NS   (20 * NS_PER_MS)

struct fc_http {
    const struct curl_api *api;
    CURL *easy;                   /* owned */
    struct curl_slist *with_body; /* owned: the heads of requests */
    struct curl_slist *without;   /* owned */
    char *path;                   /* owned: of the socket */
    char error[CURL_ERROR_SIZE];  /* libcurl's own words */
    struct fc_socket socket;
    /* of the exchange in hand */
    uint64_t deadline_ns;
    bool never_connected;
    bool opened; /* there is a new socket */
    bool is_out; /* the request was sent, or a part of it */
    bool again;  /* and libcurl wanted to send it once more */
    bool too_long;
    size_t head_len;
    size_t room;
    struct fc_http_answer answer;
};

/* ---- what libcurl calls --------------------------------------------------------------------------------------- */

static int on_trace(CURL *easy, curl_infotype what, char *bytes, size_t len, void *context)
{
    struct fc_http *h = context;

    (void)easy;
    (void)bytes;
    (void)len;
    if (what == CURLINFO_HEADER_OUT)
        h->is_out = true;
    return 0;
}

static curl_socket_t on_open(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct fc_http *h = context;
    int fd;

    (void)purpose;
    if (h->is_out) {
        h->again = true;
        return CURL_SOCKET_BAD;
    }
    fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    h->opened = fd >= 0;
    return fd;
}

static int on_close(void *context, curl_socket_t fd)
{
    struct fc_http *h = context;
    struct sockaddr_un peer;
    socklen_t len = sizeof(peer);

    h->never_connected = getpeername(fd, (struct sockaddr *)&peer, &len) < 0 && errno == ENOTCONN;
    return close(fd);
}

static size_t on_head(char *line, size_t size, size_t n, void *context)
{
    static const char deprecation[] = "Deprecation: true";
    struct fc_http *h = context;
    size_t len = size * n;

    h->head_len += len;
    if (h->head_len > FC_HTTP_HEAD_MAX) {
        h->too_long = true;
        return 0;
    }
    if (len >= sizeof(deprecation) - 1 &&
        strncasecmp(line, deprecation, sizeof(deprecation) - 1) == 0)
        h->answer.deprecated = true;
    return len;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *context)
{
    struct fc_http *h = context;
    struct fc_http_answer *a = &h->answer;
    size_t len = size * n;

    if (len > FC_HTTP_ANSWER_MAX - a->len) {
        h->too_long = true;
        return 0;
    }
    if (a->len + len + 1 > h->room) {
        size_t room = max_u64(h->room * 2, a->len + len + 1);
        char *body = realloc(a->body, room);

        if (!body)
            return 0;
        a->body = body;
        h->room = room;
    }
    memcpy(a->body + a->len, bytes, len);
    a->len += len;
    a->body[a->len] = '\0';
    return len;
}

/* ---- setting up ----------------------------------------------------------------------------------------------- */

static struct curl_slist *make_head(const struct curl_api *api, const char *content_type)
{
    /* A name without a value takes a head out that libcurl would send by itself. */
    const char *const lines[] = {"Accept: application/json", "Expect:", content_type};
    struct curl_slist *head = NULL;

    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        struct curl_slist *longer = api->slist_append(head, lines[i]);

        if (!longer) {
            api->slist_free_all(head);
            return NULL;
        }
        head = longer;
    }
    return head;
}

#define SET(h, option, value) ((h)->api->easy_setopt((h)->easy, (option), (value)))

static bool set_up(struct fc_http *h)
{
    return SET(h, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           /* The environment's proxies are for other hosts than this one. */
           SET(h, CURLOPT_PROXY, "") == CURLE_OK &&
           /* Only so that on_trace() is called; nothing is printed. */
           SET(h, CURLOPT_VERBOSE, 1L) == CURLE_OK &&
           SET(h, CURLOPT_DEBUGFUNCTION, on_trace) == CURLE_OK &&
           SET(h, CURLOPT_DEBUGDATA, h) == CURLE_OK &&
           SET(h, CURLOPT_OPENSOCKETFUNCTION, on_open) == CURLE_OK &&
           SET(h, CURLOPT_OPENSOCKETDATA, h) == CURLE_OK &&
           SET(h, CURLOPT_CLOSESOCKETFUNCTION, on_close) == CURLE_OK &&
           SET(h, CURLOPT_CLOSESOCKETDATA, h) == CURLE_OK &&
           SET(h, CURLOPT_HEADERFUNCTION, on_head) == CURLE_OK &&
           SET(h, CURLOPT_HEADERDATA, h) == CURLE_OK &&
           SET(h, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
           SET(h, CURLOPT_WRITEDATA, h) == CURLE_OK &&
           SET(h, CURLOPT_ERRORBUFFER, h->error) == CURLE_OK &&
           SET(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK;
}

int fc_http_new(struct fc_http **out, const char *path)
{
    _cleanup_(fc_http_freep) struct fc_http *h = calloc(1, sizeof(*h));
    int r;

    if (!h)
        return err_origin_errno(-ENOMEM, "cannot talk to Firecracker");
    h->socket.fd = -1;
    r = curl_load(&h->api);
    if (r < 0)
        return r;
    h->path = strdup(path);
    h->easy = h->api->easy_init();
    h->with_body = make_head(h->api, "Content-Type: application/json");
    h->without = make_head(h->api, "Content-Type:");
    if (!h->path || !h->easy || !h->with_body || !h->without)
        return err_origin_errno(-ENOMEM, "cannot talk to Firecracker");
    if (!set_up(h))
        return err_origin(-EIO,
                          "libcurl does not know an option that is needed: is it older than 7.62?");
    *out = TAKE(h);
    return 0;
}

struct fc_http *fc_http_free(struct fc_http *h)
{
    if (!h)
        return NULL;
    if (h->api) {
        if (h->easy)
            h->api->easy_cleanup(h->easy);
        h->api->slist_free_all(h->with_body);
        h->api->slist_free_all(h->without);
    }
    fc_http_answer_deinit(&h->answer);
    fc_socket_forget(&h->socket);
    free(h->path);
    free(h);
    return NULL;
}

void fc_http_answer_deinit(struct fc_http_answer *a)
{
    free(a->body);
    *a = (struct fc_http_answer){0};
}

/* ---- an exchange ---------------------------------------------------------------------------------------------- */

static int check_sizes(const char *method, const char *path, const char *body, size_t body_max)
{
    size_t line = strlen(method) + strlen(path) + strlen("  HTTP/1.1\r\n");

    if (line > FC_HTTP_LINE_MAX)
        return err_origin(-EMSGSIZE,
                          "%s %.40s...: the request's first line has %zu bytes, expected "
                          "at most %u",
                          method, path, line, FC_HTTP_LINE_MAX);
    if (body && strlen(body) > body_max)
        return err_origin(-EMSGSIZE, "%s %s: the body has %zu bytes, expected at most %zu", method,
                          path, strlen(body), body_max);
    return 0;
}

/* set_request() - Return: whether libcurl took it */
static bool set_request(struct fc_http *h, const char *method, const char *path, const char *body)
{
    bool has_length = strcmp(method, "GET") != 0 && strcmp(method, "DELETE") != 0;
    uint64_t now_ns = clock_now_ns();
    uint64_t left_ns = h->deadline_ns > now_ns ? h->deadline_ns - now_ns : 0;
    long left_ms = (long)min_u64(left_ns / NS_PER_MS + 1, INT32_MAX);
    char url[FC_HTTP_LINE_MAX + sizeof("http://localhost")];

    (void)snprintf(url, sizeof(url), "http://localhost%s", path);
    /* A POST by another name: the only kind of request with a body that libcurl sends from memory. */
    return SET(h, CURLOPT_UNIX_SOCKET_PATH, h->socket.text) == CURLE_OK &&
           SET(h, CURLOPT_URL, url) == CURLE_OK && SET(h, CURLOPT_HTTPGET, 1L) == CURLE_OK &&
           (!has_length ||
            (SET(h, CURLOPT_POST, 1L) == CURLE_OK &&
             SET(h, CURLOPT_POSTFIELDS, body ? body : "") == CURLE_OK &&
             SET(h, CURLOPT_POSTFIELDSIZE, (long)(body ? strlen(body) : 0)) == CURLE_OK)) &&
           SET(h, CURLOPT_CUSTOMREQUEST, method) == CURLE_OK &&
           SET(h, CURLOPT_HTTPHEADER, body ? h->with_body : h->without) == CURLE_OK &&
           SET(h, CURLOPT_TIMEOUT_MS, left_ms) == CURLE_OK &&
           SET(h, CURLOPT_CONNECTTIMEOUT_MS, left_ms) == CURLE_OK;
}

static int exchange_error(const struct fc_http *h, CURLcode code, const char *method,
                          const char *path)
{
    switch (h->again ? CURLE_GOT_NOTHING : code) {
    case CURLE_OPERATION_TIMEDOUT:
        return err_origin(-ETIMEDOUT, "Firecracker at %s has not answered %s %s in time", h->path,
                          method, path);
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_PARTIAL_FILE:
        return err_origin(-ECONNRESET,
                          "Firecracker at %s ended the connection before it had answered %s %s",
                          h->path, method, path);
    case CURLE_OUT_OF_MEMORY:
        return err_origin_errno(-ENOMEM, "%s %s", method, path);
    default:
        break;
    }
    if (h->too_long)
        return err_origin(-EMSGSIZE, "Firecracker at %s answered %s %s with more than %llu bytes",
                          h->path, method, path,
                          h->head_len > FC_HTTP_HEAD_MAX ? FC_HTTP_HEAD_MAX : FC_HTTP_ANSWER_MAX);
    return err_origin(-EPROTO, "Firecracker at %s answered %s %s with what is no HTTP: %s", h->path,
                      method, path, h->error[0] != '\0' ? h->error : h->api->easy_strerror(code));
}

/* closed_unasked() - Return: whether the connection, new or kept, was closed before anything was sent */
static bool closed_unasked(const struct fc_http *h, CURLcode code)
{
    long os_errno = 0;

    if (h->is_out || h->never_connected)
        return false;
    (void)h->api->easy_getinfo(h->easy, CURLINFO_OS_ERRNO, &os_errno);
    return code == CURLE_SEND_ERROR ||
           (code == CURLE_COULDNT_CONNECT && h->opened &&
            (os_errno == 0 || os_errno == EPIPE || os_errno == ECONNRESET));
}

/* connect_errno() - Return: 0, or why there is no connection; -EAGAIN: who listens does not accept */
static int connect_errno(const struct fc_http *h, CURLcode code)
{
    long os_errno = 0;

    if (h->again)
        return 0; /* there was one */
    if (code == CURLE_COULDNT_CONNECT) {
        (void)h->api->easy_getinfo(h->easy, CURLINFO_OS_ERRNO, &os_errno);
        return os_errno > 0 ? -(int)os_errno : -EAGAIN; /* 0: it was told "later" */
    }
    return code != CURLE_OK && h->never_connected ? -EAGAIN : 0;
}

/* try_once() - *connected: whether Firecracker may have seen the request. Return: 0 or a negative errno with a text */
static int try_once(struct fc_http *h, const char *method, const char *path, const char *body,
                    bool *connected)
{
    CURLcode code;
    int r;

    *connected = false;
    fc_http_answer_deinit(&h->answer);
    h->never_connected = h->opened = h->is_out = h->again = h->too_long = false;
    h->head_len = h->room = 0;
    h->error[0] = '\0';
    r = fc_socket_find(&h->socket, h->path);
    if (r < 0)
        return r;
    if (!set_request(h, method, path, body))
        return err_origin_errno(-ENOMEM, "%s %s", method, path);
    code = h->api->easy_perform(h->easy);
    if (closed_unasked(h, code))
        return err_origin(-EBUSY,
                          "Firecracker at %s has too many connections: it closed one before %s %s "
                          "was sent",
                          h->path, method, path);
    r = connect_errno(h, code);
    if (r < 0) {
        fc_socket_forget(&h->socket);
        return fc_socket_error(r, h->path);
    }
    *connected = true;
    return code == CURLE_OK ? 0 : exchange_error(h, code, method, path);
}

void fc_http_no_links(struct fc_http *h)
{
    h->socket.no_links = true;
}

int fc_http_exchange(struct fc_http *h, const char *method, const char *path, const char *body,
                     size_t body_max, uint64_t deadline_ns, bool wait, bool *sent,
                     struct fc_http_answer *out)
{
    uint64_t pause_ns = LOOK_AGAIN_FIRST_NS;
    long status = 0;
    int r;

    *sent = false;
    r = check_sizes(method, path, body, body_max > 0 ? body_max : FC_HTTP_BODY_MAX);
    if (r < 0)
        return r;
    h->deadline_ns = deadline_ns;
    for (;;) {
        uint64_t now_ns;

        r = try_once(h, method, path, body, sent);
        now_ns = clock_now_ns();
        if (r == 0 || *sent || now_ns >= deadline_ns)
            break;
        if (r != -ETIMEDOUT && !(wait && (r == -ENOENT || r == -ECONNREFUSED)))
            break;
        clock_sleep_ns(min_u64(pause_ns, deadline_ns - now_ns));
        pause_ns = min_u64(pause_ns * 2, LOOK_AGAIN_MAX_NS);
    }
    if (r < 0)
        return r;
    (void)h->api->easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &status);
    *out = h->answer;
    out->status = (unsigned)status;
    h->answer = (struct fc_http_answer){0};
    return 0;
}
