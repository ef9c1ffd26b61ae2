/*-------------------------------------------------------------------------
 * state_projection.h
 *	  The ready-made projection: the current state of aggregates as a table.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_STATE_PROJECTION_H
#define CQRS_ES_STATE_PROJECTION_H

#include "projection/handler.h"

extern struct StateProjection *StateProjectionMake(Oid table, text *aggregate_type);
extern void StateProjectionCheck(const struct StateProjection *state);
extern void StateProjectionValidate(Oid table);
extern void StateProjectionRun(const Handler *handler, const Event *event, bool replayed);

#endif							/* CQRS_ES_STATE_PROJECTION_H */
