/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_ENGINE_CHECK_H
#define UNIT_ENGINE_CHECK_H

/*
 * engine_check.h - what must hold for an engine between two events
 *
 * The heart of it is invariant I1 as engine.h states it: each page that somebody waits for is in the event being handled,
 * or being fetched, or due for a retry. Between two events the first place is empty.
 */

#include "core/engine.h"

/**
 * engine_check() - look for a broken invariant
 * @e:      between two events, not stopped: no effect of it is waiting to be carried out
 * @now_ns: time of the last event
 *
 * Return: NULL, or a sentence (static memory, until the next call) that says what is wrong.
 */
const char *engine_check(const struct engine *e, uint64_t now_ns);

#endif
