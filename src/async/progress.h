/*-------------------------------------------------------------------------
 * progress.h
 *	  Has an asynchronous projection handled all up to a position?
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PROGRESS_H
#define CQRS_ES_PROGRESS_H

#include "subscription/subscription.h"
#include "async/async_projection.h"

/* How far it is, as to the events up to a position. */
typedef struct Progress
{
	bool		is_there;		/* else nothing of this */
	bool		paused;
	bool		stopped;		/* since an event failed, for which `error` is */
	bool		blocked;		/* the event at the position waits in a stream that is,
								 * for which `error` is */
	bool		retried;		/* it waits in a stream that is tried again */
	bool		retries;		/* something that failed comes again, now or later */
	bool		waits;			/* nothing is handed out now, since something failed */
	bool		open;			/* there are events that it has not handled, */
	bool		unsettled;		/* or may come to be some */
	char	   *error;			/* NULL: none */
} Progress;

/* A projection that is looked at over and over. */
typedef struct ProgressWatch
{
	text	   *name;
	text	   *feed;

	/* as it is declared; read anew when declarations have changed */
	MemoryContext memory;
	uint64		generation;
	Projection *projection;		/* of either mode; NULL: there is none of that name */
	AsyncProjection *async;		/* NULL: it is none of these, or not yet */
	Subscription *subscription;
} ProgressWatch;

extern ProgressWatch *ProgressWatchMake(const text *projection);
extern void ProgressWatchDeclared(ProgressWatch *watch);
extern Progress ProgressLook(ProgressWatch *watch, int64 position);
extern Progress ProgressOf(const text *projection, int64 position);

#endif							/* CQRS_ES_PROGRESS_H */
