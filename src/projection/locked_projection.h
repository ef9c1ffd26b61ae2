/*-------------------------------------------------------------------------
 * locked_projection.h
 *	  A projection whose row in the registry is locked.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_LOCKED_PROJECTION_H
#define CQRS_ES_LOCKED_PROJECTION_H

#include "projection/coverage.h"
#include "projection/projection.h"

typedef struct LockedProjection
{
	Projection *projection;
	Coverage	handled;		/* of a paused one; of an asynchronous one at work: what
								 * it passes over, for it was handled before */
	int64		rebuilt_to;		/* the end of a rebuild in portions that is under way, or
								 * 0 */
	uint64		rebuilt_tags;	/* what EventFilterAsk returned when that began; 0: it
								 * has no tags */
	bool		live_after;		/* and is it to be live then? */
	bool		written_here;	/* by this transaction: others see an older row */
	bool		unresolved;		/* others may have found less of what it names */
} LockedProjection;

extern LockedProjection LockedProjectionArg(const text *name, const char *function);
extern void LockedProjectionRequireReadCommitted(const char *function);
extern void LockedProjectionAwaitAppends(const LockedProjection *locked);
extern void LockedProjectionHoldStill(LockedProjection *locked);
extern void LockedProjectionHandlesVisible(LockedProjection *locked);
extern uint64 LockedProjectionRebuiltTags(const LockedProjection *locked);
extern void LockedProjectionSave(const LockedProjection *locked);

#endif							/* CQRS_ES_LOCKED_PROJECTION_H */
