/* SPDX-License-Identifier: Apache-2.0 */
#ifndef THAW_ERROR_H
#define THAW_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Every function of the library that can fail returns 0 or more on success and a negative errno on failure.
 * The sentence for people (what, where, what was expected) is kept per thread until the next failing call.
 */

/**
 * thaw_last_error() - one line that says what the last failing call of this thread ran into
 *
 * Return: never NULL; "" if no call failed. (borrow until this thread's next library call)
 */
const char *thaw_last_error(void);

/** enum thaw_log_level - how much a message matters; error: someone must act */
enum thaw_log_level {
    THAW_LOG_ERROR,
    THAW_LOG_WARN,
    THAW_LOG_INFO,
    THAW_LOG_DEBUG,
};

/**
 * thaw_log_fn - receives the library's messages; the library itself never prints
 * @ctx:   as given with the function
 * @level: see enum thaw_log_level
 * @line:  one line in logfmt without a newline (borrow until return)
 *
 * Context: any thread of the library; never called between a fault and its answer.
 */
typedef void thaw_log_fn(void *ctx, enum thaw_log_level level, const char *line);

#ifdef __cplusplus
}
#endif
#endif
