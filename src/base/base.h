/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_BASE_H
#define BASE_BASE_H

/*
 * base.h - what C leaves out: ownership helpers, checked arithmetic, and the project's units
 */

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef uint64_t pgno_t;   /* page number within the guest, 0..n_pages-1, regions laid end to end */
typedef uint64_t hva_t;    /* address in the VMM's memory */
typedef uint64_t imgoff_t; /* byte offset in the snapshot image */

#define KIB          1024ull
#define MIB          (1024ull * KIB)
#define GIB          (1024ull * MIB)

#define NS_PER_US    1000ull
#define NS_PER_MS    1000000ull
#define NS_PER_S     1000000000ull

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Hands a pointer over: the variable is NULL afterwards, so that its cleanup does nothing. */
#define TAKE(ptr)                       \
    ({                                  \
        __typeof__(ptr) taken_ = (ptr); \
        (ptr) = NULL;                   \
        taken_;                         \
    })

/* Hands an fd over: the variable is -1 afterwards. */
#define TAKE_FD(fd)        \
    ({                     \
        int taken_ = (fd); \
        (fd) = -1;         \
        taken_;            \
    })

#define _cleanup_(fn) __attribute__((cleanup(fn)))

/* A text that is freed, whatever happens. */
static inline void free_charp(char **p)
{
    free(*p);
}

#define _cleanup_free_ _cleanup_(free_charp)

/* Defines NAMEp(), for _cleanup_: frees what the variable points to. */
#define DEFINE_CLEANUP(type, name)                                                             \
    static inline void name##p(type *p) /* NOLINT(bugprone-macro-parentheses): a declarator */ \
    {                                                                                          \
        if (*p)                                                                                \
            name(*p);                                                                          \
    }                                                                                          \
    static_assert(true, "")

#define THAW_EXPORT            __attribute__((visibility("default")))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/** align_down() - @v rounded down to a multiple of @to, a power of two */
static inline uint64_t align_down(uint64_t v, uint64_t to)
{
    return v & ~(to - 1);
}

/** align_up() - @v rounded up to a multiple of @to, a power of two; the caller knows that it does not overflow */
static inline uint64_t align_up(uint64_t v, uint64_t to)
{
    return (v + to - 1) & ~(to - 1);
}

/** compare_u64() - the order of two uint64_t, for qsort() */
static inline int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static inline bool is_power_of_two(uint64_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

#endif
