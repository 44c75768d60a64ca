/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_QMP_H
#define VMM_QMP_H

/*
 * qmp.h - QEMU's control socket: commands and their answers, one after the other
 *
 * Each message is a line of JSON. QEMU greets, then answers; events come in between and are skipped. QEMU talks to one client
 * at a time: a second connection is made and not greeted until the first one is closed.
 */

#include <jansson.h>

#include "base/base.h"

struct qmp;

/**
 * qmp_new() - greet each other
 * @fd:          (take, even on an error) connected, non-blocking
 * @deadline_ns: for this and all commands, of clock_now_ns()
 *
 * Return: 0; -ETIMEDOUT, -ECONNRESET (QEMU is gone), -EPROTO (that is no QEMU) or another negative errno; with a text
 */
int qmp_new(struct qmp **out, int fd, uint64_t deadline_ns);

/** qmp_free() - @qmp: (take) may be NULL. Return: NULL */
struct qmp *qmp_free(struct qmp *qmp);

/**
 * qmp_execute() - a command, until it is answered
 * @args: (take) what it is given; NULL: nothing. An object that jansson could not make is an error here
 * @out:  (give) json_decref() it: what it returned. NULL: it is not wanted
 *
 * Return: 0; -EIO with QEMU's own words if it refuses; -EOPNOTSUPP if it does not know the command; else as qmp_new()
 */
int qmp_execute(struct qmp *qmp, const char *command, json_t *args, json_t **out);

/** qmp_give_fd() - hand over @fd (borrow) under a name that other commands use, such as "fd:NAME". Return: as qmp_execute() */
int qmp_give_fd(struct qmp *qmp, const char *name, int fd);

DEFINE_CLEANUP(struct qmp *, qmp_free);

#define _cleanup_json_ _cleanup_(json_decrefp)

#endif
