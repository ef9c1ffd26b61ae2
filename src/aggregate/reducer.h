/*-------------------------------------------------------------------------
 * reducer.h
 *	  Reducers: state + event -> state.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_REDUCER_H
#define CQRS_ES_REDUCER_H

#include "fmgr.h"
#include "utils/jsonb.h"

#include "base/registry_function.h"
#include "log/events.h"
#include "aggregate/state_rules.h"

struct ReducerProgram;

/* How one event type changes the state: a program, or a function. */
typedef struct Reducer
{
	text	   *event_type;
	struct ReducerProgram *program; /* NULL: it is a function */
	RegistryFunction function;
} Reducer;

extern void ReducerInit(void);
extern Reducer *ReducerFind(const StateRules *rules, const text *event_type);
extern void ReducersRequireRights(const StateRules *rules);
extern Jsonb *ReducerCall(Reducer *reducer, FunctionCalls *calls, Jsonb *state,
						  const Event *event);

#endif							/* CQRS_ES_REDUCER_H */
