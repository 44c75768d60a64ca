/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_IMAGE_IMAGE_H
#define CLI_IMAGE_IMAGE_H

/*
 * image.h - the verbs of `thaw image`, and what they share
 *
 * Each takes its own part of the arguments (argv[0] is the verb) and returns the exit status.
 */

#include "cli/progress.h"
#include "image/image_job.h"
#include "image/store.h"

int image_diff(int argc, char **argv);
int image_fill(int argc, char **argv);
int image_gc(int argc, char **argv);
int image_inspect(int argc, char **argv);
int image_ls(int argc, char **argv);
int image_pack(int argc, char **argv);
int image_rm(int argc, char **argv);
int image_unpack(int argc, char **argv);
int image_verify(int argc, char **argv);

/** image_store_path() - the store's folder: @given, or $THAW_STORE, or the usual one */
const char *image_store_path(const char *given);

/**
 * image_store_named() - a store that somebody named is there: a name that is wrong is not an empty store
 * @path: as image_store_path() has it. The default one comes with its first image, and need not be there.
 *
 * Return: CLI_OK, or CLI_FAILED and a line on stderr
 */
int image_store_named(const char *verb, const char *path);

/** image_parse_threads() - the argument of --threads. Return: CLI_OK, or CLI_USAGE and a line on stderr */
int image_parse_threads(const char *verb, const char *text, unsigned *n_threads);

/** struct image_work - long work: its threads, a bar where stderr is a terminal, and signals that end it */
struct image_work {
    struct image_job job;
    struct progress progress;
};

/**
 * image_work_begin() - from here on SIGINT, SIGTERM and SIGHUP end the work, which then fails and leaves nothing behind
 * @n_threads: 0: as many as there are processors
 *
 * A file that must not grow further is an error from here on, not a signal, and as many files may be open as the system allows.
 */
void image_work_begin(struct image_work *w, unsigned n_threads);

/** image_work_stopped() - did one of these signals come? Return: 0, or -EINTR with a text */
int image_work_stopped(void);

/** image_work_end() - the bar goes away */
void image_work_end(struct image_work *w);

#endif
