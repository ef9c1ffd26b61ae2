/*-------------------------------------------------------------------------
 * reducer_state.h
 *	  A state while it is folded.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_REDUCER_STATE_H
#define CQRS_ES_REDUCER_STATE_H

#include "aggregate/json_tree.h"
#include "aggregate/reducer.h"

/* The state, in one of two forms: the one that is not NULL. */
typedef struct ReducerState
{
	JsonNode   *tree;
	MemoryContext tree_memory;

	Jsonb	   *flat;
	MemoryContext flat_memory[2];
	int			current;		/* which of the two holds flat */

	bool		hides;			/* personal data of events are null */
	FunctionCalls calls;
} ReducerState;

extern void ReducerStateInit(ReducerState *state, Jsonb *json);
extern void ReducerStateApply(ReducerState *state, const StateRules *rules, Event *event);
extern Jsonb *ReducerStateJsonb(const ReducerState *state);
extern void ReducerStateEnd(ReducerState *state);

#endif							/* CQRS_ES_REDUCER_STATE_H */
