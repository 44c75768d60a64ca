/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

/* clock.h - time in nanoseconds */

#include <time.h>

#include "base/base.h"

/** clock_now_ns() - CLOCK_MONOTONIC; served from the vdso, no system call on a sane clock source */
uint64_t clock_now_ns(void);

/** clock_wall_ns() - CLOCK_REALTIME */
uint64_t clock_wall_ns(void);

/** clock_left_ms() - until @deadline_ns of clock_now_ns(), for poll(2): rounded up; 0 when it has passed */
int clock_left_ms(uint64_t deadline_ns);

/** clock_sleep_ns() - about so long; less if a signal comes. Not for a confined pager, which may not make this system call */
void clock_sleep_ns(uint64_t ns);

static inline struct timespec timespec_from_ns(uint64_t ns)
{
    return (struct timespec){
        .tv_sec = (time_t)(ns / NS_PER_S),
        .tv_nsec = (long)(ns % NS_PER_S),
    };
}

#endif
