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
#include "log/own_event.h"
#include "log/reserved_type.h"

/*
 * Append an event of ours at the end of the stream, wherever that is, as the current role; the
 * payload is JSON as a text.  Nobody is told before the DispatchRelease of a caller who
 * holds.  Raises what AppendEvents does.
 */
AppendResult
OwnEventAppend(const StreamKey *key, const char *event_type, const char *payload)
{
	char	   *source = psprintf("[{\"type\": \"%s\", \"payload\": %s}]", event_type, payload);
	Jsonb	   *events = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(source)));
	bool		allowed = ReservedTypeAllow(true);
	AppendRequest append;
	AppendResult result;

	AppendRequestInit(&append, key, EXPECT_ANY, 1);
	PG_TRY();
	{
		AppendRequestParse(&append, events, "the extension");
		(void) AppendEvents(&append, &result);
	}
	PG_FINALLY();
	{
		(void) ReservedTypeAllow(allowed);
	}
	PG_END_TRY();
	return result;
}
