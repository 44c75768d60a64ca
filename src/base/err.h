/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

/*
 * err.h - errors: where they start and the sentence that people read
 *
 * Functions return < 0 (a negative errno: something broke, pass it on unchanged), 0, or > 0 (an outcome that this one
 * function documents and its caller handles). An error starts once, in err_origin(), which records the sentence; on the
 * way up it is returned as it is. The sentence is per thread and lives until the thread's next err_origin().
 */

#include "base/base.h"

/**
 * err_origin() - an error begins here
 * @neg_errno: a negative errno
 * @fmt:       one line: what was tried, on what, what was expected; without the errno's own text
 *
 * Return: @neg_errno
 */
int err_origin(int neg_errno, const char *fmt, ...) PRINTF_LIKE(2, 3);

/** err_origin_errno() - the same, with @neg_errno's own text added: "...: No such file or directory" */
int err_origin_errno(int neg_errno, const char *fmt, ...) PRINTF_LIKE(2, 3);

/** err_clear() - forget this thread's last error: what err_text() says from here on is newer */
void err_clear(void);

/** err_text() - the sentence of this thread's last error; "" if there was none */
const char *err_text(void);

#define ERR_TEXT_BYTES 512 /* of a sentence, with its end; longer ones are cut */

/** struct err_kept - an error that is told later: what is done to take something back may go wrong, too */
struct err_kept {
    int r;
    char text[ERR_TEXT_BYTES];
};

/** err_keep() - @r: with a text */
struct err_kept err_keep(int r);

/** err_tell() - @undone: what came of taking it back, with a text if < 0. Return: the error that was kept, with a text */
int err_tell(const struct err_kept *e, int undone);

#endif
