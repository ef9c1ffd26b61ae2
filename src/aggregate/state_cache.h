/*-------------------------------------------------------------------------
 * state_cache.h
 *	  States that a session keeps for its next commands.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_STATE_CACHE_H
#define CQRS_ES_STATE_CACHE_H

#include "aggregate/aggregate.h"
#include "aggregate/fold.h"

/* What a state was folded from. */
typedef struct StateOrigin
{
	StreamTip	end;			/* of the stream */
	uint64		changes;		/* until before it was looked at: state_cache.c's */
} StateOrigin;

extern void StateCacheInit(void);
extern FoldedState StateCacheFold(Aggregate *aggregate, const StreamKey *key,
								  StateOrigin *origin);
extern void StateCacheKeep(const Aggregate *aggregate, const StreamKey *key,
						   const FoldedState *folded, const Event *last,
						   const StateOrigin *origin);
extern bool StateCacheIsCurrent(const StateOrigin *origin);

#endif							/* CQRS_ES_STATE_CACHE_H */
