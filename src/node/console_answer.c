/* SPDX-License-Identifier: Apache-2.0 */
/*
 * console_answer.c - what is typed to run a command, and its output out of what comes back
 *
 * The text is searched as it grows. As long as no end was found its last bytes may be the beginning of the end tag, so they are
 * kept back.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "node/console.h"

#define TAG_BYTES 96u
#define KILL_LINE "\x15" /* Ctrl-U, to terminals and to shells that edit lines */

/* quote() - in single quotes, for a shell. Return: (give) NULL: no memory */
static char *quote(const char *text)
{
    static const char mark[] = "'\\''";
    char *quoted = malloc(strlen(text) * (sizeof(mark) - 1) + 3);
    char *at = quoted;

    if (!quoted)
        return NULL;
    *at++ = '\'';
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            at = stpcpy(at, mark);
        else
            *at++ = *text;
    }
    *at++ = '\'';
    *at = '\0';
    return quoted;
}

int console_line(const char *command, enum console_shell shell, const char *tag, char **out)
{
    bool child = shell == CONSOLE_SHELL_CHILD;
    char *quoted;
    char *line = NULL;
    int n;

    for (const char *c = command; *c != '\0'; c++) {
        if (iscntrl((unsigned char)*c))
            return err_origin(-EINVAL, "the command has a control character: it cannot be typed");
    }
    quoted = quote(command);
    n = quoted ? asprintf(&line,
                          KILL_LINE "echo \"thaw-b\"\"egin-%s\"; %seval %s%s </dev/null; echo "
                                    "\"thaw-e\"\"nd-%s\" $?\n",
                          tag, child ? "(" : "", quoted, child ? ")" : "", tag)
               : -1;
    free(quoted);
    if (n < 0)
        return err_origin_errno(-ENOMEM, "cannot run a command");
    if (n > (int)CONSOLE_LINE_MAX) {
        free(line);
        return err_origin(-EINVAL,
                          "the command is too long: with what is needed around it a line of %d "
                          "bytes, expected %u at most",
                          n, CONSOLE_LINE_MAX);
    }
    *out = line;
    return 0;
}

int console_answer_add(struct console_answer *a, const char *bytes, size_t len)
{
    char *more;

    if (a->ended)
        return 0;
    if (a->len + len > CONSOLE_OUTPUT_MAX)
        return err_origin(-EFBIG, "the guest has written more than %llu bytes", CONSOLE_OUTPUT_MAX);
    more = realloc(a->text, a->len + len + 1);
    if (!more)
        return err_origin_errno(-ENOMEM, "cannot keep what the guest has written");
    a->text = more;
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != '\r' && bytes[i] != '\0')
            a->text[a->len++] = bytes[i];
    }
    a->text[a->len] = '\0';
    return 0;
}

static void forget(struct console_answer *a, size_t n)
{
    memmove(a->text, a->text + n, a->len - n + 1);
    a->len -= n;
}

/* find_begin() - what comes before it is not the command's */
static void find_begin(struct console_answer *a)
{
    char tag[TAG_BYTES];
    int n = snprintf(tag, sizeof(tag), "thaw-begin-%s\n", a->tag);
    const char *at = strstr(a->text, tag);

    if (!at)
        return;
    a->begun = true;
    forget(a, (size_t)(at - a->text) + (size_t)n);
}

/* find_end() - how much of the text is output: all before the end's tag, or all that cannot be a part of it */
static size_t find_end(struct console_answer *a)
{
    char tag[TAG_BYTES];
    size_t n = (size_t)snprintf(tag, sizeof(tag), "thaw-end-%s ", a->tag);
    const char *at = strstr(a->text, tag);
    size_t digits = at ? strspn(at + n, "0123456789") : 0;

    if (!at)
        return a->len >= n ? a->len - n + 1 : 0;
    if (digits == 0 || at[n + digits] != '\n')
        return (size_t)(at - a->text); /* the status is on its way */
    a->status = atoi(at + n);
    a->ended = true;
    return (size_t)(at - a->text);
}

int console_answer_take(struct console_answer *a, char **out, size_t *len)
{
    size_t n;

    *out = NULL;
    *len = 0;
    if (!a->begun && a->text)
        find_begin(a);
    if (!a->begun || a->ended)
        return 0;
    n = find_end(a);
    if (n == 0)
        return 0;
    *out = strndup(a->text, n);
    if (!*out)
        return err_origin_errno(-ENOMEM, "cannot keep what the guest has written");
    *len = n;
    forget(a, n);
    return 0;
}

void console_answer_deinit(struct console_answer *a)
{
    free(a->text);
    *a = (struct console_answer){0};
}
