/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/curl_load.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

#include "base/err.h"

#define CURL_LIBRARY "libcurl.so.4"

static pthread_mutex_t load_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct curl_api loaded; /* under the mutex until is_loaded, constant from then on */
static bool is_loaded;

static int load_locked(void)
{
    struct curl_api api;
    void *lib;

    lib = dlopen(CURL_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return err_origin(-ENOENT,
                          "talking to Firecracker needs %s (Debian: apt-get install libcurl4): %s",
                          CURL_LIBRARY, dlerror());
#define F(name)                                                 \
    api.name = (__typeof__(api.name))dlsym(lib, "curl_" #name); \
    if (!api.name)                                              \
        return err_origin(-ENOENT, "%s has no curl_%s", CURL_LIBRARY, #name);
    CURL_FUNCTIONS(F)
#undef F
    /* Nothing: no TLS is spoken over a unix socket, and setting that up is most of what this call does. */
    if (api.global_init(CURL_GLOBAL_NOTHING) != CURLE_OK)
        return err_origin(-EIO, "%s cannot be set up", CURL_LIBRARY);
    loaded = api;
    is_loaded = true;
    return 0;
}

int curl_load(const struct curl_api **out)
{
    int r = 0;

    (void)pthread_mutex_lock(&load_mutex);
    if (!is_loaded)
        r = load_locked();
    (void)pthread_mutex_unlock(&load_mutex);
    if (r == 0)
        *out = &loaded;
    return r;
}
