/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/map/cairo_load.h"

#include <dlfcn.h>
#include <errno.h>

#include "base/err.h"

#define CAIRO_LIBRARY "libcairo.so.2"

#if defined(__has_feature)
#    if __has_feature(address_sanitizer)
/*
 * Asked by the leak checker: libfontconfig keeps what it read about fonts until the process ends.
 */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_options(void);

const char *__lsan_default_suppressions(void)
{
    return "leak:libfontconfig\n";
}

const char *__lsan_default_options(void)
{
    return "print_suppressions=0";
}
#    endif
#endif

int cairo_load(struct cairo_api *api)
{
    void *lib;

    lib = dlopen(CAIRO_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return err_origin(-ENOENT,
                          "drawing into a file needs %s (Debian: apt-get install libcairo2): %s",
                          CAIRO_LIBRARY, dlerror());
#define F(name)                                                    \
    api->name = (__typeof__(api->name))dlsym(lib, "cairo_" #name); \
    if (!api->name)                                                \
        return err_origin(-ENOENT, "%s has no cairo_%s", CAIRO_LIBRARY, #name);
    CAIRO_FUNCTIONS(F)
#undef F
    return 0;
}
