/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

int cli_flush(const char *verb, int status)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return cli_error(verb, "cannot write: %s", strerror(errno));
    return status;
}

const char *cli_when(uint64_t seconds, char *buf, size_t len)
{
    time_t t = (time_t)seconds;
    struct tm tm;

    if (seconds == 0 || !localtime_r(&t, &tm) || strftime(buf, len, "%Y-%m-%d %H:%M", &tm) == 0)
        (void)snprintf(buf, len, "-");
    return buf;
}

static void print_group(const struct cli_group *g)
{
    (void)printf("usage: thaw %s VERB [ARGUMENTS]\n\n%s\n", g->name, g->intro);
    for (size_t i = 0; i < g->n_verbs; i++) {
        if (g->verbs[i].what)
            (void)printf("  %-8s %s\n", g->verbs[i].name, g->verbs[i].what);
    }
    (void)printf("\n  -h, --help  this text\n\nthaw %s VERB --help and thaw-%s(1) say more.\n",
                 g->name, g->name);
}

int cli_group_run(const struct cli_group *g, int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    for (size_t i = 0; i < g->n_verbs; i++) {
        if (strcmp(name, g->verbs[i].name) == 0)
            return g->verbs[i].run(argc - 1, argv + 1);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_group(g);
        return CLI_OK;
    }
    if (argc < 2)
        return cli_usage_error(g->name, "expected what to do, such as %s", g->example);
    return cli_usage_error(g->name, "no such thing to do: %s", name);
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
