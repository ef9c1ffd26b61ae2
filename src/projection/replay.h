/*-------------------------------------------------------------------------
 * replay.h
 *	  Old events through the handlers of a projection.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_REPLAY_H
#define CQRS_ES_REPLAY_H

#include "nodes/pg_list.h"
#include "utils/hsearch.h"

#include "projection/coverage.h"
#include "projection/projection.h"
#include "projection/skipped_event.h"

/* What is replayed, how, and what has come of it, over several calls. */
typedef struct Replay
{
	Projection *projection;
	bool		rebuild;		/* or a resume, for those who watch */
	bool		skip;			/* record events that fail, and go on */
	int64		old_to;			/* nothing may be appended for events up to this position */
	uint64		tags;			/* of a rebuild that has begun: what EventFilterAsk
								 * returned then, or 0 */

	int64		seen;			/* events */
	int64		concerned;		/* those that were handled */
	int64		skipped;
	List	   *tallies;		/* HandlerTally */
	MemoryContext memory;		/* of all this; lasts over all calls */

	/* private to replay.c */
	bool		has_begun;
	int64		first;			/* where in the log */
	int			quarter;		/* of which the last notice was */
	bool		checks;			/* deferred constraints after each event */
	HTAB	   *skipped_streams;
} Replay;

extern bool ReplayRun(Replay *replay, Coverage *handled, int64 max_events);
extern void ReplayRelease(Projection *projection, bool held_before);
extern bool ReplaySkipped(Projection *projection, const SkippedEvent *skipped, int64 *handled);
extern int64 ReplayLastPosition(void);
extern uint64 ReplayAsk(const Replay *replay, int64 after_position);
extern void ReplayRefuseProblems(Projection *projection, bool skip);
extern void ReplayReport(const Replay *replay);

#endif							/* CQRS_ES_REPLAY_H */
