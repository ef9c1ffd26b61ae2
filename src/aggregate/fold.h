/*-------------------------------------------------------------------------
 * fold.h
 *	  Replay: snapshot + the events after it -> state.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_FOLD_H
#define CQRS_ES_FOLD_H

#include "fmgr.h"

#include "base/stream_key.h"
#include "aggregate/aggregate.h"

/* A stream's state after the event with sequence `version`. */
typedef struct FoldedState
{
	int64		version;		/* 0: the stream has no events */
	Jsonb	   *state;
} FoldedState;

extern Aggregate *FoldStreamArgs(FunctionCallInfo fcinfo, StreamKey *key);
extern FoldedState FoldWholeStream(Aggregate *aggregate, const StreamKey *key,
								   int64 up_to_sequence);
extern FoldedState FoldStream(Aggregate *aggregate, const StreamKey *key,
							  int64 up_to_sequence);
extern void FoldMore(FoldedState *folded, Aggregate *aggregate, const StreamKey *key,
					 Event *events, int nevents);

#endif							/* CQRS_ES_FOLD_H */
