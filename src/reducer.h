/*-------------------------------------------------------------------------
 * reducer.h
 *	  Declared aggregates with their reducers: state + event -> state.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_REDUCER_H
#define CQRS_ES_REDUCER_H

#include "fmgr.h"
#include "utils/jsonb.h"

#include "events.h"
#include "registry.h"

/* How one event type changes the state. */
typedef struct Reducer
{
	text	   *event_type;
	char	   *signature;		/* of the function, for messages */
	Oid			function;		/* invalid: it no longer exists */
	FmgrInfo	finfo;
	bool		ready;			/* is finfo filled in? */
	Oid			checked_role;	/* who was last found to have EXECUTE */
}			Reducer;

/* A declared aggregate.  Lives in the registry cache, until the transaction ends. */
typedef struct Aggregate
{
	char		aggregate_type[REGISTRY_KEY_BYTES];
	bool		loaded;
	bool		declared;
	Jsonb	   *initial_state;
	int32		snapshot_every; /* 0: never */
	bytea	   *fingerprint;	/* of all that decides what a fold results in */
	int			nreducers;
	Reducer    *reducers;
}			Aggregate;

extern Aggregate * AggregateGet(const text *aggregate_type);
extern Aggregate * AggregateRequire(const text *aggregate_type);
extern Jsonb *ReducerApply(Aggregate *aggregate, Jsonb *state, const Event *event);

#endif							/* CQRS_ES_REDUCER_H */
