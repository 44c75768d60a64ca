/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/fc_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "vmm/fc_answer.h"
#include "vmm/fc_check.h"
#include "vmm/fc_http.h"
#include "vmm/fc_json.h"

#define BUSY_PAUSE_NS (10 * NS_PER_MS) /* until a connection may have become free */

struct fc_client {
    struct fc_http *http; /* owned */
    char *socket_path;    /* owned */
    unsigned timeout_ms;
    size_t body_max; /* 0: the usual */
    bool has_version;
    struct thaw_version version;
    bool deprecated;
    bool load_failed;
};

/* ---- the client ----------------------------------------------------------------------------------------------- */

int fc_client_new(struct fc_client **out, const char *socket_path, unsigned timeout_ms)
{
    _cleanup_(fc_client_freep) struct fc_client *c = calloc(1, sizeof(*c));
    int r;

    assert(timeout_ms > 0);
    if (!c)
        return err_origin_errno(-ENOMEM, "cannot talk to Firecracker");
    c->timeout_ms = timeout_ms;
    c->socket_path = strdup(socket_path);
    if (!c->socket_path)
        return err_origin_errno(-ENOMEM, "cannot talk to Firecracker");
    r = fc_http_new(&c->http, socket_path);
    if (r < 0)
        return r;
    *out = TAKE(c);
    return 0;
}

void fc_client_no_links(struct fc_client *c)
{
    fc_http_no_links(c->http);
}

struct fc_client *fc_client_free(struct fc_client *c)
{
    if (!c)
        return NULL;
    c->http = fc_http_free(c->http);
    free(c->socket_path);
    free(c);
    return NULL;
}

void fc_client_assume(struct fc_client *c, const struct thaw_version *version)
{
    c->version = *version;
    c->has_version = true;
}

void fc_client_set_body_max(struct fc_client *c, size_t bytes)
{
    c->body_max = bytes;
}

bool fc_client_deprecated(const struct fc_client *c)
{
    return c->deprecated;
}

/* ---- a call --------------------------------------------------------------------------------------------------- */

static uint64_t deadline_of(const struct fc_client *c, unsigned timeout_ms)
{
    return clock_now_ns() + (timeout_ms > 0 ? timeout_ms : c->timeout_ms) * NS_PER_MS;
}

/* path_of() - the endpoint's, with the name in it. Return: (give), NULL without memory */
static char *path_of(const struct fc_endpoint *e, const char *path_id)
{
    size_t head = strcspn(e->path, "{");
    size_t len = head + (path_id ? strlen(path_id) : 0) + 1;
    char *path = malloc(len);

    if (path)
        (void)snprintf(path, len, "%.*s%s", (int)head, e->path,
                       e->path[head] != '\0' && path_id ? path_id : "");
    return path;
}

/* send_request() - and read what comes back, as often as it takes to get one of Firecracker's few connections */
static int send_request(struct fc_client *c, const struct fc_endpoint *e, const char *path,
                        const char *body, uint64_t deadline_ns, bool wait, json_t **answer)
{
    for (;;) {
        struct fc_http_answer a = {0};
        bool sent = false;
        int r;

        r = fc_http_exchange(c->http, fc_method_name(e->method), path, body, c->body_max,
                             deadline_ns, wait, &sent, &a);
        c->deprecated = a.deprecated;
        if (r == 0)
            r = fc_answer_read(e, path, a.status, a.body, a.len, answer);
        fc_http_answer_deinit(&a);
        if (r == -EBUSY && clock_now_ns() + BUSY_PAUSE_NS < deadline_ns) {
            clock_sleep_ns(BUSY_PAUSE_NS);
            continue;
        }
        if (r < 0 && sent && r != -EBUSY && e->id == FC_LOAD_SNAPSHOT)
            c->load_failed = true;
        return r;
    }
}

/* ask_version() - once */
static int ask_version(struct fc_client *c, uint64_t deadline_ns, bool wait)
{
    const struct fc_endpoint *e = &fc_endpoints[FC_GET_VERSION];
    struct fc_version answer = {0};
    struct thaw_version version;
    json_t *json = NULL;
    int r;

    if (c->has_version)
        return 0;
    r = send_request(c, e, e->path, NULL, deadline_ns, wait, &json);
    if (r < 0)
        return r;
    r = fc_decode(&fc_model_version, json, "Firecracker's answer to GET /version", &answer);
    json_decref(json);
    if (r < 0)
        return r;
    r = thaw_version_parse(&version, answer.firecracker_version);
    if (r < 0)
        r = err_origin(-EPROTO,
                       "Firecracker at %s says that its version is %.40s, expected one "
                       "such as 1.14.1",
                       c->socket_path, answer.firecracker_version);
    else
        fc_client_assume(c, &version);
    fc_model_clear(&fc_model_version, &answer);
    return r;
}

int fc_client_wait(struct fc_client *c, unsigned timeout_ms)
{
    const struct fc_endpoint *e = &fc_endpoints[FC_GET_VERSION];
    uint64_t deadline_ns = deadline_of(c, timeout_ms);
    json_t *json = NULL;
    int r;

    if (!c->has_version)
        return ask_version(c, deadline_ns, true);
    r = send_request(c, e, e->path, NULL, deadline_ns, true, &json);
    json_decref(json);
    return r;
}

int fc_client_version(struct fc_client *c, struct thaw_version *out, unsigned timeout_ms)
{
    int r = ask_version(c, deadline_of(c, timeout_ms), false);

    if (r == 0)
        *out = c->version;
    return r;
}

static int call_by(struct fc_client *c, const struct fc_endpoint *e, const char *path_id,
                   json_t *body, json_t **answer, uint64_t deadline_ns)
{
    char *text = NULL;
    char *path = NULL;
    int r;

    *answer = NULL;
    if (c->load_failed)
        return err_origin(
            -ESHUTDOWN,
            "Firecracker at %s could not load a snapshot: it ends, and is of no further use",
            c->socket_path);
    r = ask_version(c, deadline_ns, false);
    if (r < 0)
        return r;
    r = fc_check(e, &c->version, path_id, body);
    if (r < 0)
        return r;
    path = path_of(e, path_id);
    text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    if (!path || (body && !text))
        r = err_origin_errno(-ENOMEM, "cannot talk to Firecracker");
    else
        r = send_request(c, e, path, text, deadline_ns, false, answer);
    free(text);
    free(path);
    return r;
}

int fc_call_json(struct fc_client *c, const struct fc_endpoint *e, const char *path_id,
                 json_t *body, json_t **answer, unsigned timeout_ms)
{
    return call_by(c, e, path_id, body, answer, deadline_of(c, timeout_ms));
}

int fc_call(struct fc_client *c, enum fc_endpoint_id endpoint, const char *path_id,
            const void *request, void *answer, unsigned timeout_ms)
{
    const struct fc_endpoint *e = &fc_endpoints[endpoint];
    uint64_t deadline_ns = deadline_of(c, timeout_ms);
    const struct fc_field *id = fc_id_field(e->request);
    json_t *body = NULL;
    json_t *json = NULL;
    char what[64];
    int r = 0;

    if (request)
        r = fc_encode(e->request, request, &body);
    if (r < 0)
        return r;
    if (!path_id && id)
        path_id = json_string_value(json_object_get(body, id->name));
    r = call_by(c, e, path_id, body, &json, deadline_ns);
    json_decref(body);
    if (r == 0 && answer && e->answer->n_fields > 0)
        r = fc_decode(e->answer, json, fc_endpoint_text(e, what, sizeof(what)), answer);
    json_decref(json);
    return r;
}
