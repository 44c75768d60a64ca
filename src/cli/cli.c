/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

PRINTF_LIKE(3, 0)
static void print_error(const char *verb, const char *hint, const char *fmt, va_list args)
{
    char line[1024];

    (void)vsnprintf(line, sizeof(line), fmt, args);
    (void)fprintf(stderr, "thaw%s%s: %s%s\n", verb[0] != '\0' ? " " : "", verb, line, hint);
}

int cli_error(const char *verb, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    print_error(verb, "", fmt, args);
    va_end(args);
    return CLI_FAILED;
}

int cli_usage_error(const char *verb, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    print_error(verb, " (see --help)", fmt, args);
    va_end(args);
    return CLI_USAGE;
}

/* parse_digits() - a decimal number at the start of @text; *rest is what follows */
static int parse_digits(const char *text, uint64_t *value, const char **rest)
{
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    *value = strtoull(text, &end, 10);
    if (errno != 0)
        return -EINVAL;
    *rest = end;
    return 0;
}

int cli_parse_u64(const char *text, uint64_t max, uint64_t *value)
{
    const char *rest;

    if (parse_digits(text, value, &rest) < 0 || *rest != '\0' || *value > max)
        return -EINVAL;
    return 0;
}

int cli_parse_size(const char *text, uint64_t *bytes)
{
    const char *rest;
    uint64_t unit = 1;

    if (parse_digits(text, bytes, &rest) < 0)
        return -EINVAL;
    switch (*rest) {
    case 'K':
    case 'k':
        unit = KIB;
        break;
    case 'M':
    case 'm':
        unit = MIB;
        break;
    case 'G':
    case 'g':
        unit = GIB;
        break;
    case '\0':
        return 0;
    default:
        return -EINVAL;
    }
    return rest[1] == '\0' && !__builtin_mul_overflow(*bytes, unit, bytes) ? 0 : -EINVAL;
}
