/*-------------------------------------------------------------------------
 * reducer.h
 *	  Declared aggregates with their reducers: state + event -> state.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_REDUCER_H
#define CQRS_ES_REDUCER_H

#include "fmgr.h"
#include "utils/jsonb.h"

#include "base/registry.h"
#include "base/registry_function.h"
#include "log/events.h"

struct ReducerProgram;

/* How one event type changes the state: a program, or a function. */
typedef struct Reducer
{
	text	   *event_type;
	struct ReducerProgram *program; /* NULL: it is a function */
	RegistryFunction function;
}			Reducer;

/* A declared aggregate.  Lives in the registry cache, until the transaction ends. */
typedef struct Aggregate
{
	RegistryEntry entry;		/* its key is the aggregate type */
	bool		declared;
	Jsonb	   *initial_state;
	int32		snapshot_every; /* 0: never */
	int32		keep_snapshots;
	bytea	   *fingerprint;	/* of all that decides what a fold results in */
	char	   *row_versions;	/* of the rows that all that was read from */
	int			nreducers;
	Reducer    *reducers;
}			Aggregate;

extern void ReducerInit(void);
extern Aggregate * AggregateGet(const text *aggregate_type);
extern Aggregate * AggregateRequire(const text *aggregate_type);
extern bool AggregateIsCurrent(const Aggregate *aggregate);
extern void AggregateLock(const text *aggregate_type, bool change);
extern Reducer * ReducerFind(Aggregate *aggregate, const text *event_type);
extern Jsonb *ReducerCall(Reducer * reducer, FunctionCalls * calls, Jsonb *state,
						  const Event *event);

#endif							/* CQRS_ES_REDUCER_H */
