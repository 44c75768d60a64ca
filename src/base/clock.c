/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <limits.h>

static uint64_t read_clock(clockid_t id)
{
    struct timespec ts;
    int r = clock_gettime(id, &ts);

    assert(r == 0);
    (void)r;
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t clock_now_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

int clock_left_ms(uint64_t deadline_ns)
{
    uint64_t now_ns = clock_now_ns();
    uint64_t left_ms = deadline_ns > now_ns ? (deadline_ns - now_ns - 1) / NS_PER_MS + 1 : 0;

    return left_ms > INT_MAX ? INT_MAX : (int)left_ms;
}

void clock_sleep_ns(uint64_t ns)
{
    struct timespec ts = timespec_from_ns(ns);

    (void)nanosleep(&ts, NULL);
}
