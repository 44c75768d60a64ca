/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <thaw/error.h>

static _Thread_local char err_line[ERR_TEXT_BYTES];

PRINTF_LIKE(3, 0)
static void set_text(int neg_errno, bool with_errno, const char *fmt, va_list args)
{
    char line[ERR_TEXT_BYTES]; /* built aside: an argument may be err_text() itself */
    size_t n;

    assert(neg_errno < 0);
    (void)vsnprintf(line, sizeof(line), fmt, args);
    n = strlen(line);
    if (with_errno) {
        const char *why = strerrordesc_np(-neg_errno);

        if (why)
            (void)snprintf(line + n, sizeof(line) - n, ": %s", why);
        else
            (void)snprintf(line + n, sizeof(line) - n, ": errno %d", -neg_errno);
    }
    for (char *c = line; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?'; /* it stays one line, whatever a path or a peer puts into it */
    }
    memcpy(err_line, line, sizeof(err_line));
}

int err_origin(int neg_errno, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    set_text(neg_errno, false, fmt, args);
    va_end(args);
    return neg_errno;
}

int err_origin_errno(int neg_errno, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    set_text(neg_errno, true, fmt, args);
    va_end(args);
    return neg_errno;
}

void err_clear(void)
{
    err_line[0] = '\0';
}

const char *err_text(void)
{
    return err_line;
}

THAW_EXPORT const char *thaw_last_error(void)
{
    return err_line;
}

struct err_kept err_keep(int r)
{
    struct err_kept e = {.r = r};

    (void)snprintf(e.text, sizeof(e.text), "%s", err_text());
    return e;
}

int err_tell(const struct err_kept *e, int undone)
{
    struct err_kept then;

    if (undone == 0)
        return err_origin(e->r, "%s", e->text);
    then = err_keep(undone);
    return err_origin(e->r, "%s; and then: %s", e->text, then.text);
}
