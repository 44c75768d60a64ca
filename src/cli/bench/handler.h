/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BENCH_HANDLER_H
#define CLI_BENCH_HANDLER_H

/*
 * handler.h - a page-fault handler as a child process: start it, pin it, weigh it, stop it
 */

#include <sys/types.h>

#include "base/base.h"

/** struct bench_handler_spec - how a handler is called */
struct bench_handler_spec {
    char name[32];
    const char
        *command; /* words between blanks; see struct bench_paths for those in braces (borrow) */
    bool roams;   /* it chooses its core itself: it is bound to none, whatever the placement says */
};

/** struct bench_handler - one that runs; pid 0: none */
struct bench_handler {
    pid_t pid;
    int pidfd;
    char log_path[256]; /* its stderr */
};

/** struct bench_paths - what the words in braces of a command stand for */
struct bench_paths {
    const char *self;   /* {self}: this program */
    const char *socket; /* {socket} */
    const char *memory; /* {memory} */
    const char *dir;    /* {dir}: a folder for whatever it leaves */
};

/** struct bench_weight - what a handler holds in memory, bytes */
struct bench_weight {
    uint64_t rss_beyond; /* resident, all of its mappings but the memory file's */
    uint64_t anonymous;  /* of these, anonymous */
    uint64_t page_tables;
};

/**
 * bench_handler_start() - start @spec's command
 * @h:   becomes valid on success
 * @cpu: core to which it is bound from its first instruction, -1: none
 *
 * The child is killed when this process ends. Return: 0 or a negative errno with a text.
 */
int bench_handler_start(struct bench_handler *h, const struct bench_handler_spec *spec,
                        const struct bench_paths *paths, int cpu);

/**
 * bench_handler_pin() - bind all of its threads to @cpu (-1: leave them). Return: 0 or a negative
 * errno
 */
int bench_handler_pin(const struct bench_handler *h, int cpu);

/**
 * bench_handler_cpu() - CPU time that its threads have used
 * @ns: sum of the first field of /proc/PID/task/TID/schedstat; exact for a thread that sleeps
 *
 * Return: 0; -ENOENT when this kernel does not count it.
 */
int bench_handler_cpu(const struct bench_handler *h, uint64_t *ns);

/** bench_handler_weigh() - read its /proc/PID/smaps. Return: 0 or a negative errno */
int bench_handler_weigh(const struct bench_handler *h, const char *memory_path,
                        struct bench_weight *out);

/**
 * bench_process_ended() - how the child @pid, which has ended or is about to, did so; it stays a
 * zombie
 * @how: "exit status 1", "signal 9 (Killed)"
 */
void bench_process_ended(pid_t pid, char *how, size_t len);

/** bench_handler_wait() - wait until it has ended, but not longer than @timeout_ms */
void bench_handler_wait(const struct bench_handler *h, unsigned timeout_ms);

/** bench_handler_last_words() - the last line of its stderr; "" if it wrote none */
void bench_handler_last_words(const struct bench_handler *h, char *line, size_t len);

/** bench_handler_stop() - give it @patience_ms to end by itself, then kill it; it is gone on return
 */
void bench_handler_stop(struct bench_handler *h, unsigned patience_ms);

#endif
