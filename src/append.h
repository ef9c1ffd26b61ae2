/*-------------------------------------------------------------------------
 * append.h
 *	  The one way in: expected version, idempotent retry, batch.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_APPEND_H
#define CQRS_ES_APPEND_H

#include "events.h"

/* expected versions that are not a number of events */
#define EXPECT_ANY		INT64CONST(-2)
#define EXPECT_EXISTS	INT64CONST(-1)

/*
 * What to append.  Of the events the caller fills event type, event version,
 * payload, metadata, and the event id where has_id says so; the rest is
 * filled in by AppendEvents.
 */
typedef struct AppendRequest
{
	StreamKey	key;
	int64		expected_version;
	Event	   *events;
	bool	   *has_id;
	int			nevents;		/* at least 1 */
}			AppendRequest;

typedef struct AppendResult
{
	int64		version;
	int64		global_position;
}			AppendResult;

extern AppendResult AppendEvents(AppendRequest *append);

#endif							/* CQRS_ES_APPEND_H */
