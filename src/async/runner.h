/*-------------------------------------------------------------------------
 * runner.h
 *	  Asynchronous projections are run.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_RUNNER_H
#define CQRS_ES_RUNNER_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

/* What differs between a procedure and a background process. */
typedef struct RunnerTransactions
{
	/* Commit, and begin anew. */
	void		(*end) (void);

	/* Is it to return?  Asked in a transaction, at least once a second; NULL: never. */
	bool		(*leave) (int64 handled);
} RunnerTransactions;

/* What there is to be done. */
typedef enum RunnerState
{
	RUNNER_NONE,				/* there is none that is not paused or stopped */
	RUNNER_DONE,				/* all is handled, and nothing comes again */
	RUNNER_OPEN
} RunnerState;

extern int64 RunnerRun(List *names, TimestampTz deadline, const RunnerTransactions *transactions);
extern RunnerState RunnerLook(void);

#endif							/* CQRS_ES_RUNNER_H */
