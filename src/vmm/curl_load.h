/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_CURL_LOAD_H
#define VMM_CURL_LOAD_H

/*
 * curl_load.h - libcurl, loaded when somebody talks to Firecracker and not before
 *
 * `thaw` is also the pager, of which there is one for each VM; linked in the ordinary way libcurl brings thirty libraries into
 * each of them. So its functions are looked up when they are wanted. Types and prototypes are those of its own header.
 */

#include <curl/curl.h>

#include "base/base.h"

/* Every function that is used, without its curl_. */
#define CURL_FUNCTIONS(F) \
    F(easy_cleanup)       \
    F(easy_getinfo)       \
    F(easy_init)          \
    F(easy_perform)       \
    F(easy_setopt)        \
    F(easy_strerror)      \
    F(global_init)        \
    F(slist_append)       \
    F(slist_free_all)

/** struct curl_api - the library's functions */
struct curl_api {
#define F(name) __typeof__(curl_##name) *(name);
    CURL_FUNCTIONS(F)
#undef F
};

/**
 * curl_load() - load the library
 * @out: (borrow for the life of the process)
 *
 * Context: any thread. Return: 0, or -ENOENT with a text that says what to install, or -EIO.
 */
int curl_load(const struct curl_api **out);

#endif
