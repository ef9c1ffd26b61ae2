/*-------------------------------------------------------------------------
 * append.h
 *	  The one way in: expected version, idempotent retry, batch.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_APPEND_H
#define CQRS_ES_APPEND_H

#include "base/compat.h"
#include "log/events.h"

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
	Jsonb	   *metadata;		/* below that of each event, above the context; or NULL */
	Jsonb	   *stamp;			/* above that of each event; or NULL */
	Event	   *events;
	bool	   *has_id;
	int			nevents;		/* at least 1 */
}			AppendRequest;

typedef struct AppendResult
{
	int64		version;
	int64		global_position;
}			AppendResult;

extern void AppendInit(void);
extern int64 ExpectedVersionArg(NullableDatum arg);
extern void AppendRequestInit(AppendRequest *append, const StreamKey *key,
							  int64 expected_version, int nevents);
extern void AppendRequestParse(AppendRequest *append, Jsonb *events);
extern AppendResult AppendEvents(AppendRequest *append);
extern void AppendPrevent(void);
extern bool AppendVersionFits(int64 expected, int64 version);
pg_noreturn extern void AppendReportConflict(const StreamKey *key, int64 expected,
											 int64 version);
extern bool AppendTry(AppendRequest *append, AppendResult *result);

#endif							/* CQRS_ES_APPEND_H */
