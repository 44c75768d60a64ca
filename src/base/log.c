/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

#define LOG_LINE_BYTES 1024

void log_line(const struct log_sink *sink, enum thaw_log_level level, const char *fmt, ...)
{
    char line[LOG_LINE_BYTES];
    va_list args;

    if (!sink->fn)
        return;
    va_start(args, fmt);
    (void)vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    for (char *c = line; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' '; /* one event stays one line, whatever a path contains */
    }
    sink->fn(sink->ctx, level, line);
}

const char *log_level_name(enum thaw_log_level level)
{
    static const char *const names[] = {
        [THAW_LOG_ERROR] = "error",
        [THAW_LOG_WARN] = "warn",
        [THAW_LOG_INFO] = "info",
        [THAW_LOG_DEBUG] = "debug",
    };

    assert((size_t)level < ARRAY_LEN(names));
    return names[level];
}
