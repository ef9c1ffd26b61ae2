/*-------------------------------------------------------------------------
 * decider.h
 *	  Deciders: state + command -> events.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_DECIDER_H
#define CQRS_ES_DECIDER_H

#include "aggregate/reducer.h"

#define COMMAND_TYPE_MAX_BYTES	255

extern Jsonb *Decide(Aggregate *aggregate, const text *command_type, Jsonb *state,
					 Jsonb *command, const text *aggregate_id, Jsonb *metadata,
					 int64 version);

#endif							/* CQRS_ES_DECIDER_H */
