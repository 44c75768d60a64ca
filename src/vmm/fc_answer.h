/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_FC_ANSWER_H
#define VMM_FC_ANSWER_H

/*
 * fc_answer.h - what Firecracker has answered, as a value or as an error: status and body, without a connection
 *
 * Most refusals are {"fault_message": "..."}. Those of the HTTP server itself have "error" for a name, and a newline within the
 * text, which JSON does not allow; whatever else comes is quoted as it is.
 */

#include <jansson.h>

#include "vmm/fc_schema.h"

/**
 * fc_answer_read() - of an exchange that took place
 * @path: (borrow) that was asked, with the name in it
 * @body: (borrow) NULL: none
 * @out:  (give) the value; NULL if the endpoint answers with none
 *
 * Return: 0, or with a text that has Firecracker's own words: -EREMOTEIO: it has refused the request; -EBUSY: it has too many
 * connections and has not looked at it; -EPROTO: it did what was asked and the answer cannot be understood.
 */
int fc_answer_read(const struct fc_endpoint *e, const char *path, unsigned status, const char *body,
                   size_t len, json_t **out);

/** fc_endpoint_text() - "PUT /drives/{id}". Return: @buf */
const char *fc_endpoint_text(const struct fc_endpoint *e, char *buf, size_t len);

#endif
