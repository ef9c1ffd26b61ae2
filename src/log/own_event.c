/*-------------------------------------------------------------------------
 * own_event.c
 *	  Events that the extension itself appends, of a reserved type (reserved_type.c).
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "base/compat.h"
#include "log/dispatch.h"
#include "log/own_event.h"
#include "log/reserved_type.h"

/*
 * Append an event of ours at the end of the stream, also of a closed one, as the current role; the
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
	bool		allowed = ReservedTypeAllow(true);
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
