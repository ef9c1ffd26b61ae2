/*-------------------------------------------------------------------------
 * state_projection.h
 *	  The ready-made projection: the current state of aggregates as a table.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_STATE_PROJECTION_H
#define CQRS_ES_STATE_PROJECTION_H

#include "aggregate/fold.h"
#include "base/definer.h"
#include "log/events.h"

typedef struct StateProjection StateProjection;

extern StateProjection *StateProjectionMake(const char *projection, Oid table,
											text *aggregate_type, const Definer *definer);
extern void StateProjectionRequireRights(const StateProjection *state);
extern void StateProjectionCheck(const StateProjection *state);
extern bool StateProjectionIsDirect(const StateProjection *state);
extern void StateProjectionBegin(StateProjection *state);
extern const FoldWatch *StateProjectionFailedAt(const StateProjection *state);
extern bool StateProjectionRun(StateProjection *state, const Event *event, bool replayed, bool one_event);

#endif							/* CQRS_ES_STATE_PROJECTION_H */
