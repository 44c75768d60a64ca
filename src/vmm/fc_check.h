/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_FC_CHECK_H
#define VMM_FC_CHECK_H

/*
 * fc_check.h - what is refused before it is sent
 *
 * Firecracker refuses what it does not know, but says so in its own words, and of some things (a wrong size of a hotplug slot,
 * a snapshot that cannot be loaded) only when it is too late. So each request is compared with the table: the version, the
 * names, the types, the numbers, and what must hold between fields. An error is one line that begins with method and path and
 * names the field and what was expected.
 */

#include <jansson.h>

#include "vmm/fc_schema.h"

/**
 * fc_check() - may this be sent to this version?
 * @id:   the name in the path; NULL where the endpoint has none
 * @body: (borrow) NULL: none
 *
 * Return: 0; -EOPNOTSUPP if the version does not know the endpoint, a field or a value: the text names the version and the one
 * that brought it; -EINVAL for anything else that is wrong.
 */
int fc_check(const struct fc_endpoint *e, const struct thaw_version *version, const char *id,
             json_t *body);

/** fc_format_check() - is the text of this format? Return: NULL, or what was expected */
const char *fc_format_check(enum fc_format format, const char *text);

#endif
