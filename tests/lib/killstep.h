/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_KILLSTEP_H
#define TESTS_KILLSTEP_H

/*
 * killstep.h - the parts of killstep and what they know of each other
 *
 *     killstep.c         the VMM: its memory, what each page must hold, the scenarios, the command line
 *     killstep_doer.c    threads that use the memory on request, and may sleep in it for long
 *     killstep_trace.c   stepping a pager to a place and killing it there
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- doers ---- */

#define N_DOERS 2u

/** enum deed - what a thread does to guest memory */
enum deed {
    DEED_NONE,
    DEED_READ,    /* read the first word of the page */
    DEED_WRITE,   /* write the last word of the page */
    DEED_DISCARD, /* madvise(MADV_DONTNEED) of n pages */
};

/** struct order - a deed for a doer */
struct order {
    enum deed deed;
    uint8_t *page;
    unsigned n;
    uint64_t word; /* to be written */
};

/** doers_start() - start the threads; they live to the process's end */
void doers_start(void);

/** doer_order() - have doer @i do something; it must have done its last order */
void doer_order(unsigned i, const struct order *order);

/** doers_done() - have all orders been carried out? */
bool doers_done(void);

/** doers_done_ns() - when the last one was; CLOCK_MONOTONIC */
uint64_t doers_done_ns(void);

/* ---- tracing ---- */

/** struct place - a moment in the life of a pager: after @n_syscalls system calls, @n_steps instructions later */
struct place {
    unsigned n_syscalls;
    unsigned n_steps; /* STEPS_ALL: just before the next system call */
};

#define STEPS_ALL UINT32_MAX

/** enum reached - where the stepping ended */
enum reached {
    REACHED_PLACE,
    REACHED_SYSCALL, /* the next system call came before n_steps: the place does not exist */
    REACHED_SLEEP, /* all is done and the pager is about to sleep: the scenario has no more places */
};

/** trace_stop() - attach to a pager and stop its first thread */
void trace_stop(pid_t pid);

/**
 * trace_step_to() - run the stopped pager, instruction by instruction, to @place or until it would sleep with nothing to do
 * @also_done: is done what the pager does by itself? NULL: it does nothing by itself
 */
enum reached trace_step_to(pid_t pid, const struct place *place, bool (*also_done)(void));

/** trace_kill() - SIGKILL; it is dead when this returns. Return: CLOCK_MONOTONIC of the kill */
uint64_t trace_kill(pid_t pid);

/** trace_let_go() - detach, it goes on */
void trace_let_go(pid_t pid);

/** is_sleeping() - is the process's first thread asleep in epoll? */
bool is_sleeping(pid_t pid);

uint64_t now_ns(void);

#endif
