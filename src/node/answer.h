/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_ANSWER_H
#define NODE_ANSWER_H

/* answer.h - does a guest answer? At the vsock port that its template names, and in the shell at its console */

#include "node/console.h"
#include "node/template.h"

/** struct answer_ways - where a guest answers; all zero: nowhere */
struct answer_ways {
    bool shell;
    unsigned vsock_port; /* 0: at none */
};

/** answer_ways() - of the guests of a template */
struct answer_ways answer_ways(const struct template *t);

/** answer_can() - is there anywhere to ask? */
bool answer_can(struct answer_ways ways);

/** answer_wait() - until the guest has answered everywhere. Return: as console_wait_text() */
int answer_wait(struct answer_ways ways, struct vmm *vm, const struct console_wait *wait);

/** answer_wait_port() - until somebody in the guest listens at a vsock port. Return: as console_wait_text() */
int answer_wait_port(struct vmm *vm, unsigned port, const struct console_wait *wait);

#endif
