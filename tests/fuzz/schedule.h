/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_SCHEDULE_H
#define FUZZ_SCHEDULE_H

/* schedule.h - random schedules for the simulation: numbered, each number always gives the same bytes */

#include "base/base.h"

#define SCHEDULE_BYTES_MAX 3072u

/** schedule_fill() - the bytes of schedule @number. @bytes: room for SCHEDULE_BYTES_MAX. Return: how many */
static inline size_t schedule_fill(uint64_t number, uint8_t *bytes)
{
    uint64_t state = number * 0x9e3779b97f4a7c15ull;
    size_t n_bytes = 0;
    size_t target = SCHEDULE_BYTES_MAX;

    for (size_t i = 0; n_bytes < target; i++) {
        uint64_t z = (state += 0x9e3779b97f4a7c15ull);

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        z ^= z >> 31;
        if (i == 0) {
            target = 64 + (size_t)(z % (SCHEDULE_BYTES_MAX - 64));
            continue;
        }
        for (unsigned k = 0; k < 8 && n_bytes < target; k++)
            bytes[n_bytes++] = (uint8_t)(z >> (8 * k));
    }
    return n_bytes;
}

#endif
