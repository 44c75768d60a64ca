/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_STRESS_STRESS_H
#define TESTS_STRESS_STRESS_H

/*
 * stress.h - the parts of the stress program and what they know of each other
 *
 *     history.c   what happened to a page, and what a read of it may have seen
 *     ops.c       the operations on guest memory: read, write, add, remove, by instruction and by system call
 *     roles.c     what writers, readers and removers do all day
 *     stalls.c    how long operations took
 *     stress.c    the theory of the whole, the command line, the watchdog, the result
 *
 * Pages are numbered in the order of their addresses here, so that a run of numbers is a run of addresses, whatever
 * regions it goes over; struct world knows where in the image each is.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "history.h"
#include "../lib/fakevmm.h"

#define N_HOT      8    /* pages that half of all operations go to */
#define RUN_MAX    512u /* pages of one removal */
#define STALL_LIST 4096u
#define STALL_NS   1000000u /* what takes longer is a stall */
#define ACTORS_MAX 256u
#define SLOTS      (64 * 16)

/** struct stall - one operation that took long */
struct stall {
    uint64_t end_ns; /* CLOCK_MONOTONIC */
    uint32_t us;
    uint32_t actor;
};

/** struct stalls - of one thread; slots are a histogram of microseconds, 16 for each power of two */
struct stalls {
    uint64_t n;
    uint64_t longest_us;
    uint64_t slots[SLOTS];
    struct stall *list; /* the longest ones */
    unsigned n_list;
    uint32_t floor_us; /* shorter ones are not listed any more */
};

enum role {
    ROLE_WRITER,
    ROLE_READER,
    ROLE_REMOVER,
    N_ROLES,
};

/** struct world - guest memory and its history */
struct world {
    struct guest guest;
    struct history *pages;
    uint8_t **hva;      /* of each page */
    uint64_t *in_image; /* number of each page in the image */
    uint64_t n_pages;
    uint64_t page_bytes;
    uint64_t hot[N_HOT];
    uint64_t n_lonely;         /* threads that have a page of their own */
    _Atomic uint64_t frontier; /* pages from here on are left for later */
    atomic_bool stop;
    atomic_uint n_errors;
};

/** struct counts - what one thread did */
struct counts {
    uint64_t reads, raced, unjudged;
    uint64_t fills, words, adds, syscalls, removals, pages_removed;
    uint64_t left_alone; /* too much was going on at the page already */
};

struct wrong {
    uint64_t page, in_image, expected, got;
    uint32_t word;
    const char *what;
};

/** struct actor - one thread that uses guest memory */
struct actor {
    struct world *world;
    unsigned id;
    enum role role;
    uint64_t rng;
    uint64_t first, end; /* the last look at all pages: which */

    /* read by the watchdog */
    _Atomic(const char *) doing;
    _Atomic uint64_t doing_page;
    _Atomic uint64_t since_ns; /* 0: not touching guest memory */
    atomic_bool done;

    struct counts counts;
    struct stalls stalls;
    struct wrong first_wrong;
    unsigned n_wrong;
    struct view view;
    struct ticket tickets[RUN_MAX];
    uint64_t *words; /* a page; mapped from .file, so that system calls move the same bytes */
    int file;
    pthread_t thread;
};

uint64_t now_ns(void);

/* ---- operations: each is judged by itself; false: the page was left alone ---- */

void op_read(struct actor *a, uint64_t page);
void op_read_word(struct actor *a, uint64_t page, uint32_t word);
void op_read_by_syscall(struct actor *a, uint64_t page);
bool op_fill(struct actor *a, uint64_t page);
bool op_fill_by_syscall(struct actor *a, uint64_t page);
bool op_write_cell(struct actor *a, uint64_t page, unsigned cell);
void op_add(struct actor *a, uint64_t page);

/** op_remove() - MADV_DONTNEED of [@page, @page + @n), or less. Return: how many pages */
uint64_t op_remove(struct actor *a, uint64_t page, uint64_t n);

/* ---- roles ---- */

extern const char *const role_names[N_ROLES];

uint64_t actor_random(struct actor *a);

/** role_run() - until world.stop */
void role_run(struct actor *a);

/** world_choose_pages() - the hot ones: pairs of neighbours, one of them at a border of regions; and the lonely ones */
void world_choose_pages(struct world *w, uint64_t seed, unsigned n_threads);

/* ---- stalls ---- */

void stalls_init(struct stalls *s);
void stalls_note(struct stalls *s, unsigned actor, uint64_t begin_ns, uint64_t end_ns);

/** stalls_print() - members "stalls" and "stall_list" of the result */
void stalls_print(const struct actor *actors, unsigned n);

#endif
