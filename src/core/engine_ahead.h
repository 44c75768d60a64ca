/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_ENGINE_AHEAD_H
#define CORE_ENGINE_AHEAD_H

/*
 * engine_ahead.h - the engine's part that nobody has asked for: installing what is planned
 *
 *     AHEAD  >  LOCATE the next slice of the plan   LOCATED memory  >  COPY
 *                                                   LOCATED zero    >  ZERO
 *                                                   LOCATED away    >  FETCH; the plan waits there
 *                                                   LOCATED failed  >  nothing: a fault will say so, if one comes
 *
 * An AHEAD event is given when nothing else is to be done, and does nothing while an answer is put off or refused: demand
 * goes first. A slice is taken from pages that are ABSENT when the effect is made, and no event can come between the effect
 * and its outcome; so invariant I2 needs no more than that here. Several may be handed out before the first outcome is
 * reported (`many`): the same holds for all of them, if nothing else is handed in meanwhile. The walk passes such a slice
 * when its install is decided; what is not done then is left behind. What cannot be installed ahead (no memory, a range that is
 * not registered any more, bytes that cannot be read) is left to its fault: it stops nothing and nobody.
 */

#include "core/engine.h"

/** ahead_begin() - EVENT_AHEAD. Return: number of effects; 0: there is nothing to do now, or the plan is over */
unsigned ahead_begin(struct engine *e, const struct event *ev, struct effect *fx);

/** ahead_located() - the answer to a LOCATE of ahead_begin() */
unsigned ahead_located(struct engine *e, const struct event *ev, struct effect *fx);

/** ahead_done() - the outcome of an install that nobody waited for; not AGAIN without progress, which is everybody's */
unsigned ahead_done(struct engine *e, const struct event *ev, struct effect *fx);

#endif
