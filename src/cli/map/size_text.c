/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/map/size_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define N_BUFFERS    8u
#define BUFFER_BYTES 32u

static char *next_buffer(void)
{
    static _Thread_local char buffers[N_BUFFERS][BUFFER_BYTES];
    static _Thread_local unsigned turn;

    return buffers[turn++ % N_BUFFERS];
}

const char *size_text(uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    char *buf = next_buffer();
    char number[24];
    double v = (double)bytes;
    unsigned u = 0;
    size_t n;

    for (; v >= 1024; u++)
        v /= 1024;
    (void)snprintf(number, sizeof(number), "%.2f", v);
    n = strlen(number);
    while (number[n - 1] == '0')
        number[--n] = '\0';
    if (number[n - 1] == '.')
        number[--n] = '\0';
    (void)snprintf(buf, BUFFER_BYTES, "%s %s", number, units[u]);
    return buf;
}

const char *count_text(uint64_t count)
{
    char *buf = next_buffer();
    char digits[24];
    size_t n_digits;
    size_t at = 0;

    (void)snprintf(digits, sizeof(digits), "%" PRIu64, count);
    n_digits = strlen(digits);
    for (size_t i = 0; i < n_digits; i++) {
        if (i > 0 && (n_digits - i) % 3 == 0)
            buf[at++] = ',';
        buf[at++] = digits[i];
    }
    buf[at] = '\0';
    return buf;
}
