/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

/* log.h - messages to whoever listens: logfmt lines, one event each; nothing is printed here */

#include <thaw/error.h>

#include "base/base.h"

/** struct log_sink - where a component's messages go; a zeroed one drops them */
struct log_sink {
    thaw_log_fn *fn; /* NULL: nobody listens */
    void *ctx;
};

/**
 * log_line() - send one event
 * @fmt: logfmt fields: `msg="listening" socket=%s`; control characters become blanks
 *
 * Context: allocates nothing; must not be called between a fault and its answer.
 */
void log_line(const struct log_sink *sink, enum thaw_log_level level, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

/** log_level_name() - "error", "warn", "info", "debug" */
const char *log_level_name(enum thaw_log_level level);

#endif
