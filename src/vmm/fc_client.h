/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_FC_CLIENT_H
#define VMM_FC_CLIENT_H

/*
 * fc_client.h - what is said to one Firecracker
 *
 *     fc_client_new(&c, "api.sock", 5000);
 *     fc_client_wait(c, 2000);                                   a process that was started a moment ago
 *     fc_put_balloon(c, NULL, &balloon, NULL, 0);                 a function for each endpoint of fc_schema.def
 *     fc_get_hinting(c, NULL, NULL, &status, 0);
 *     fc_client_free(c);
 *
 * Each request is compared with what the running version knows (fc_check.h) before it is sent; the version is asked for once.
 * The connection is kept from one call to the next, and made again when Firecracker has closed it.
 *
 * A snapshot that cannot be loaded ends the process: after that each call is refused with -ESHUTDOWN. While it is loaded, its
 * pager must be able to work, so whoever calls fc_load_snapshot() may not be whom the pager waits for.
 *
 * Context of all functions: one thread at a time. Errors have a text; those that everything below may return are
 *     -EINVAL, -EOPNOTSUPP  as fc_check(); nothing was sent
 *     -ENOENT, -ECONNREFUSED  there is no socket, or only that of a process that has ended
 *     -ETIMEDOUT    Firecracker has not answered in time; what was asked may be done yet
 *     -EBUSY        for all of that time it had too many connections
 *     -ECONNRESET   it has ended the connection, as a rule because it has ended itself
 *     -EREMOTEIO    it has refused; the text has its fault_message
 *     -EPROTO, -EMSGSIZE  an answer, or a request, that cannot be
 */

#include <jansson.h>

#include "vmm/fc_schema.h"

struct fc_client;

/**
 * fc_client_new() - loads libcurl; nothing is connected yet
 * @socket_path: (copied) of any length, its last part up to some 80 bytes
 * @timeout_ms:  for calls that do not say how long they may take
 *
 * Return: 0; -ENOENT if there is no libcurl; another negative errno.
 */
int fc_client_new(struct fc_client **out, const char *socket_path, unsigned timeout_ms);

/** fc_client_no_links() - a symbolic link in the socket's place is not followed: -ECONNREFUSED. Before anything is sent */
void fc_client_no_links(struct fc_client *c);

/** fc_client_free() - @c: (take) may be NULL. Return: NULL */
struct fc_client *fc_client_free(struct fc_client *c);

/** fc_client_wait() - until the socket is there and Firecracker has answered. Return: 0 or a negative errno with a text */
int fc_client_wait(struct fc_client *c, unsigned timeout_ms);

/** fc_client_version() - ask, if that was not done yet. Return: 0 or a negative errno with a text */
int fc_client_version(struct fc_client *c, struct thaw_version *out, unsigned timeout_ms);

/** fc_client_assume() - do not ask for the version, it is this one */
void fc_client_assume(struct fc_client *c, const struct thaw_version *version);

/** fc_client_set_body_max() - Firecracker was started with this --http-api-max-payload-size */
void fc_client_set_body_max(struct fc_client *c, size_t bytes);

/** fc_client_deprecated() - did the last answer say that something in the request is deprecated? */
bool fc_client_deprecated(const struct fc_client *c);

/**
 * fc_call() - one request. The functions below are this one with types
 * @path_id:    the name in the path; NULL: that of the request's struct, or the path has none
 * @request:    (borrow) the struct of the endpoint's request; NULL: no body
 * @answer:     (give) the struct of its answer, fc_model_clear() it; may be NULL
 * @timeout_ms: 0: the client's
 *
 * Return: 0, or a negative errno with a text.
 */
int fc_call(struct fc_client *c, enum fc_endpoint_id endpoint, const char *path_id,
            const void *request, void *answer, unsigned timeout_ms);

/**
 * fc_call_json() - the same with JSON
 * @body:   (borrow) NULL: none
 * @answer: (give) NULL if the endpoint answers with none
 */
int fc_call_json(struct fc_client *c, const struct fc_endpoint *e, const char *path_id,
                 json_t *body, json_t **answer, unsigned timeout_ms);

#define FC_ENDPOINT(id, name, method, path, phase, hotplug, body, request_, answer_, since, text) \
    static inline int fc_##name(struct fc_client *c, const char *path_id,                         \
                                const struct fc_##request_ *request, struct fc_##answer_ *answer, \
                                unsigned timeout_ms)                                              \
    {                                                                                             \
        return fc_call(c, FC_##id, path_id, request, answer, timeout_ms);                         \
    }
#include "vmm/fc_schema.def"

DEFINE_CLEANUP(struct fc_client *, fc_client_free);

#endif
