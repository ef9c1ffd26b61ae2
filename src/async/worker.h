/*-------------------------------------------------------------------------
 * worker.h
 *	  One background worker in a database, and who starts it.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_WORKER_H
#define CQRS_ES_WORKER_H

#include "postmaster/bgworker.h"

/*
 * What somebody else has the worker do, beside projections.  Both are called in a transaction,
 * with an active snapshot.
 */
typedef struct WorkerChore
{
	bool		(*is_due) (void);
	bool		(*run) (void);	/* if it is due; true: more will be, though nobody
								 * appends */
} WorkerChore;

/* settings */
extern bool WorkerIsOn;
extern int	WorkerIdleTime;		/* in seconds; 0: without end */

extern void WorkerInit(void);
extern void WorkerWanted(void);
extern void WorkerSetChore(const WorkerChore *chore);
extern const WorkerChore *WorkerGetChore(void);
extern bool WorkerClaim(void);
extern bool WorkerHasPlace(void);
extern void WorkerRelease(void);
extern bool WorkerStart(Oid database, bool only_if_needed, int deaths,
						BackgroundWorkerHandle * *handle);
extern bool WorkerIsOnlyIfNeeded(void);
extern int	WorkerDeaths(void);
extern void WorkerLaunchLater(Oid database, int deaths);

#endif							/* CQRS_ES_WORKER_H */
