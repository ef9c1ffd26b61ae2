/*-------------------------------------------------------------------------
 * append_request.h
 *	  What to append.
 *-------------------------------------------------------------------------
 */
#ifndef CQRS_ES_APPEND_REQUEST_H
#define CQRS_ES_APPEND_REQUEST_H

#include "fmgr.h"
#include "utils/array.h"
#include "utils/jsonb.h"

#include "base/compat.h"
#include "base/stream_key.h"
#include "log/event_scan.h"
#include "log/events.h"

/* expected versions that are not a number of events */
#define EXPECT_ANY		INT64CONST(-2)
#define EXPECT_EXISTS	INT64CONST(-1)

/*
 * What to append.  Of the events the request has event type, event version,
 * payload, metadata, event id and tags; the rest is filled in by AppendEvents.
 */
typedef struct AppendRequest
{
	StreamKey	key;
	int64		expected_version;
	const StreamTip *seen;		/* the end of the stream, where the caller has looked for
								 * it already; NULL */
	Jsonb	   *metadata;		/* an object for all events, or NULL; with the stamp in
								 * it */
	Jsonb	   *stamp;			/* what of it no event can change, or NULL */
	Event	   *events;
	bool	   *has_id;			/* was the event's id given? */
	ArrayType **tags;			/* that were given with each event, text[] without nulls,
								 * empty or overlong ones; NULL: with none */
	Datum	   *stored;			/* their payloads as they are stored, where these differ;
								 * NULL: they do not */
	int			nevents;		/* at least 1 */
	const char *origin;			/* of what it was parsed, for errors, as in "event 3 of
								 * the batch"; NULL: the event came alone */
	int		   *numbers;		/* of the events there; NULL: as they stand, from 1 */
} AppendRequest;

/* Which event of several is being looked at, for an error context. */
typedef struct EventOrigin
{
	const char *origin;			/* as in "event 3 of the batch" */
	int			number;			/* counted from 1 */
} EventOrigin;

/* What came of it: where the stream is then, and the log. */
typedef struct AppendResult
{
	int64		version;
	int64		global_position;	/* of the last event */
	bool		was_there;		/* nothing was written: an earlier append of the same ids
								 * did */
	bool		as_sent;		/* what is in the log is what was sent: nobody on the way
								 * could change it */
} AppendResult;

extern void AppendRequestOfEvent(AppendRequest *append, FunctionCallInfo fcinfo);
extern void AppendRequestOfBatch(AppendRequest *append, FunctionCallInfo fcinfo);
extern void AppendRequestOfArrays(AppendRequest *append, FunctionCallInfo fcinfo);
extern int64 AppendRequestExpected(NullableDatum arg);
pg_noreturn extern void AppendRequestReportExpected(const char *expected_version);
extern void AppendRequestInit(AppendRequest *append, const StreamKey *key,
							  int64 expected_version, int nevents);
extern void AppendRequestParse(AppendRequest *append, Jsonb *events, const char *origin);
extern void AppendRequestParseEvent(AppendRequest *append, int i, const JsonbValue *element,
									bool names_stream);
extern JsonbContainer *AppendRequestEventObject(const JsonbValue *element);
extern int	AppendRequestCheckTags(ArrayType *tags);
extern void AppendRequestDescribe(void *arg);

#endif							/* CQRS_ES_APPEND_REQUEST_H */
