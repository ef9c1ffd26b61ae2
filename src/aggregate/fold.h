/*-------------------------------------------------------------------------
 * fold.h
 *	  Replay: snapshot + the events after it -> state.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_FOLD_H
#define CQRS_ES_FOLD_H

#include "fmgr.h"

#include "base/stream_key.h"
#include "log/event_scan.h"
#include "aggregate/aggregate.h"

/* A stream's state after the event with sequence `version`. */
typedef struct FoldedState
{
	int64		version;		/* 0: the stream has no events */
	TimestampTz last_event_at;	/* the greatest created_at of its events */
	int64		nread;			/* so many events were read for it */
	bool		deleted;		/* the last event is '$deleted': there is no state */
	Jsonb	   *state;
} FoldedState;

/* Which event a fold was at, also when it failed. */
typedef struct FoldWatch
{
	int64		sequence;		/* 0: none yet */
	int64		global_position;
	char		event_type[EVENT_TYPE_MAX_BYTES + 1];
} FoldWatch;

extern Aggregate *FoldStreamArgs(FunctionCallInfo fcinfo, StreamKey *key);
extern FoldedState FoldStream(Aggregate *aggregate, const StreamKey *key,
							  int64 up_to_sequence);
extern FoldedState FoldStreamNewest(Aggregate *aggregate, const StreamKey *key,
									int64 up_to_sequence);
extern FoldedState FoldStreamShown(Aggregate *aggregate, const StreamKey *key,
								   int64 up_to_sequence);
extern FoldedState FoldStreamWatched(Aggregate *aggregate, const StreamKey *key,
									 int64 up_to_sequence, FoldWatch *watch);
extern FoldedState FoldWholeStream(Aggregate *aggregate, const StreamKey *key,
								   int64 up_to_sequence, FoldWatch *watch);
extern void FoldOn(FoldedState *folded, Aggregate *aggregate, const StreamKey *key, FoldWatch *watch);
extern bool FoldOnBehind(FoldedState *folded, const StreamTip *last, Aggregate *aggregate,
						 const StreamKey *key, int64 up_to_sequence);
extern void FoldMore(FoldedState *folded, Aggregate *aggregate, const StreamKey *key,
					 const Event *events, int nevents, FoldWatch *watch);

#endif							/* CQRS_ES_FOLD_H */
