/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PAGER_REGIONS_JSON_H
#define PAGER_REGIONS_JSON_H

/*
 * regions_json.h - the handshake's text: a JSON array, one object a region of guest memory
 *
 *   base_host_virt_addr   address in the VMM                                  mandatory
 *   size                  bytes                                               mandatory
 *   offset                byte offset of the region's first byte in the memory file   mandatory
 *   page_size             bytes, 4096 or 2097152                              since Firecracker 1.12
 *   page_size_kib         the same number, in bytes in spite of its name      since Firecracker 1.7
 *
 * Without either of the last two a page has 4096 bytes. Fields with other names are passed over: newer senders have more.
 * This is the only file that knows the names.
 */

#include "core/geom.h"

#define REGIONS_TEXT_MAX (2 * MIB) /* bytes; 8192 regions fit */

/** struct regions - what the text says, checked one by one but not against each other (geom_init() does that) */
struct regions {
    struct geom_region *list; /* hva, len_bytes, imgoff are set */
    unsigned n;
    uint64_t page_bytes;  /* 4096 or 2097152 */
    bool page_bytes_said; /* false: no region had a page-size field */
};

/**
 * regions_parse() - read the handshake's text
 * @out:  (give) regions_deinit() it; zeroed on failure
 * @text: (borrow for the call) @len bytes, need not end in NUL
 *
 * Return: 0 or -EINVAL, -ENOMEM with a text that names the region and the field.
 */
int regions_parse(struct regions *out, const char *text, size_t len);

/** regions_deinit() - free the list */
void regions_deinit(struct regions *r);

/** struct json_span - finds the end of a JSON array in a byte stream without parsing it */
struct json_span {
    unsigned depth;
    bool in_string;
    bool escaped;
    bool done;
};

enum {
    _JSON_SPAN_E_SUCCESS,
    JSON_SPAN_E_NOT_ARRAY, /* the first byte that is not white space is no '[' */
};

/**
 * json_span_feed() - look at the next bytes of the stream
 * @used: how many of them belong to the array (all of them until s->done)
 *
 * Return: 0 or JSON_SPAN_E_NOT_ARRAY.
 */
int json_span_feed(struct json_span *s, const char *bytes, size_t len, size_t *used);

#endif
