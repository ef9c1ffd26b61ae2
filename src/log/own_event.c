/*-------------------------------------------------------------------------
 * own_event.c
 *	  Events that the extension itself appends, of a reserved type (reserved_type.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#include "base/compat.h"
#include "log/dispatch.h"
#include "log/own_event.h"
#include "log/reserved_type.h"

/*
 * Append an event of ours at the end of the stream, also of a closed one, and '$reopened' of a
 * deleted one, as the current role; the
 * payload is JSON as a text.  False when the stream is not at the version that was expected (or
 * EXPECT_ANY).  Nobody is told before the DispatchRelease of a caller who holds; else they have been
 * told.  Raises what AppendEvents does.
 */
bool
OwnEventAppend(const StreamKey *key, int64 expected_version, const char *event_type,
			   const char *payload, AppendResult *result)
{
	char	   *source = psprintf("[{\"type\": \"%s\", \"payload\": %s}]", event_type, payload);
	Jsonb	   *events = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(source)));
	bool		held = DispatchHold();
	ReservedTypeUse allowed = ReservedTypeAllow(strcmp(event_type, REOPENED_EVENT_TYPE) == 0 ?
												RESERVED_TYPE_BEHIND_DELETED : RESERVED_TYPE_ALLOWED);
	volatile bool done = false;
	AppendRequest append;

	AppendRequestInit(&append, key, expected_version, 1);
	PG_TRY();
	{
		AppendRequestParse(&append, events, "the extension");
		done = AppendEvents(&append, result);
	}
	PG_FINALLY();
	{
		(void) ReservedTypeAllow(allowed);
	}
	PG_END_TRY();
	/* handlers may append what anybody may */
	DispatchRelease(held);
	return done;
}

/* The payload of an event that says nothing but why; palloc'd. */
char *
OwnEventReason(const text *reason)
{
	StringInfoData payload;

	initStringInfo(&payload);
	appendStringInfoString(&payload, "{\"reason\": ");
	escape_json(&payload, text_to_cstring(reason));
	appendStringInfoChar(&payload, '}');
	return payload.data;
}
