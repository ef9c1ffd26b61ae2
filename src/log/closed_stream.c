/*-------------------------------------------------------------------------
 * closed_stream.c
 *	  Streams that have ended.
 *
 * A stream is closed when its last event is '$closed'.  Whoever appends looks at the last
 * event anyway (EventScanTip), so it costs nothing to refuse what comes behind, on every path; and
 * the end of the stream, for which one wins and the others wait, decides between who closes and
 * who appends.  To open the stream again is to append another event of ours; also one that has
 * been deleted (deleted_stream.c).
 *
 * What the extension itself appends behind (redaction.c) leaves the stream as it was.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/compat.h"
#include "base/internal_query.h"
#include "base/read_only.h"
#include "base/tenancy.h"
#include "base/text.h"
#include "log/closed_stream.h"
#include "log/event_scan.h"
#include "log/own_event.h"
#include "log/reserved_type.h"

PG_FUNCTION_INFO_V1(cqrs_es_close_stream);
PG_FUNCTION_INFO_V1(cqrs_es_reopen_stream);

static int64 change_end(FunctionCallInfo fcinfo, bool close);
static Event *last_event(const StreamKey *key);

/* SQL: close_stream(aggregate_type, aggregate_id, reason); returns the stream's version. */
Datum
cqrs_es_close_stream(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(change_end(fcinfo, true));
}

/* SQL: reopen_stream(aggregate_type, aggregate_id, reason); likewise. */
Datum
cqrs_es_reopen_stream(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(change_end(fcinfo, false));
}

/*
 * Append what makes the stream a closed one, or no longer one; nothing when it is as it is to
 * be.  Each time that somebody else was quicker it is looked at again.
 */
static int64
change_end(FunctionCallInfo fcinfo, bool close)
{
	StreamKey	key;
	text	   *reason;
	char	   *payload;
	AppendResult result;
	Event	   *last;

	ReadOnlyPrevent(fcinfo);
	key.aggregate_type = TextArgument(fcinfo->args[0], "aggregate_type", AGGREGATE_TYPE_MAX_BYTES);
	key.aggregate_id = TextArgument(fcinfo->args[1], "aggregate_id", AGGREGATE_ID_MAX_BYTES);
	key.tenant_id = TenancyCurrent();
	reason = TextArgument(fcinfo->args[2], "reason", REASON_MAX_BYTES);
	EventsRequireRights(ACL_INSERT | ACL_SELECT);
	payload = OwnEventReason(reason);
	do
	{
		StreamTip	tip;

		CHECK_FOR_INTERRUPTS();
		last = last_event(&key);
		if (last == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("stream \"%s\" has no events", StreamKeyName(&key))));
		tip = EventScanTipOf(last);
		if (close && tip.end == STREAM_DELETED)
			EventScanReportDeleted(&key, tip.version);
		if (close == (tip.end != STREAM_OPEN))
		{
			ereport(NOTICE,
					(errmsg(close ? "stream \"%s\" is closed already" : "stream \"%s\" is not closed",
							StreamKeyName(&key))));
			return EventSequence(last);
		}
	} while (!OwnEventAppend(&key, EventSequence(last), close ? CLOSED_EVENT_TYPE : REOPENED_EVENT_TYPE,
							 payload, &result));
	return result.version;
}

/* As the isolation level lets it be seen, palloc'd; NULL: there is none. */
static Event *
last_event(const StreamKey *key)
{
	Snapshot	snapshot = RegisterSnapshot(InternalQueryFreshSnapshot());
	EventScan  *scan = EventScanStream(key, PG_INT64_MAX, BackwardScanDirection, snapshot);
	Event	   *last = NULL;
	Event		event;

	if (EventScanNext(scan, &event))
		last = EventCopy(&event);
	EventScanEnd(scan);
	UnregisterSnapshot(snapshot);
	return last;
}

/*
 * An event of ours has come behind this version, and the stream's end is ours: if it was closed then, close
 * it again, for the same reason.
 */
void
ClosedStreamKeep(const StreamKey *key, int64 version)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	EventScan  *scan = EventScanWholeStream(key, version, ForwardScanDirection, snapshot);
	char	   *payload = NULL;
	AppendResult result;
	Event		event;

	if (EventScanNext(scan, &event) && EventSequence(&event) == version &&
		ReservedTypeEquals(EventText(&event, EVENT_EVENT_TYPE), CLOSED_EVENT_TYPE))
	{
		Jsonb	   *json = DatumGetJsonbP(event.values[EVENT_PAYLOAD]);

		payload = JsonbToCString(NULL, &json->root, VARSIZE(json));
	}
	EventScanEnd(scan);
	UnregisterSnapshot(snapshot);
	if (payload)
		(void) OwnEventAppend(key, EXPECT_ANY, CLOSED_EVENT_TYPE, payload, &result);
}
