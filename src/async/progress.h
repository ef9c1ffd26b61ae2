/*-------------------------------------------------------------------------
 * progress.h
 *	  Has an asynchronous projection handled all up to a position?
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_PROGRESS_H
#define CQRS_ES_PROGRESS_H

/* How far it is, as to the events up to a position. */
typedef struct Progress
{
	bool		is_there;		/* else nothing of this */
	bool		paused;
	bool		stopped;		/* since an event failed, for which `error` is */
	bool		blocked;		/* a stream is, by an event that failed, for which
								 * `error` is */
	bool		retries;		/* something that failed comes again, now or later */
	bool		waits;			/* nothing is handed out now, since something failed */
	bool		open;			/* there are events that it has not handled, */
	bool		unsettled;		/* or may come to be some */
	char	   *error;			/* NULL: none */
	Oid			owner;
} Progress;

extern Progress ProgressOf(const text *projection, int64 position);

#endif							/* CQRS_ES_PROGRESS_H */
