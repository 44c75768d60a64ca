/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_FC_HTTP_H
#define VMM_FC_HTTP_H

/*
 * fc_http.h - one HTTP exchange at a time with a Firecracker, over one connection that is kept
 *
 * What is special about Firecracker's server, and what becomes of it here:
 *
 *   - A request needs a Content-Length, its head lines may have 1024 bytes and its body 51200 (by default): looked at before
 *     anything is sent. It is never asked "Expect: 100-continue".
 *   - An answer has no reason phrase, a 204 no length and no body: that is how libcurl takes it.
 *   - Its connections are ten. Who comes eleventh is told so (503) and has done nothing: fc_client.c comes again.
 *   - It answers one request after the other in the thread that also loads snapshots: a call may take as long as a pager
 *     needs. Nothing here waits for anything but the answer, and not beyond the deadline.
 */

#include "base/base.h"

#define FC_HTTP_BODY_MAX   51200u     /* of a request; Firecracker's --http-api-max-payload-size */
#define FC_HTTP_LINE_MAX   1024u      /* of a request's first line */
#define FC_HTTP_ANSWER_MAX (4 * MIB)  /* of an answer's body: metadata may be large */
#define FC_HTTP_HEAD_MAX   (16 * KIB) /* of an answer's head */

struct fc_http;

/** struct fc_http_answer - what came back */
struct fc_http_answer {
    unsigned status;
    bool deprecated; /* it said that something in the request is */
    char *body;      /* owned; a 0 follows its end. NULL: none */
    size_t len;
};

/** fc_http_new() - nothing is connected yet. @path: (copied) of the socket. Return: 0 or a negative errno with a text */
int fc_http_new(struct fc_http **out, const char *path);

/** fc_http_no_links() - a symbolic link in the socket's place is not followed: -ECONNREFUSED. Before anything is sent */
void fc_http_no_links(struct fc_http *h);

/** fc_http_free() - @h: (take) may be NULL. Return: NULL */
struct fc_http *fc_http_free(struct fc_http *h);

/**
 * fc_http_exchange() - send a request, wait for the answer
 * @path:        of the request, with nothing in it that would have to be escaped
 * @body:        (borrow) NULL: none
 * @body_max:    0: FC_HTTP_BODY_MAX
 * @deadline_ns: by clock_now_ns(), for all of it
 * @wait:        the socket may come yet
 * @sent:        whether Firecracker may have seen the request, even on an error
 * @out:         (give) fc_http_answer_deinit() it; on success only
 *
 * Return: 0, whatever the status is, or with a text: -ENOENT: there is no socket; -ECONNREFUSED: nobody listens
 * on it; -ETIMEDOUT; -EBUSY: it closes connections before anything is sent; -ECONNRESET: no answer;
 * -EMSGSIZE: the request or the answer is too long; -EPROTO: the answer is no HTTP; another negative errno.
 */
int fc_http_exchange(struct fc_http *h, const char *method, const char *path, const char *body,
                     size_t body_max, uint64_t deadline_ns, bool wait, bool *sent,
                     struct fc_http_answer *out);

void fc_http_answer_deinit(struct fc_http_answer *a);

DEFINE_CLEANUP(struct fc_http *, fc_http_free);

#endif
