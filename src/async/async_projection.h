/*-------------------------------------------------------------------------
 * async_projection.h
 *	  Projections that follow the log by themselves, after the commit.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_ASYNC_PROJECTION_H
#define CQRS_ES_ASYNC_PROJECTION_H

#include "projection/locked_projection.h"

/* One of them, as it is declared. */
typedef struct AsyncProjection
{
	Projection *projection;
	Coverage	handled;		/* what it passes over */
	int64		rebuilt_to;		/* for events up to here nothing may be appended; 0: none */
} AsyncProjection;

extern void AsyncProjectionInit(void);
extern void AsyncProjectionSetAppended(void (*appended) (void));
extern AsyncProjection *AsyncProjectionRead(const text *name);
extern List *AsyncProjectionNames(void);
extern void AsyncProjectionGoOn(LockedProjection *locked, bool is_async, bool per_stream);

#endif							/* CQRS_ES_ASYNC_PROJECTION_H */
